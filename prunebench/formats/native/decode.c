/* Sparse encodings of a checkpoint, checked and decoded: what docs/file-formats.md lays out, one pass each.
 *
 * The inputs may lie in a mapped file that somebody else writes to meanwhile. So every number is read once, into a
 * local, and tested where it is used: what was checked a moment ago proves nothing. Nothing is written outside `out`.
 *
 * The roof is memory: `out` is written once. A row is zeroed just before its values are put in, while it is in the
 * nearest cache; zeroing everything first writes it twice, which made decoding slower than copying a dense file.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

typedef Py_ssize_t num;

enum { BLOCK = 16384 }; /* bytes that are zeroed at a time where rows don't matter: half of a nearest cache */

#define ONCE(array, at) __atomic_load_n((array) + (at), __ATOMIC_RELAXED)

static inline uint64_t word_at(const uint8_t *bytes, num left) {
    uint64_t word = 0;
    memcpy(&word, bytes, left < 8 ? (size_t)left : 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* A kind of value: its type, what a row needs of the scales, and what is stored of x. Each returns 0, or -1 where a
 * number does not fit: then `out` holds a part of the weights, and no byte outside it was touched. */
#define CSR(NAME, INDEX, VALUE, SCALE, STORED)                                                                         \
    static int NAME(const int64_t *starts, const INDEX *indices, const VALUE *values, num count, const float *scales,  \
                    VALUE *out, num rows, num columns) {                                                               \
        (void)scales;                                                                                                  \
        for (num row = 0; row < rows; row++, out += columns) {                                                         \
            int64_t begin = ONCE(starts, row), end = ONCE(starts, row + 1);                                            \
            if (begin < 0 || end < begin || end > count) return -1;                                                    \
            SCALE;                                                                                                     \
            memset(out, 0, (size_t)columns * sizeof(VALUE));                                                           \
            for (int64_t k = begin; k < end; k++) {                                                                    \
                int64_t column = (int64_t)ONCE(indices, k);                                                            \
                if (column < 0 || column >= columns) return -1;                                                        \
                VALUE x = values[k];                                                                                   \
                out[column] = STORED;                                                                                  \
            }                                                                                                          \
        }                                                                                                              \
        return 0;                                                                                                      \
    }

#define BITMASK(NAME, VALUE, SCALE, STORED)                                                                            \
    static int NAME(const uint8_t *bits, const VALUE *values, num count, const float *scales, VALUE *out, num rows,    \
                    num columns) {                                                                                     \
        num width = (columns + 7) / 8, k = 0;                                                                          \
        (void)scales;                                                                                                  \
        for (num row = 0; row < rows; row++, out += columns, bits += width) {                                          \
            SCALE;                                                                                                     \
            memset(out, 0, (size_t)columns * sizeof(VALUE));                                                           \
            for (num at = 0; at < width; at += 8) {                                                                    \
                uint64_t word = word_at(bits + at, width - at);                                                        \
                if (k + __builtin_popcountll(word) > count) return -1;                                                 \
                for (; word; word &= word - 1) {                                                                       \
                    num column = 8 * at + __builtin_ctzll(word);                                                       \
                    if (column >= columns) return -1;                                                                  \
                    VALUE x = values[k++];                                                                             \
                    out[column] = STORED;                                                                              \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        return k == count ? 0 : -1;                                                                                    \
    }

/* CODE: code number i of n, below 4 bits two in a byte. SCALE is renewed where a row ends. */
#define DELTA(NAME, WORD, CODE, GREATEST, VALUE, SCALE, STORED)                                                        \
    static int NAME(const WORD *codes, num n, const VALUE *values, num count, const float *scales, VALUE *out,         \
                    num rows, num columns) {                                                                           \
        const num total = rows * columns, step = BLOCK / (num)sizeof(VALUE);                                           \
        num at = -1, zeroed = 0, k = 0, row = -1, row_end = 0;                                                         \
        (void)scales, (void)row, (void)row_end;                                                                        \
        for (num i = 0; i < n; i++) {                                                                                  \
            num code = CODE;                                                                                           \
            at += code ? code : GREATEST;                                                                              \
            if (!code) continue;                                                                                       \
            if (at >= total || k >= count) return -1;                                                                  \
            while (at >= zeroed) {                                                                                     \
                num some = total - zeroed < step ? total - zeroed : step;                                              \
                memset(out + zeroed, 0, (size_t)some * sizeof(VALUE));                                                 \
                zeroed += some;                                                                                        \
            }                                                                                                          \
            SCALE;                                                                                                     \
            VALUE x = values[k++];                                                                                     \
            out[at] = STORED;                                                                                          \
        }                                                                                                              \
        memset(out + zeroed, 0, (size_t)(total - zeroed) * sizeof(VALUE));                                             \
        return k == count ? 0 : -1;                                                                                    \
    }

#define NONE (void)0
#define OF_ROW const float scale = scales[row]
#define OF_ROW_AT while (at >= row_end) (row++, row_end += columns)
#define HALF_BYTE ((ONCE(codes, i / 2) >> (i % 2 * 4)) & 15)

#define ALL(KIND, VALUE, ROW, ROW_AT, STORED, STORED_AT)                                                               \
    CSR(csr_8_##KIND, uint8_t, VALUE, ROW, STORED)                                                                     \
    CSR(csr_16_##KIND, uint16_t, VALUE, ROW, STORED)                                                                   \
    CSR(csr_32_##KIND, int32_t, VALUE, ROW, STORED)                                                                    \
    BITMASK(bitmask_##KIND, VALUE, ROW, STORED)                                                                        \
    DELTA(delta_4_##KIND, uint8_t, HALF_BYTE, 15, VALUE, ROW_AT, STORED_AT)                                            \
    DELTA(delta_8_##KIND, uint8_t, ONCE(codes, i), 255, VALUE, ROW_AT, STORED_AT)                                      \
    DELTA(delta_16_##KIND, uint16_t, ONCE(codes, i), 65535, VALUE, ROW_AT, STORED_AT)

ALL(two, uint16_t, NONE, NONE, x, x)
ALL(four, uint32_t, NONE, NONE, x, x)
ALL(eight, uint64_t, NONE, NONE, x, x)
ALL(scaled, float, OF_ROW, OF_ROW_AT, x *scale, x *scales[row])

/* Calls FUNCTION##_KIND for values of `size` bytes, with scales if there are any, which makes them floats. */
#define BY_KIND(FUNCTION, ...)                                                                                         \
    (v.scales.buf ? FUNCTION##_scaled(__VA_ARGS__, v.values.buf, v.count, v.scales.buf, v.out.buf, rows, columns)      \
     : v.size == 2 ? FUNCTION##_two(__VA_ARGS__, v.values.buf, v.count, NULL, v.out.buf, rows, columns)                \
     : v.size == 4 ? FUNCTION##_four(__VA_ARGS__, v.values.buf, v.count, NULL, v.out.buf, rows, columns)               \
                   : FUNCTION##_eight(__VA_ARGS__, v.values.buf, v.count, NULL, v.out.buf, rows, columns))

typedef struct {
    Py_buffer values, scales, out; /* scales.buf NULL: none */
    num size, count;               /* bytes of a value, number of values */
} Values;

static int held(PyObject *object, Py_buffer *view, int writable, num unit, const char *name) {
    view->obj = NULL;
    view->buf = NULL;
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | (writable ? PyBUF_WRITABLE : 0)) < 0) return -1;
    /* GCC may assume alignment of what a typed pointer points to. */
    if (view->len % unit == 0 && (uintptr_t)view->buf % (uintptr_t)unit == 0) return 0;
    PyErr_Format(PyExc_ValueError, "%s: %zd bytes are no aligned numbers of %zd bytes", name, view->len, unit);
    PyBuffer_Release(view);
    return -1;
}

static void let_go(Values *v) {
    PyBuffer_Release(&v->values);
    PyBuffer_Release(&v->scales);
    PyBuffer_Release(&v->out);
}

static int take(Values *v, PyObject *values, PyObject *scales, PyObject *out, num size, num rows, num columns) {
    memset(v, 0, sizeof *v);
    if ((size != 2 && size != 4 && size != 8) || rows < 0 || columns < 1 || rows > PY_SSIZE_T_MAX / 8 / columns) {
        PyErr_SetString(PyExc_ValueError, "a matrix of this size, or of such values, can't be decoded");
        return -1;
    }
    if (held(values, &v->values, 0, size, "values") < 0 || held(out, &v->out, 1, size, "out") < 0) goto wrong;
    if (scales != Py_None && held(scales, &v->scales, 0, 4, "scales") < 0) goto wrong;
    v->size = size;
    v->count = v->values.len / size;
    if (v->out.len != rows * columns * size || (v->scales.buf && (size != 4 || v->scales.len != 4 * rows))) {
        PyErr_SetString(PyExc_ValueError, "out or the scales don't fit the matrix");
        goto wrong;
    }
    return 0;
wrong:
    let_go(v);
    return -1;
}

static PyObject *outcome(int bad) {
    if (!bad) Py_RETURN_NONE;
    PyErr_SetString(PyExc_ValueError, "the file changed while it was read: its numbers contradict each other");
    return NULL;
}

static PyObject *spread_csr(PyObject *self, PyObject *args) {
    PyObject *starts, *indices, *values, *scales, *out;
    num width, size, rows, columns;
    Py_buffer s, i;
    Values v;
    int bad = -1;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOnOnOOnn", &starts, &indices, &width, &values, &size, &scales, &out, &rows, &columns))
        return NULL;
    if (take(&v, values, scales, out, size, rows, columns) < 0) return NULL;
    if (width != 1 && width != 2 && width != 4) {
        let_go(&v);
        return PyErr_Format(PyExc_ValueError, "indices of %zd bytes", width);
    }
    if (held(starts, &s, 0, 8, "starts") < 0) {
        let_go(&v);
        return NULL;
    }
    if (held(indices, &i, 0, width, "indices") < 0) {
        PyBuffer_Release(&s);
        let_go(&v);
        return NULL;
    }
    if (s.len == 8 * (rows + 1) && i.len == width * v.count) {
        Py_BEGIN_ALLOW_THREADS;
        bad = width == 1   ? BY_KIND(csr_8, s.buf, i.buf)
              : width == 2 ? BY_KIND(csr_16, s.buf, i.buf)
                           : BY_KIND(csr_32, s.buf, i.buf);
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&i);
    PyBuffer_Release(&s);
    let_go(&v);
    return outcome(bad);
}

static PyObject *spread_bitmask(PyObject *self, PyObject *args) {
    PyObject *bits, *values, *scales, *out;
    num size, rows, columns;
    Py_buffer b;
    Values v;
    int bad = -1;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOnOOnn", &bits, &values, &size, &scales, &out, &rows, &columns)) return NULL;
    if (take(&v, values, scales, out, size, rows, columns) < 0) return NULL;
    if (held(bits, &b, 0, 1, "bits") < 0) {
        let_go(&v);
        return NULL;
    }
    if (b.len == rows * ((columns + 7) / 8)) {
        Py_BEGIN_ALLOW_THREADS;
        bad = BY_KIND(bitmask, b.buf);
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&b);
    let_go(&v);
    return outcome(bad);
}

static PyObject *spread_delta(PyObject *self, PyObject *args) {
    PyObject *codes, *values, *scales, *out;
    num width, size, rows, columns;
    Py_buffer c;
    Values v;
    int bad;
    (void)self;
    if (!PyArg_ParseTuple(args, "OnOnOOnn", &codes, &width, &values, &size, &scales, &out, &rows, &columns)) return NULL;
    if (width != 4 && width != 8 && width != 16) return PyErr_Format(PyExc_ValueError, "codes of %zd bits", width);
    if (take(&v, values, scales, out, size, rows, columns) < 0) return NULL;
    if (held(codes, &c, 0, width == 16 ? 2 : 1, "codes") < 0) {
        let_go(&v);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS;
    bad = width == 4   ? BY_KIND(delta_4, c.buf, 2 * c.len)
          : width == 8 ? BY_KIND(delta_8, c.buf, c.len)
                       : BY_KIND(delta_16, c.buf, c.len / 2);
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&c);
    let_go(&v);
    return outcome(bad);
}

#include "checks.h"

static PyMethodDef methods[] = {
    {"spread_csr", spread_csr, METH_VARARGS,
     "spread_csr(starts int64 (rows + 1,), indices, their bytes, values, their bytes, scales float32 (rows,) or None, "
     "out, rows, columns): decode into out; ValueError where a number does not fit."},
    {"spread_bitmask", spread_bitmask, METH_VARARGS,
     "spread_bitmask(bits, values, their bytes, scales or None, out, rows, columns): the same for a bit per weight."},
    {"spread_delta", spread_delta, METH_VARARGS,
     "spread_delta(codes, their bits, values, their bytes, scales or None, out, rows, columns): the same for distances."},
    {"check_indices", check_indices, METH_VARARGS,
     "check_indices(starts, indices, their bytes, columns): 0, or 1 where one lies outside, 2 where they don't rise."},
    {"check_bits", check_bits, METH_VARARGS,
     "check_bits(bits, offsets int64 (rows,), rows, columns): (bits set, 1 if one is beyond a row's end, 1 if the "
     "offsets are others)."},
    {"check_codes", check_codes, METH_VARARGS, "check_codes(codes, their bits): (codes that are not 0, their sum)."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_decode", "Sparse encodings of a checkpoint.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__decode(void) { return PyModule_Create(&module); }
