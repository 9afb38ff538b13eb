/* Programs, for Python: a list of operations in, everything copied and checked once, then run without checks. */
#include "binding.h"

typedef struct {
    pb_program p;
    PyObject *keep; /* the offsets (and so the weights) of the operations */
    void **owned;   /* copied tables */
    size_t count, room;
} box;

static void free_box(box *b)
{
    for (size_t i = 0; i < b->count; i++) PyMem_Free(b->owned[i]);
    PyMem_Free(b->owned);
    PyMem_Free(b->p.value);
    PyMem_Free(b->p.op);
    PyMem_Free(b->p.phase);
    Py_XDECREF(b->keep);
    PyMem_Free(b);
}

static void free_program(PyObject *c) { free_box(PyCapsule_GetPointer(c, PB_PROGRAM)); }

static void *own(box *b, size_t bytes)
{
    if (b->count == b->room) {
        void **more = PyMem_Realloc(b->owned, (b->room * 2 + 16) * sizeof *more);
        if (!more) return PyErr_NoMemory();
        b->owned = more, b->room = b->room * 2 + 16;
    }
    void *p = PyMem_Malloc(bytes ? bytes : 1);
    if (!p) return PyErr_NoMemory();
    return b->owned[b->count++] = p;
}

/* A private copy of the i-th array; *n gets its items. NULL without an error: None. */
static void *table(box *b, PyObject *arrays, Py_ssize_t i, char kind, int64_t *n)
{
    PyObject *o = i < PyTuple_GET_SIZE(arrays) ? PyTuple_GET_ITEM(arrays, i) : Py_None;
    Py_buffer v;
    *n = 0;
    if (o == Py_None || pb_take(o, &v, "table", kind, 1, 0, 1)) return NULL;
    void *p = own(b, (size_t)v.len);
    if (p) memcpy(p, v.buf, (size_t)v.len);
    *n = v.len / v.itemsize;
    PyBuffer_Release(&v);
    return p;
}

static int refuse(const char *what)
{
    if (!PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "program: %s", what);
    return -1;
}

/* Whether `floats` are a lane vector for each of rows x cols. */
static int one_each(int64_t floats, int64_t rows, int64_t cols)
{
    return rows > 0 && cols > 0 && floats % PB_LANES == 0 && floats / PB_LANES / rows == cols && floats / PB_LANES % rows == 0;
}

static int offsets_of(box *b, PyObject *o, pb_op_conv *c)
{
    pb_offsets_box *f = PyCapsule_GetPointer(o, PB_OFFSETS);
    if (!f || PyList_Append(b->keep, o)) return -1;
    c->w = ((pb_weights_box *)PyCapsule_GetPointer(f->weights, PB_WEIGHTS))->w;
    c->col = f->col;
    c->geo = f->geo;
    return 0;
}

static int read_conv(box *b, pb_op *op, const int64_t *n, double p, PyObject *arrays, PyObject *offsets)
{
    pb_op_conv *c = &op->u.conv;
    int64_t bias, tiles, splits;
    if (offsets_of(b, offsets, c)) return -1;
    c->add = n[2];
    c->from = (pb_at){n[3], n[4]}, c->to = (pb_at){n[5], n[6]}, c->plus = (pb_at){n[7], n[8]};
    c->rh = n[9], c->rw = n[10], c->sy = n[11], c->sx = n[12], c->relu = n[13], c->clamp = n[14];
    c->hi = (float)p;
    c->columns = op->kind == PB_OP_DOT && n[3];
    c->bias = table(b, arrays, 0, 'f', &bias);
    if (PyErr_Occurred() || (c->bias && bias != (c->columns ? c->w->chans : c->w->rows))) return refuse("a bias of another length");
    if (op->kind == PB_OP_DOT) return 0;
    c->tile = table(b, arrays, 1, 'j', &tiles);
    c->split = table(b, arrays, 2, 'j', &splits);
    if (!c->tile || !c->split || splits < 2) return refuse("a convolution without tiles");
    c->tiles = tiles / 4, c->splits = splits - 1;
    for (int64_t s = 0; s <= c->splits; s++)
        if (c->split[s] > c->w->rows) return refuse("a part beyond the last row");
    c->start = own(b, (size_t)c->splits * c->w->nblk * sizeof *c->start);
    if (!c->start) return -1;
    for (int64_t s = 0; s < c->splits; s++)
        for (uint32_t k = 0; k < c->w->nblk; k++) {
            const pb_block *blk = &c->w->blk[k];
            size_t at = blk->at0;
            for (uint32_t r = blk->r0; r < blk->r1 && r < c->split[s]; r++) at += c->w->cnt[blk->cnt0 + (r - blk->r0)];
            c->start[s * c->w->nblk + k] = at;
        }
    return 0;
}

static int read_move(box *b, pb_op *op, const int64_t *n, double p, PyObject *arrays, int64_t groups)
{
    pb_op_move *m = &op->u.move;
    int64_t k, ns, nd, nc;
    m->dr = n[2], m->chans = n[3], m->n = n[4], m->dy = n[5], m->dc = n[6], m->sc = n[7];
    m->fill = (float)p;
    m->table = table(b, arrays, 0, 'j', &k);
    m->src = table(b, arrays, 1, 'l', &ns);
    m->dst = table(b, arrays, 2, 'l', &nd);
    m->channel = table(b, arrays, 3, 'j', &nc);
    m->blocks = n[8], m->pairs = n[9];
    if (!m->table || !m->src || !m->dst || PyErr_Occurred() || m->dr < 1 || m->n < 1 || m->blocks < 0 || m->pairs < 0
        || (m->pairs    ? k / PB_MOVE_PAIR != m->pairs || k % PB_MOVE_PAIR
            : m->blocks ? k / PB_MOVE_BLOCK != m->blocks || k % PB_MOVE_BLOCK : k / m->dr != m->n || k % m->dr) || ns < groups || nd < groups || (m->channel && nc != m->chans))
        return refuse("a move whose tables don't fit");
    return 0;
}

static int read_op(box *b, pb_op *op, const int64_t *n, Py_ssize_t have, double p, PyObject *arrays, PyObject *offsets, int64_t groups)
{
    static const int need[] = {15, 15, 1, 10, 14, 8, 15};
    if (op->kind < 0 || op->kind >= PB_OP_KINDS || have < need[op->kind]) return refuse("an unknown operation");
    op->in = n[0], op->out = op->kind == PB_OP_HALO ? n[0] : n[1];
    int64_t a, c;
    switch (op->kind) {
    case PB_OP_CONV:
    case PB_OP_DOT: return read_conv(b, op, n, p, arrays, offsets);
    case PB_OP_MOVE: return read_move(b, op, n, p, arrays, groups);
    case PB_OP_HALO: {
        pb_op_halo *h = &op->u.halo;
        h->fill = (float)p;
        h->entry = table(b, arrays, 0, 'j', &a), h->mask = table(b, arrays, 1, 'j', &c);
        h->entries = a / 4, h->masks = c / PB_LANES;
        return h->entry && h->mask ? 0 : refuse("a halo without entries");
    }
    case PB_OP_WINDOW:
        op->u.window = (pb_op_window){{n[2], n[3]}, {n[4], n[5]}, n[6], n[7], n[8], n[9], n[10], n[11], n[12], n[13], NULL};
        op->u.window.mult = table(b, arrays, 0, 'f', &a);
        if (PyErr_Occurred() || (op->u.window.mult && !one_each(a, n[6], n[7]))) return refuse("a window's factors");
        return 0;
    case PB_OP_SUM:
        op->u.sum = (pb_op_sum){{n[2], n[3]}, n[4], n[5], n[6], n[7], (float)p, NULL};
        op->u.sum.mask = table(b, arrays, 0, 'j', &a);
        if (PyErr_Occurred() || (op->u.sum.mask && !one_each(a, n[4], n[5]))) return refuse("a sum's mask");
        return 0;
    default: {
        pb_op_map *m = &op->u.map;
        *m = (pb_op_map){.fn = n[2], .in2 = n[3], .from = {n[4], n[5]}, .plus = {n[6], n[7]}, .to = {n[8], n[9]}, .rh = n[10],
                         .rw = n[11], .gate = n[12], .images = n[13], .per = n[14], .p0 = (float)p};
        m->scale = table(b, arrays, 0, 'f', &a), m->shift = table(b, arrays, 1, 'f', &c);
        const int64_t chans = op->out >= 0 && op->out < b->p.values ? b->p.value[op->out].chans : -1;
        if (PyErr_Occurred() || (m->scale && a != chans) || (m->shift && c != chans)) return refuse("a map's factors");
        return 0;
    }
    }
}

static int64_t groups_of(const pb_program *p, int64_t op)
{
    for (int64_t f = 0; f < p->phases; f++)
        if (op >= p->phase[f].first && op < p->phase[f].end) return p->phase[f].groups;
    return 1;
}

static int read_ops(box *b, PyObject *ops)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(ops); i++) {
        long long kind;
        PyObject *ints, *arrays, *offsets;
        double p;
        Py_buffer n;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(ops, i), "LOdO!O", &kind, &ints, &p, &PyTuple_Type, &arrays, &offsets)) return -1;
        if (pb_take(ints, &n, "ints", 'l', 1, 0, 1)) return -1;
        b->p.op[i].kind = kind;
        const int rc = read_op(b, &b->p.op[i], n.buf, n.shape[0], p, arrays, offsets, groups_of(&b->p, i));
        PyBuffer_Release(&n);
        if (rc) return -1;
    }
    return 0;
}

PyObject *pb_py_program(PyObject *self, PyObject *args)
{
    long long chunk, shared, slot, inputs, outputs;
    PyObject *values, *phases, *ops;
    Py_buffer v, f;
    (void)self;
    if (!PyArg_ParseTuple(args, "LLLLLOOO!", &chunk, &shared, &slot, &inputs, &outputs, &values, &phases, &PyList_Type, &ops))
        return NULL;
    if (inputs < 0 || inputs > 16 || outputs < 0 || outputs > 16)
        return PyErr_Format(PyExc_ValueError, "program: more than 16 inputs or outputs");
    if (pb_take(values, &v, "values", 'l', 2, 0, 1)) return NULL;
    if (pb_take(phases, &f, "phases", 'l', 2, 0, 1)) {
        PyBuffer_Release(&v);
        return NULL;
    }
    box *b = PyMem_Calloc(1, sizeof *b);
    PyObject *c = NULL;
    if (!b) {
        PyErr_NoMemory();
    } else {
        pb_program *p = &b->p;
        *p = (pb_program){.isa = pb_current, .values = v.shape[0], .ops = PyList_GET_SIZE(ops), .phases = f.shape[0],
                          .inputs = inputs, .outputs = outputs, .chunk = chunk, .shared = shared, .slot = slot};
        p->value = PyMem_Malloc((size_t)v.len + 1);
        p->phase = PyMem_Malloc((size_t)f.len + 1);
        p->op = PyMem_Calloc((size_t)p->ops + 1, sizeof *p->op);
        b->keep = PyList_New(0);
        if (v.shape[1] != PB_VALUE_FIELDS || f.shape[1] != 3) {
            refuse("values or phases of another form");
        } else if (p->value && p->phase && p->op && b->keep) {
            memcpy(p->value, v.buf, (size_t)v.len);
            memcpy(p->phase, f.buf, (size_t)f.len);
            char why[160] = "";
            if (!read_ops(b, ops)) {
                if (pb_program_check(p, why, sizeof why)) PyErr_Format(PyExc_ValueError, "program: %s", why);
                else c = PyCapsule_New(b, PB_PROGRAM, free_program);
            }
        } else if (!PyErr_Occurred()) {
            PyErr_NoMemory();
        }
        if (!c) free_box(b);
    }
    PyBuffer_Release(&v);
    PyBuffer_Release(&f);
    return c;
}

PyObject *pb_py_run(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    if (n < 4) return PyErr_Format(PyExc_TypeError, "run: program, chunks, threads, ns, addresses");
    const box *b = PyCapsule_GetPointer(args[0], PB_PROGRAM);
    if (!b) return NULL;
    const long long chunks = PyLong_AsLongLong(args[1]);
    const long threads = PyLong_AsLong(args[2]);
    if (n != 4 + b->p.inputs + b->p.outputs || chunks < 0 || threads < 1) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "run: wrong number of addresses, chunks or threads");
        return NULL;
    }
    float *p[32];
    for (Py_ssize_t i = 4; i < n; i++) {
        p[i - 4] = PyLong_AsVoidPtr(args[i]);
        if (!p[i - 4] && chunks) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "run: a null address");
            return NULL;
        }
    }
    Py_buffer ns = {0};
    if (args[3] != Py_None) {
        if (PyObject_GetBuffer(args[3], &ns, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE)) return NULL;
        if (!ns.format || strcmp(ns.format, "d") || ns.len < b->p.ops * 8) {
            PyBuffer_Release(&ns);
            return PyErr_Format(PyExc_ValueError, "run: ns must hold a double per operation");
        }
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pb_program_run(&b->p, (const float *const *)p, p + b->p.inputs, chunks, threads > 256 ? 256 : (int)threads, ns.buf);
    Py_END_ALLOW_THREADS
    if (ns.obj) PyBuffer_Release(&ns);
    if (rc) return PyErr_NoMemory();
    Py_RETURN_NONE;
}
