/* What a sparse encoding says of itself, held against itself; included by decode.c once. Only the numbers that would
 * take an array library several passes are looked at here. */

#define RISING(NAME, INDEX)                                                                                            \
    static int NAME(const int64_t *starts, num rows, const INDEX *indices, num count, num columns) {                   \
        for (num row = 0; row < rows; row++) {                                                                         \
            int64_t begin = starts[row], end = starts[row + 1], last = -1;                                             \
            if (begin < 0 || end < begin || end > count) return 1;                                                     \
            for (int64_t k = begin; k < end; k++) {                                                                    \
                int64_t column = (int64_t)indices[k];                                                                  \
                if (column <= last) return column < 0 || last >= columns ? 1 : 2;                             \
                last = column;                                                                                         \
            }                                                                                                          \
            if (last >= columns) return 1;                                                                             \
        }                                                                                                              \
        return 0;                                                                                                      \
    }

RISING(rising_8, uint8_t)
RISING(rising_16, uint16_t)
RISING(rising_32, int32_t)

static PyObject *check_indices(PyObject *self, PyObject *args) {
    PyObject *starts, *indices;
    num width, columns;
    Py_buffer s, i;
    int found = 1;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOnn", &starts, &indices, &width, &columns)) return NULL;
    if (width != 1 && width != 2 && width != 4) return PyErr_Format(PyExc_ValueError, "indices of %zd bytes", width);
    if (held(starts, &s, 0, 8, "starts") < 0) return NULL;
    if (held(indices, &i, 0, width, "indices") < 0) {
        PyBuffer_Release(&s);
        return NULL;
    }
    num rows = s.len / 8 - 1, count = i.len / width;
    Py_BEGIN_ALLOW_THREADS;
    if (rows >= 0)
        found = width == 1   ? rising_8(s.buf, rows, i.buf, count, columns)
                : width == 2 ? rising_16(s.buf, rows, i.buf, count, columns)
                             : rising_32(s.buf, rows, i.buf, count, columns);
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&i);
    PyBuffer_Release(&s);
    return PyLong_FromLong(found);
}

static PyObject *check_bits(PyObject *self, PyObject *args) {
    PyObject *bits, *offsets;
    num rows, columns;
    int64_t set = 0;
    int beyond = 0, other = 0;
    Py_buffer b, o;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOnn", &bits, &offsets, &rows, &columns)) return NULL;
    if (held(bits, &b, 0, 1, "bits") < 0) return NULL;
    if (held(offsets, &o, 0, 8, "offsets") < 0) {
        PyBuffer_Release(&b);
        return NULL;
    }
    const num width = columns / 8 + (columns % 8 != 0);
    if (rows < 0 || columns < 1 || o.len / 8 != rows || (rows ? b.len / rows != width || b.len % rows : b.len)) {
        PyBuffer_Release(&o);
        PyBuffer_Release(&b);
        PyErr_SetString(PyExc_ValueError, "the bits don't fit the matrix");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS;
    const uint8_t *row_bits = b.buf;
    for (num row = 0; row < rows; row++, row_bits += width) {
        other |= ((const int64_t *)o.buf)[row] != set;
        for (num at = 0; at < width; at += 8) set += __builtin_popcountll(word_at(row_bits + at, width - at));
        beyond |= columns % 8 && row_bits[width - 1] >> columns % 8;
    }
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&o);
    PyBuffer_Release(&b);
    return Py_BuildValue("Lii", (long long)set, beyond, other);
}

static PyObject *check_codes(PyObject *self, PyObject *args) {
    PyObject *codes;
    num width;
    int64_t marks = 0, sum = 0;
    Py_buffer c;
    (void)self;
    if (!PyArg_ParseTuple(args, "On", &codes, &width)) return NULL;
    if (width != 4 && width != 8 && width != 16) return PyErr_Format(PyExc_ValueError, "codes of %zd bits", width);
    if (held(codes, &c, 0, width == 16 ? 2 : 1, "codes") < 0) return NULL;
    Py_BEGIN_ALLOW_THREADS;
    const num n = c.len / (width == 16 ? 2 : 1);
    const uint8_t *narrow = c.buf;
    const uint16_t *wide = c.buf;
    for (num i = 0; i < n; i++) {
        unsigned low = width == 16 ? wide[i] : width == 8 ? narrow[i] : narrow[i] & 15u;
        unsigned high = width == 4 ? narrow[i] >> 4 : 0;
        marks += (low != 0) + (high != 0);
        sum += low + high;
    }
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&c);
    return Py_BuildValue("LL", (long long)marks, (long long)sum);
}
