/* Compressed weights and their offsets, for Python. */
#include "binding.h"

static void free_weights(PyObject *c)
{
    pb_weights_box *b = PyCapsule_GetPointer(c, PB_WEIGHTS);
    pb_weights_free(b->w);
    PyMem_Free(b);
}

PyObject *pb_py_pack(PyObject *self, PyObject *args)
{
    PyObject *o;
    unsigned kh, kw, groups, cb = 0;
    Py_buffer w;
    (void)self;
    if (!PyArg_ParseTuple(args, "OIII|I", &o, &kh, &kw, &groups, &cb)) return NULL;
    if (pb_take(o, &w, "weight", 'f', 2, 0, 1)) return NULL;
    const Py_ssize_t rows = w.shape[0], width = w.shape[1];
    pb_weights_box *b = PyMem_Calloc(1, sizeof *b);
    const int sound = kh && kw && groups && kh <= PB_MAX_OFFSET && kw <= PB_MAX_OFFSET && (uint64_t)kh * kw <= PB_MAX_OFFSET
                      && rows <= INT32_MAX && width <= INT32_MAX && rows % groups == 0 && width % (kh * kw) == 0;
    if (b && !sound) {
        PyErr_SetString(PyExc_ValueError, "weight: rows, groups and taps don't fit each other, or are too many");
    } else if (b) {
        Py_BEGIN_ALLOW_THREADS
        b->w = pb_weights_dense(w.buf, (uint32_t)rows, (uint32_t)(width / (kh * kw)), kh, kw, groups, cb);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&w);
    PyObject *c = b && b->w ? PyCapsule_New(b, PB_WEIGHTS, free_weights) : NULL;
    if (!c) {
        if (!PyErr_Occurred()) PyErr_NoMemory();
        if (b) pb_weights_free(b->w);
        PyMem_Free(b);
    }
    return c;
}

PyObject *pb_py_info(PyObject *self, PyObject *o)
{
    (void)self;
    const pb_weights_box *b = PyCapsule_GetPointer(o, PB_WEIGHTS);
    if (!b) return NULL;
    return Py_BuildValue("{s:n,s:n,s:I,s:I,s:I}", "nnz", (Py_ssize_t)b->w->nnz, "bytes", (Py_ssize_t)b->w->bytes, "blocks",
                         b->w->nblk, "rows", b->w->rows, "widest", b->w->widest);
}

PyObject *pb_py_unpack(PyObject *self, PyObject *args)
{
    PyObject *wc, *o;
    Py_buffer out;
    (void)self;
    if (!PyArg_ParseTuple(args, "OO", &wc, &o)) return NULL;
    const pb_weights_box *b = PyCapsule_GetPointer(wc, PB_WEIGHTS);
    if (!b || pb_take(o, &out, "out", 'f', 2, 1, 1)) return NULL;
    const pb_weights *w = b->w;
    float *to = out.buf;
    if (w->kh * w->kw != 1 || w->groups != 1 || out.shape[0] != (Py_ssize_t)w->rows || out.shape[1] != (Py_ssize_t)w->chans) {
        PyBuffer_Release(&out);
        return PyErr_Format(PyExc_ValueError, "unpack: not a matrix of this size");
    }
    memset(to, 0, (size_t)out.len);
    for (uint32_t i = 0; i < w->nblk; i++) {
        const pb_block *k = &w->blk[i];
        size_t at = k->at0;
        for (uint32_t r = k->r0; r < k->r1; r++)
            for (uint32_t n = w->cnt[k->cnt0 + (r - k->r0)]; n > 0; n--, at++)
                to[(size_t)r * w->chans + k->c0 + (size_t)(w->col[at] / w->geo.plane)] = w->val[at];
    }
    PyBuffer_Release(&out);
    Py_RETURN_NONE;
}

static void free_offsets(PyObject *c)
{
    pb_offsets_box *b = PyCapsule_GetPointer(c, PB_OFFSETS);
    if (b->owned) PyMem_RawFree(b->col);
    Py_XDECREF(b->weights);
    PyMem_Free(b);
}

static int same(const pb_geometry *a, const pb_geometry *b)
{
    return a->plane == b->plane && a->row == b->row && a->dh == b->dh && a->dw == b->dw;
}

/* The first layout asked for takes the place of the offsets as packed; a second one gets its own 2 bytes per nonzero. */
PyObject *pb_py_offsets(PyObject *self, PyObject *args)
{
    PyObject *wc;
    long long v[4];
    (void)self;
    if (!PyArg_ParseTuple(args, "OLLLL", &wc, v, v + 1, v + 2, v + 3)) return NULL;
    pb_weights_box *wb = PyCapsule_GetPointer(wc, PB_WEIGHTS);
    if (!wb) return NULL;
    const pb_geometry g = {v[0], v[1], v[2], v[3]};
    if (!pb_geometry_fits(wb->w, &g)) {
        PyErr_SetString(PyExc_ValueError, "offsets: this layout is too large for 16 bits");
        return NULL;
    }
    pb_offsets_box *b = PyMem_Calloc(1, sizeof *b);
    if (!b) return PyErr_NoMemory();
    if (!wb->claimed || same(&g, &wb->w->geo)) {
        if (!wb->claimed) pb_offsets(wb->w, &g, wb->w->col);
        wb->w->geo = g;
        wb->claimed = 1;
        b->col = wb->w->col;
    } else {
        b->owned = 1;
        b->col = PyMem_RawCalloc(wb->w->nnz + PB_SLACK, sizeof *b->col);
        if (b->col) pb_offsets(wb->w, &g, b->col);
    }
    b->geo = g;
    Py_INCREF(wc);
    b->weights = wc;
    PyObject *c = b->col ? PyCapsule_New(b, PB_OFFSETS, free_offsets) : NULL;
    if (!c) {
        if (!PyErr_Occurred()) PyErr_NoMemory();
        if (b->owned) PyMem_RawFree(b->col);
        Py_DECREF(wc);
        PyMem_Free(b);
    }
    return c;
}
