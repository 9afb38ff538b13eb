/* The Python face of the engine: buffers in, checked once, the GIL released around the work. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "engine.h"

#define SPARSE "prunebench.sparse"
#define PLAN "prunebench.plan"
#ifndef PB_BUILD
#define PB_BUILD ""
#endif

static const pb_isa *current;

/* Takes a buffer of `ndim` dimensions; kind 'f' float32, 'i' int32 or int64, 'j' int32. */
static int take(PyObject *o, Py_buffer *b, const char *name, char kind, int ndim, int write, int contiguous)
{
    const int flags = (contiguous ? PyBUF_C_CONTIGUOUS : PyBUF_STRIDES) | PyBUF_FORMAT | (write ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(o, b, flags)) return -1;
    const char *f = b->format ? b->format : "B";
    int good = 0;
    if (kind == 'f') good = strcmp(f, "f") == 0;
    else if (kind == 'j') good = b->itemsize == 4 && strcmp(f, "i") == 0;
    else good = strlen(f) == 1 && strchr("ilq", *f) && (b->itemsize == 4 || b->itemsize == 8);
    if (!good || b->ndim != ndim) {
        PyErr_Format(good ? PyExc_ValueError : PyExc_TypeError, "%s: a buffer of format '%s' with %d dimensions", name, f,
                     b->ndim);
        PyBuffer_Release(b);
        return -1;
    }
    for (int i = 0; i < ndim; i++)
        if (b->strides && b->strides[i] % b->itemsize) {
            PyErr_Format(PyExc_ValueError, "%s: its strides are no whole number of items", name);
            PyBuffer_Release(b);
            return -1;
        }
    return 0;
}

static void free_sparse(PyObject *c) { pb_sparse_free(PyCapsule_GetPointer(c, SPARSE)); }
static void free_plan(PyObject *c) { pb_plan_free(PyCapsule_GetPointer(c, PLAN)); }

static PyObject *py_pack(PyObject *self, PyObject *args)
{
    PyObject *o;
    unsigned kk, groups, cb = 0;
    Py_buffer w;
    (void)self;
    if (!PyArg_ParseTuple(args, "OII|I", &o, &kk, &groups, &cb)) return NULL;
    if (take(o, &w, "weight", 'f', 2, 0, 1)) return NULL;
    const Py_ssize_t rows = w.shape[0], width = w.shape[1];
    pb_sparse *s = NULL;
    if (!kk || !groups || kk > PB_MAX_BLOCK || rows > INT32_MAX || width > INT32_MAX || rows % groups || width % kk) {
        PyErr_SetString(PyExc_ValueError, "weight: rows, groups and taps don't fit each other, or are too many");
    } else {
        Py_BEGIN_ALLOW_THREADS
        s = pb_sparse_dense(w.buf, (uint32_t)rows, (uint32_t)(width / kk), kk, groups, cb);
        Py_END_ALLOW_THREADS
        if (!s) PyErr_NoMemory();
    }
    PyBuffer_Release(&w);
    if (!s) return NULL;
    PyObject *c = PyCapsule_New(s, SPARSE, free_sparse);
    if (!c) pb_sparse_free(s);
    return c;
}

static PyObject *py_info(PyObject *self, PyObject *o)
{
    (void)self;
    const pb_sparse *s = PyCapsule_GetPointer(o, SPARSE);
    if (!s) return NULL;
    return Py_BuildValue("{s:n,s:n,s:I,s:I}", "nnz", (Py_ssize_t)s->nnz, "bytes", (Py_ssize_t)s->bytes, "blocks", s->nblk,
                         "rows", s->rows);
}

static int map_fits(const int32_t *m, int64_t n, int64_t size)
{
    for (int64_t i = 0; i < n; i++)
        if (m[i] < -1 || m[i] >= size) return 0;
    return 1;
}

static PyObject *py_plan(PyObject *self, PyObject *args)
{
    PyObject *cap, *yo, *xo;
    long long v[11];
    int lanes, threads;
    Py_buffer y, x;
    (void)self;
    if (!PyArg_ParseTuple(args, "O(LLL)(LL)(LL)(LL)(LL)OOpi", &cap, v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6, v + 7,
                          v + 8, v + 9, v + 10, &yo, &xo, &lanes, &threads))
        return NULL;
    const pb_sparse *s = PyCapsule_GetPointer(cap, SPARSE);
    if (!s) return NULL;
    for (int i = 0; i < 11; i++)
        if (v[i] < 1 || v[i] > INT32_MAX) return PyErr_Format(PyExc_ValueError, "plan: number %d is %lld", i, v[i]);
    if ((uint64_t)(v[3] * v[4]) != s->kk) return PyErr_Format(PyExc_ValueError, "plan: the kernel has other taps");
    if (take(yo, &y, "ymap", 'j', 1, 0, 1)) return NULL;
    if (take(xo, &x, "xmap", 'j', 1, 0, 1)) {
        PyBuffer_Release(&y);
        return NULL;
    }
    const pb_geometry g = {.n = v[0], .h = v[1], .w = v[2], .kh = v[3], .kw = v[4], .sh = v[5], .sw = v[6], .dh = v[7],
                           .dw = v[8], .oh = v[9], .ow = v[10], .ymap = y.buf, .xmap = x.buf, .ny = y.shape[0],
                           .nx = x.shape[0], .lanes = lanes, .threads = threads < 1 ? 1 : threads};
    pb_plan *p = NULL;
    if (!map_fits(y.buf, g.ny, g.h) || !map_fits(x.buf, g.nx, g.w) || !g.ny || !g.nx)
        PyErr_SetString(PyExc_ValueError, "plan: a map leads outside the image");
    else if (!(p = pb_plan_new(s, &g, current)))
        PyErr_NoMemory();
    PyBuffer_Release(&y);
    PyBuffer_Release(&x);
    if (!p) return NULL;
    PyObject *c = PyCapsule_New(p, PLAN, free_plan);
    if (!c) pb_plan_free(p);
    return c;
}

static PyObject *py_plan_info(PyObject *self, PyObject *o)
{
    (void)self;
    const pb_plan *p = PyCapsule_GetPointer(o, PLAN);
    if (!p) return NULL;
    return Py_BuildValue("{s:s,s:i,s:L,s:L,s:L,s:i,s:i,s:L,s:L,s:n,s:n}", "isa", p->isa->name, "lanes", p->lanes, "images",
                         (long long)p->nb, "rows", (long long)p->my, "cols", (long long)p->mx, "tile_rows", p->tr,
                         "tile_pixels", p->tp, "planes", (long long)p->nplane, "splits", (long long)p->splits, "buf",
                         (Py_ssize_t)(p->buf * 4), "scratch", (Py_ssize_t)(p->scratch * 4));
}

static pb_view view(const Py_buffer *b)
{
    const pb_view v = {b->buf, b->strides[0] / 4, b->strides[1] / 4, b->strides[2] / 4, b->strides[3] / 4};
    return v;
}

static int shaped(const Py_buffer *b, int64_t n, int64_t c, int64_t h, int64_t w)
{
    return b->shape[0] == n && b->shape[1] == c && b->shape[2] == h && b->shape[3] == w;
}

static int same_layout(const Py_buffer *a, const Py_buffer *b)
{
    for (int i = 0; i < 4; i++)
        if (a->shape[i] != b->shape[i] || (a->shape[i] > 1 && a->strides[i] != b->strides[i])) return 0;
    return 1;
}

static PyObject *py_conv(PyObject *self, PyObject *args)
{
    PyObject *cs, *cp, *xo, *yo, *bo, *ao;
    int relu, threads, rc = 0, bad;
    Py_buffer x, y, b = {0}, a = {0};
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOOOOpi", &cs, &cp, &xo, &yo, &bo, &ao, &relu, &threads)) return NULL;
    const pb_sparse *s = PyCapsule_GetPointer(cs, SPARSE);
    const pb_plan *p = s ? PyCapsule_GetPointer(cp, PLAN) : NULL;
    if (!s || !p || take(xo, &x, "x", 'f', 4, 0, 0)) return NULL;
    if (take(yo, &y, "y", 'f', 4, 1, 0)) goto free_x;
    if (bo != Py_None && take(bo, &b, "bias", 'f', 1, 0, 1)) goto free_y;
    if (ao != Py_None && take(ao, &a, "add", 'f', 4, 0, 0)) goto free_b;
    /* the plan must be this matrix's, the output's lanes side by side, the residual laid out as the output */
    bad = !shaped(&x, p->n, p->cin, p->h, p->w) || !shaped(&y, p->n, p->cout, p->oh, p->ow) || p->cout != s->rows
          || p->cin != (int64_t)s->chans * s->groups || (uint64_t)(p->kh * p->kw) != s->kk
          || p->groups != s->groups || p->max_cols != s->max_cols || (b.obj && b.shape[0] != p->cout)
          || (p->lanes && p->n > 1 && y.strides[0] != 4) || (a.obj && !same_layout(&a, &y));
    if (bad) {
        PyErr_SetString(PyExc_ValueError, "conv: plan, weights, input, output, bias and residual don't fit each other");
    } else {
        Py_BEGIN_ALLOW_THREADS
        rc = pb_conv(s, p, view(&x), view(&y), b.buf, a.buf, relu, threads < 1 ? 1 : threads);
        Py_END_ALLOW_THREADS
        if (rc) PyErr_NoMemory();
    }
    if (a.obj) PyBuffer_Release(&a);
free_b:
    if (b.obj) PyBuffer_Release(&b);
free_y:
    PyBuffer_Release(&y);
free_x:
    PyBuffer_Release(&x);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_dot(PyObject *self, PyObject *args)
{
    PyObject *cs, *xo, *yo, *bo;
    int relu, threads;
    Py_buffer x, y, b = {0};
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOOpi", &cs, &xo, &yo, &bo, &relu, &threads)) return NULL;
    const pb_sparse *s = PyCapsule_GetPointer(cs, SPARSE);
    if (!s || take(xo, &x, "x", 'f', 1, 0, 0)) return NULL;
    if (take(yo, &y, "y", 'f', 1, 1, 0)) goto free_x;
    if (bo != Py_None && take(bo, &b, "bias", 'f', 1, 0, 1)) goto free_y;
    if (s->kk != 1 || s->groups != 1 || x.shape[0] != s->chans || y.shape[0] != s->rows || (b.obj && b.shape[0] != s->rows)) {
        PyErr_SetString(PyExc_ValueError, "dot: weights, input, output and bias don't fit each other");
    } else {
        Py_BEGIN_ALLOW_THREADS
        pb_dot(s, x.buf, x.strides[0] / 4, y.buf, y.strides[0] / 4, b.buf, relu, threads < 1 ? 1 : threads);
        Py_END_ALLOW_THREADS
    }
    if (b.obj) PyBuffer_Release(&b);
free_y:
    PyBuffer_Release(&y);
free_x:
    PyBuffer_Release(&x);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_csr(PyObject *self, PyObject *args)
{
    PyObject *o[6];
    long long rows, cols;
    int relu, threads, rc, n = 0;
    Py_buffer b[6] = {{0}};
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOLLOOOpi", o, o + 1, o + 2, &rows, &cols, o + 3, o + 4, o + 5, &relu, &threads))
        return NULL;
    static const char *const names[] = {"indptr", "indices", "data", "dense", "out", "bias"};
    for (; n < 6; n++) {
        if (n == 5 && o[n] == Py_None) break;
        if (take(o[n], &b[n], names[n], n < 2 ? 'i' : 'f', n == 3 || n == 4 ? 2 : 1, n == 4, 1)) break;
    }
    if (!PyErr_Occurred()) {
        if (rows < 0 || cols < 0 || rows > INT32_MAX || cols > INT32_MAX || b[3].shape[1] > INT32_MAX)
            PyErr_SetString(PyExc_ValueError, "shape: rows, cols and n must be 0 .. 2147483647");
        else if (b[0].shape[0] != rows + 1 || b[1].shape[0] != b[2].shape[0] || b[3].shape[0] != cols
                 || b[4].shape[0] != rows || b[4].shape[1] != b[3].shape[1] || (b[5].obj && b[5].shape[0] != rows))
            PyErr_SetString(PyExc_ValueError, "csr_matmul: the arrays' sizes don't fit the shape");
    }
    if (!PyErr_Occurred()) {
        const pb_csr m = {.indptr = b[0].buf, .indices = b[1].buf, .indptr_wide = b[0].itemsize == 8,
                          .indices_wide = b[1].itemsize == 8, .data = b[2].buf, .x = b[3].buf, .bias = b[5].buf,
                          .y = b[4].buf, .rows = rows, .cols = cols, .nnz = b[1].shape[0], .n = b[3].shape[1],
                          .relu = relu, .threads = threads < 1 ? 1 : threads};
        char why[160] = "";
        if ((uint64_t)m.nnz > UINT32_MAX) {
            PyErr_SetString(PyExc_ValueError, "csr_matmul: more than 4294967295 nonzeros");
        } else {
            Py_BEGIN_ALLOW_THREADS
            rc = pb_csr_product(&m, current, why, sizeof why);
            Py_END_ALLOW_THREADS
            if (rc == -1) PyErr_SetString(PyExc_ValueError, why);
            else if (rc) PyErr_NoMemory();
        }
    }
    for (int i = 0; i < n; i++) PyBuffer_Release(&b[i]);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_isa(PyObject *self, PyObject *none)
{
    (void)self, (void)none;
    return PyUnicode_FromString(current->name);
}

static PyObject *py_isas(PyObject *self, PyObject *none)
{
    (void)self, (void)none;
    PyObject *list = PyList_New(0);
    const pb_isa *isa;
    for (int i = 0; list && (isa = pb_isa_at(i)); i++) {
        PyObject *s = PyUnicode_FromString(isa->name);
        if (!s || PyList_Append(list, s)) Py_CLEAR(list);
        Py_XDECREF(s);
    }
    return list;
}

static PyObject *py_use(PyObject *self, PyObject *o)
{
    (void)self;
    const char *name = PyUnicode_AsUTF8(o);
    const pb_isa *isa = name ? pb_isa_find(name) : NULL;
    if (!name) return NULL;
    if (!isa) return PyErr_Format(PyExc_ValueError, "unknown ISA, or this CPU lacks it: %s", name);
    current = isa;
    Py_RETURN_NONE;
}

static PyObject *py_cores(PyObject *self, PyObject *none)
{
    (void)self, (void)none;
    return PyLong_FromLong(pb_cores());
}

static PyMethodDef methods[] = {
    {"pack", py_pack, METH_VARARGS, "pack(weight2d, taps, groups, block=0) -> sparse: compress a dense weight."},
    {"info", py_info, METH_O, "info(sparse) -> dict of nnz, bytes, blocks, rows."},
    {"plan", py_plan, METH_VARARGS,
     "plan(sparse, (n, h, w), kernel, stride, dilation, (oh, ow), ymap, xmap, lanes, threads) -> plan."},
    {"plan_info", py_plan_info, METH_O, "plan_info(plan) -> dict of the choices made."},
    {"conv", py_conv, METH_VARARGS, "conv(sparse, plan, x, y, bias, add, relu, threads): y = act(conv(x) + bias + add)."},
    {"dot", py_dot, METH_VARARGS, "dot(sparse, x, y, bias, relu, threads): y = act(W x + bias), x and y vectors."},
    {"csr_matmul", py_csr, METH_VARARGS,
     "csr_matmul(indptr, indices, data, rows, cols, dense, out, bias, relu, threads): out = act(W dense + bias)."},
    {"isa", py_isa, METH_NOARGS, "isa() -> name of the kernels in use."},
    {"isas", py_isas, METH_NOARGS, "isas() -> names of the kernels this CPU can run, best first."},
    {"use", py_use, METH_O, "use(name): plans made from now on use these kernels."},
    {"cores", py_cores, METH_NOARGS, "cores() -> cores this process may use."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", "Sparse kernels.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void);
PyMODINIT_FUNC PyInit__native(void)
{
    pb_pool_init();
    current = pb_isa_best();
    PyObject *m = PyModule_Create(&module);
    if (m && PyModule_AddStringConstant(m, "BUILD", PB_BUILD)) Py_CLEAR(m);
    return m;
}
