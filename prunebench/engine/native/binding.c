/* The Python face of the engine: buffers in, checked once, the GIL released around the work. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "binding.h"

#ifndef PB_BUILD
#define PB_BUILD ""
#endif

const pb_isa *pb_current;

/* See binding.h. */
int pb_take(PyObject *o, Py_buffer *b, const char *name, char kind, int ndim, int write, int contiguous)
{
    const int flags = (contiguous ? PyBUF_C_CONTIGUOUS : PyBUF_STRIDES) | PyBUF_FORMAT | (write ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(o, b, flags)) return -1;
    const char *f = b->format ? b->format : "B";
    int good = 0;
    if (kind == 'f') good = strcmp(f, "f") == 0;
    else if (kind == 'j') good = b->itemsize == 4 && strlen(f) == 1 && strchr("iI", *f);
    else if (kind == 'l') good = b->itemsize == 8 && strlen(f) == 1 && strchr("lq", *f);
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
        if (pb_take(o[n], &b[n], names[n], n < 2 ? 'i' : 'f', n == 3 || n == 4 ? 2 : 1, n == 4, 1)) break;
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
            rc = pb_csr_product(&m, pb_current, why, sizeof why);
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
    return PyUnicode_FromString(pb_current->name);
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
    pb_current = isa;
    Py_RETURN_NONE;
}

static PyObject *py_cores(PyObject *self, PyObject *none)
{
    (void)self, (void)none;
    return PyLong_FromLong(pb_cores());
}

static PyObject *py_maxq(PyObject *self, PyObject *none)
{
    (void)self, (void)none;
    const int *q = pb_current->maxq;
    return Py_BuildValue("(iiiii)", q[0], q[1], q[2], q[3], q[4]);
}

static PyObject *py_roofs(PyObject *self, PyObject *none)
{
    (void)self, (void)none;
    double l1, l2, far;
    Py_BEGIN_ALLOW_THREADS
    l1 = pb_roof((size_t)20 << 10, 0.05), l2 = pb_roof((size_t)384 << 10, 0.05), far = pb_roof((size_t)8 << 20, 0.05);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("{s:d,s:d,s:d}", "l1", l1, "l2", l2, "far", far);
}

static PyMethodDef methods[] = {
    {"pack", pb_py_pack, METH_VARARGS, "pack(weight2d, kh, kw, groups, block=0) -> weights: compress a dense weight."},
    {"info", pb_py_info, METH_O, "info(weights) -> dict of nnz, bytes, blocks, rows, widest."},
    {"unpack", pb_py_unpack, METH_VARARGS, "unpack(weights, out): a packed matrix as float32 (rows, columns) again."},
    {"offsets", pb_py_offsets, METH_VARARGS, "offsets(weights, plane, row, dh, dw) -> the weights' offsets in a layout."},
    {"program", pb_py_program, METH_VARARGS, "program(chunk, shared, slot, inputs, outputs, values, phases, ops) -> program."},
    {"run", (PyCFunction)(void (*)(void))pb_py_run, METH_FASTCALL,
     "run(program, chunks, threads, ns, *addresses): inputs, then outputs, each of chunks * chunk images."},
    {"csr_matmul", py_csr, METH_VARARGS,
     "csr_matmul(indptr, indices, data, rows, cols, dense, out, bias, relu, threads): out = act(W dense + bias)."},
    {"isa", py_isa, METH_NOARGS, "isa() -> name of the kernels in use."},
    {"isas", py_isas, METH_NOARGS, "isas() -> names of the kernels this CPU can run, best first."},
    {"use", py_use, METH_O, "use(name): plans made from now on use these kernels."},
    {"maxq", py_maxq, METH_NOARGS, "maxq() -> widest register tile for 0 to 4 rows, in lane vectors."},
    {"roofs", py_roofs, METH_NOARGS, "roofs() -> GFLOP/s of one thread's FMAs with an operand from L1, L2 or beyond."},
    {"cores", py_cores, METH_NOARGS, "cores() -> cores this process may use."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", "Sparse kernels.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void);
PyMODINIT_FUNC PyInit__native(void)
{
    pb_pool_init();
    pb_current = pb_isa_best();
    PyObject *m = PyModule_Create(&module);
    if (m && PyModule_AddStringConstant(m, "BUILD", PB_BUILD)) Py_CLEAR(m);
    return m;
}
