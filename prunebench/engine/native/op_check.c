/* Whether an operation stays inside its values: everything a program is later run without checks on is checked here. */
#include <stdio.h>

#include "program.h"

#define REFUSE(...) return snprintf(why, room, __VA_ARGS__), -1

static const pb_value *value_at(const pb_program *p, int64_t i, int64_t kind)
{
    if (i < 0 || i >= p->values) return NULL;
    return kind < 0 || p->value[i].kind == kind ? &p->value[i] : NULL;
}

static int small(int64_t v) { return v >= 0 && v < INT32_MAX; }

/* A window of lane vectors: from `at`, ny x nx outputs, the last reaching `ey`, `ex` beyond (steps times strides). */
static int inside(const pb_value *v, pb_at at, int64_t ny, int64_t nx, int64_t sy, int64_t sx, int64_t ey, int64_t ex)
{
    if (!small(at.y) || !small(at.x) || !small(ny) || !small(nx) || !small(sy) || !small(sx) || !small(ey) || !small(ex))
        return 0;
    if (ny < 1 || nx < 1) return 0;
    return at.y + (ny - 1) * sy + ey < v->rows && at.x + (nx - 1) * sx + ex < v->cols;
}

static int check_conv(const pb_program *p, const pb_op *op, char *why, size_t room)
{
    const pb_op_conv *o = &op->u.conv;
    const pb_weights *w = o->w;
    const pb_value *in = value_at(p, op->in, PB_VALUE_LANES), *out = value_at(p, op->out, PB_VALUE_LANES);
    const pb_value *add = value_at(p, o->add, PB_VALUE_LANES);
    const pb_geometry *g = &o->geo;
    if (!in || !out || (o->add >= 0 && !add)) REFUSE("conv: no such value");
    if (in->chans != (int64_t)w->chans * w->groups || out->chans != w->rows || (add && add->chans != out->chans))
        REFUSE("conv: the channels don't fit");
    const int64_t ey = (int64_t)(w->kh - 1) * g->dh, ex = (int64_t)(w->kw - 1) * g->dw;
    if (o->sy < 1 || o->sx < 1 || !inside(in, o->from, o->rh, o->rw, o->sy, o->sx, ey, ex)
        || !inside(out, o->to, o->rh, o->rw, 1, 1, 0, 0) || (add && !inside(add, o->plus, o->rh, o->rw, 1, 1, 0, 0)))
        REFUSE("conv: outside its values");
    if (!pb_geometry_fits(w, g) || g->plane != in->cols || (w->kh > 1 && g->row != in->row))
        REFUSE("conv: the offsets are another layout's");
    for (int64_t t = 0; t < o->tiles; t++) {
        const int32_t *k = o->tile + t * 4;
        if (k[0] < 0 || k[1] < 0 || k[2] < 1 || k[2] > PB_MAX_R || k[3] < 1 || k[3] > p->isa->maxq[k[2]]
            || (int64_t)k[0] + k[2] > o->rh || (int64_t)k[1] + k[3] > o->rw || (o->sx > 2 && k[3] > 1))
            REFUSE("conv: tile %lld is outside the map, or none of this CPU's", (long long)t);
    }
    for (int64_t s = 0; s < o->splits; s++)
        if (o->split[s] > o->split[s + 1]) REFUSE("conv: the parts overlap");
    if (o->splits < 1 || o->split[0] != 0 || o->split[o->splits] != w->rows) REFUSE("conv: the parts leave rows out");
    return 0;
}

static int check_halo(const pb_program *p, const pb_op *op, char *why, size_t room)
{
    const pb_op_halo *o = &op->u.halo;
    const pb_value *v = value_at(p, op->out, PB_VALUE_LANES);
    if (!v || op->in != op->out) REFUSE("halo: no such value");
    const int64_t end = (v->rows - 1) * v->row * PB_LANES + v->cols * PB_LANES; /* of one channel, in floats */
    for (int64_t e = 0; e < o->entries; e++) {
        const int32_t *t = o->entry + e * 4;
        if (t[0] < 0 || t[0] >= v->rows || t[1] < 0 || t[1] >= v->cols || t[3] < 0 || t[3] >= o->masks
            || t[2] < -PB_LANES || t[2] > end) /* unaligned reads may touch the slack beside a value */
            REFUSE("halo: entry %lld leads outside", (long long)e);
    }
    return 0;
}

/* Floats one group of a value may touch: [0, size). Groups of shared values are a whole number of strides away. */
static int64_t size_of(const pb_program *p, const pb_value *v)
{
    if (v->kind == PB_VALUE_VECTOR) return v->chans + (v->groups - 1) * v->group;
    if (v->kind != PB_VALUE_LANES) return v->rows * p->chunk;
    return ((v->rows - 1) * v->row + v->chans * v->cols) * PB_LANES + (v->groups - 1) * v->group;
}

static int check_move(const pb_program *p, const pb_op *op, int64_t groups, char *why, size_t room)
{
    const pb_op_move *o = &op->u.move;
    const pb_value *in = value_at(p, op->in, -1), *out = value_at(p, op->out, -1);
    if (!in || !out || in->kind == PB_VALUE_OUTPUT || out->kind == PB_VALUE_INPUT) REFUSE("move: no such value");
    if (!small(o->dr) || !small(o->chans) || !small(o->n) || o->dr < 1 || o->chans < 1 || o->n < 1 || !small(o->dy)
        || !small(o->dc) || !small(o->sc))
        REFUSE("move: a size is out of range");
    int64_t most = -1, top = 0, last = (o->dr - 1) * o->dy + o->n - 1;
    for (int64_t k = 0; !o->blocks && !o->pairs && k < o->dr * o->n; k++)
        if (o->table[k] > most) most = o->table[k];
    for (int64_t b = 0; b < o->blocks; b++) {
        const int32_t *t = o->table + b * PB_MOVE_BLOCK;
        if (t[0] < 1 || t[0] > PB_LANES) REFUSE("move: block %lld has %d vectors", (long long)b, t[0]);
        for (int l = 0; l < PB_LANES; l++)
            if (t[1 + l] >= 0 && (int64_t)t[1 + l] + t[0] - 1 > most) most = (int64_t)t[1 + l] + t[0] - 1;
        for (int i = 0; i < t[0]; i++) {
            if (t[17 + i] < 0) REFUSE("move: block %lld writes before its output", (long long)b);
            if (!b && !i) last = 0;
            if ((int64_t)t[17 + i] + PB_LANES - 1 > last) last = (int64_t)t[17 + i] + PB_LANES - 1;
        }
    }
    for (int64_t b = 0; b < o->pairs; b++) {
        const int32_t *t = o->table + b * PB_MOVE_PAIR;
        if (t[0] < 0 || t[1] < 0 || in->kind != PB_VALUE_LANES) REFUSE("move: pair %lld leads outside", (long long)b);
        if (t[1] > most) most = t[1]; /* a whole lane vector is read: a value ends in slack for one */
        for (int l = 0; l < PB_LANES; l++)
            if (t[4 + l] < 0 || t[4 + l] >= PB_LANES) REFUSE("move: lane %d", t[4 + l]);
        if (!b) last = 0;
        if ((int64_t)t[0] + PB_LANES - 1 > last) last = (int64_t)t[0] + PB_LANES - 1;
    }
    for (int64_t c = 0; c < o->chans; c++) {
        const int64_t s = o->channel ? o->channel[c] : c;
        if (s < 0) REFUSE("move: channel %lld of the input", (long long)s);
        if (s > top) top = s;
    }
    if (last > PB_FAR) REFUSE("move: writes outside its output");
    const int64_t reach = (o->chans - 1) * o->dc + last;
    for (int64_t g = 0; g < groups; g++) {
        if (o->src[g] > PB_FAR || o->dst[g] > PB_FAR) REFUSE("move: a group begins too far out");
        if (o->src[g] < 0 || (most >= 0 && o->src[g] + top * o->sc + most >= size_of(p, in)))
            REFUSE("move: reads outside its input");
        if (o->dst[g] < 0 || o->dst[g] + reach >= size_of(p, out)) REFUSE("move: writes outside its output");
    }
    return 0;
}

static int check_window(const pb_program *p, const pb_op *op, char *why, size_t room)
{
    const pb_op_window *o = &op->u.window;
    const pb_value *in = value_at(p, op->in, PB_VALUE_LANES), *out = value_at(p, op->out, PB_VALUE_LANES);
    if (!in || !out || in->chans != out->chans || !small(o->kh) || !small(o->kw) || !small(o->dh) || !small(o->dw)
        || o->kh < 1 || o->kw < 1 || o->dh < 1 || o->dw < 1
        || !inside(in, o->from, o->rh, o->rw, o->sy, o->sx, (o->kh - 1) * o->dh, (o->kw - 1) * o->dw)
        || !inside(out, o->to, o->rh, o->rw, 1, 1, 0, 0))
        REFUSE("window: outside its values");
    return 0;
}

static int check_sum(const pb_program *p, const pb_op *op, char *why, size_t room)
{
    const pb_op_sum *o = &op->u.sum;
    const pb_value *in = value_at(p, op->in, PB_VALUE_LANES), *out = value_at(p, op->out, -1);
    if (!in || !out || out->kind > PB_VALUE_VECTOR || in->chans != out->chans || !inside(in, o->from, o->rh, o->rw, 1, 1, 0, 0)
        || o->images < 1 || o->per < 1 || o->images > PB_LANES || o->per > PB_LANES || o->images * o->per > PB_LANES
        || (out->kind == PB_VALUE_VECTOR && o->images != 1))
        REFUSE("sum: outside its values");
    return 0;
}

static int check_map(const pb_program *p, const pb_op *op, char *why, size_t room)
{
    const pb_op_map *o = &op->u.map;
    const pb_value *in = value_at(p, op->in, -1), *out = value_at(p, op->out, -1), *b = value_at(p, o->in2, -1);
    if (!in || !out || (o->in2 >= 0 && !b) || in->kind != out->kind || out->kind > PB_VALUE_VECTOR || o->fn < 0
        || o->fn >= PB_FUNCTIONS || (o->in2 < 0) != (o->fn != PB_ADD && o->fn != PB_MUL) || in->chans != out->chans
        || (b && (b->kind > PB_VALUE_VECTOR || b->chans != out->chans)))
        REFUSE("map: the values don't fit");
    if (o->fn == PB_AFFINE && (!o->scale || !o->shift)) REFUSE("map: no factors");
    if (o->gate && (o->per < 1 || o->images < 1 || o->images * o->per > PB_LANES || !b
                    || (b->kind == PB_VALUE_VECTOR && o->images != 1)))
        REFUSE("map: the gate doesn't fit");
    if (out->kind == PB_VALUE_VECTOR) return o->gate || (b && b->kind != PB_VALUE_VECTOR) ? (snprintf(why, room, "map: gate"), -1) : 0;
    if (!inside(in, o->from, o->rh, o->rw, 1, 1, 0, 0) || !inside(out, o->to, o->rh, o->rw, 1, 1, 0, 0)
        || (b && !o->gate && (b->kind != PB_VALUE_LANES || !inside(b, o->plus, o->rh, o->rw, 1, 1, 0, 0))))
        REFUSE("map: outside its values");
    return 0;
}

static int check_dot(const pb_program *p, const pb_op *op, char *why, size_t room)
{
    const pb_op_conv *o = &op->u.conv;
    const pb_value *in = value_at(p, op->in, PB_VALUE_VECTOR), *out = value_at(p, op->out, PB_VALUE_VECTOR);
    const pb_value *add = value_at(p, o->add, PB_VALUE_VECTOR);
    if (!in || !out || (o->add >= 0 && !add)) REFUSE("dot: no such value");
    const pb_weights *w = o->w;
    const int64_t ins = o->columns ? w->rows : w->chans, outs = o->columns ? w->chans : w->rows;
    if (w->kh * w->kw != 1 || o->geo.plane != 1 || w->groups != 1 || in->chans != ins || out->chans != outs
        || (add && add->chans != out->chans))
        REFUSE("dot: the sizes don't fit");
    return 0;
}

int pb_op_check(const pb_program *p, const pb_op *op, int64_t groups, char *why, size_t room)
{
    switch (op->kind) {
    case PB_OP_CONV: return check_conv(p, op, why, room);
    case PB_OP_DOT: return check_dot(p, op, why, room);
    case PB_OP_HALO: return check_halo(p, op, why, room);
    case PB_OP_MOVE: return check_move(p, op, groups, why, room);
    case PB_OP_WINDOW: return check_window(p, op, why, room);
    case PB_OP_SUM: return check_sum(p, op, why, room);
    case PB_OP_MAP: return check_map(p, op, why, room);
    default: REFUSE("unknown operation %lld", (long long)op->kind);
    }
}
