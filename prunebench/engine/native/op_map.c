/* Pooling, sums over a map, elementwise functions. */
#include "program.h"

typedef struct {
    const pb_op *op;
    const pb_run_ctx *r;
    int64_t parts;
} map_ctx;

/* Parts of `n` rows or channels, one for each thread. */
static void split(pb_task fn, const pb_op *op, const pb_run_ctx *r, int64_t n, double work)
{
    map_ctx m = {op, r, work < 4096 ? 1 : n < r->threads ? n : r->threads};
    pb_share(r->team, fn, &m, m.parts);
}

static void window_task(void *arg, int64_t part)
{
    const map_ctx *m = arg;
    const pb_op_window *o = &m->op->u.window;
    const pb_value *in = &m->r->p->value[m->op->in], *out = &m->r->p->value[m->op->out];
    const float *x = pb_place(m->r, in, o->from);
    float *y = pb_place(m->r, out, o->to);
    const int64_t lo = o->rh * part / m->parts, hi = o->rh * (part + 1) / m->parts; /* by rows, as tiles are shared */
    const ptrdiff_t row = in->row * PB_LANES;
    for (int64_t i = lo; i < hi; i++)
        for (int64_t c = 0; c < out->chans; c++)
            m->r->p->isa->window(x + i * o->sy * row + c * in->cols * PB_LANES,
                                 y + (i * out->row + c * out->cols) * PB_LANES, o->rw, o->kh, o->kw, o->dh * row,
                                 o->dw * PB_LANES, o->sx * PB_LANES, o->mult ? o->mult + i * o->rw * PB_LANES : NULL);
}

void pb_do_window(const pb_op *op, const pb_run_ctx *r)
{
    const pb_op_window *o = &op->u.window;
    const int64_t chans = r->p->value[op->out].chans;
    split(window_task, op, r, o->rh, (double)(chans * o->rh * o->rw) * (double)o->kh * (double)o->kw);
}

static void sum_task(void *arg, int64_t part)
{
    const map_ctx *m = arg;
    const pb_op_sum *o = &m->op->u.sum;
    const pb_value *in = &m->r->p->value[m->op->in], *out = &m->r->p->value[m->op->out];
    const float *x = pb_place(m->r, in, o->from);
    float *y = pb_address(m->r, out);
    const int64_t lo = in->chans * part / m->parts, hi = in->chans * (part + 1) / m->parts;
    for (int64_t c = lo; c < hi; c++) {
        float total[PB_LANES] = {0};
        m->r->p->isa->sum(x + c * in->cols * PB_LANES, in->row * PB_LANES, o->mask, o->rh, o->rw, total);
        float *to = out->kind == PB_VALUE_VECTOR ? y + c : y + c * out->cols * PB_LANES;
        for (int64_t n = 0; n < o->images; n++) {
            float s = 0;
            for (int64_t l = 0; l < o->per; l++) s += total[n * o->per + l];
            to[n] = s * o->scale;
        }
        if (out->kind == PB_VALUE_LANES)
            for (int64_t n = o->images; n < PB_LANES; n++) to[n] = 0;
    }
}

void pb_do_sum(const pb_op *op, const pb_run_ctx *r)
{
    const pb_op_sum *o = &op->u.sum;
    const int64_t chans = r->p->value[op->in].chans;
    split(sum_task, op, r, chans, (double)(chans * o->rh * o->rw));
}

static void map_task(void *arg, int64_t part)
{
    const map_ctx *m = arg;
    const pb_op_map *o = &m->op->u.map;
    const pb_run_ctx *r = m->r;
    const pb_value *in = &r->p->value[m->op->in], *out = &r->p->value[m->op->out];
    const pb_value *other = o->in2 < 0 ? NULL : &r->p->value[o->in2];
    const pb_isa *isa = r->p->isa;
    const int64_t lo = o->rh * part / m->parts, hi = o->rh * (part + 1) / m->parts;
    if (out->kind == PB_VALUE_VECTOR) { /* all of it at once; vectors end in slack for a whole lane vector */
        const float *b = other ? pb_address(r, other) : NULL;
        const float *x = pb_address(r, in);
        float *y = pb_address(r, out);
        if (o->fn == PB_AFFINE)
            for (int64_t c = 0; c < out->chans; c++) y[c] = x[c] * o->scale[c] + o->shift[c];
        else isa->map((int)o->fn, x, b, PB_LANES, y, (out->chans + PB_LANES - 1) / PB_LANES, o->p0, 0);
        return;
    }
    const float *x = pb_place(r, in, o->from), *b = !other ? NULL : o->gate ? pb_address(r, other) : pb_place(r, other, o->plus);
    float *y = pb_place(r, out, o->to);
    float spread[PB_LANES];
    for (int64_t i = lo; i < hi; i++)
        for (int64_t c = 0; c < out->chans; c++) {
            const float *from = x + (i * in->row + c * in->cols) * PB_LANES, *with = NULL;
            float *to = y + (i * out->row + c * out->cols) * PB_LANES;
            if (o->gate) { /* one number per image, to each of the image's lanes */
                const float *g = other->kind == PB_VALUE_VECTOR ? b + c : b + c * other->cols * PB_LANES;
                for (int64_t l = 0; l < PB_LANES; l++) spread[l] = g[l / o->per < o->images ? l / o->per : 0];
                with = spread;
            } else if (other) {
                with = b + (i * other->row + c * other->cols) * PB_LANES;
            }
            isa->map((int)o->fn, from, with, o->gate ? 0 : PB_LANES, to, o->rw, o->scale ? o->scale[c] : o->p0,
                     o->shift ? o->shift[c] : 0);
        }
}

void pb_do_map(const pb_op *op, const pb_run_ctx *r)
{
    const pb_op_map *o = &op->u.map;
    const pb_value *out = &r->p->value[op->out];
    if (out->kind == PB_VALUE_VECTOR) {
        map_ctx m = {op, r, 1};
        map_task(&m, 0);
        return;
    }
    split(map_task, op, r, o->rh, (double)(out->chans * o->rh * o->rw));
}
