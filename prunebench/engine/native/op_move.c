/* Copies between layouts, and the halos: what lies around a region is its neighbours', or the padding. */
#include <string.h>

#include "program.h"

typedef struct {
    const pb_op *op;
    const pb_run_ctx *r;
    int64_t parts;
} move_ctx;

static void span_of(int64_t n, int64_t part, int64_t parts, int64_t *lo, int64_t *hi)
{
    *lo = n * part / parts, *hi = n * (part + 1) / parts;
}

static void halo_task(void *arg, int64_t part)
{
    const move_ctx *m = arg;
    const pb_op_halo *o = &m->op->u.halo;
    const pb_value *v = &m->r->p->value[m->op->out];
    const pb_isa *isa = m->r->p->isa;
    int64_t lo, hi;
    span_of(o->entries, part, m->parts, &lo, &hi); /* by rows, as the tiles are shared: what a thread wrote, it reads */
    isa->halo(pb_address(m->r, v), v->chans, v->cols * PB_LANES, v->row, o->entry + lo * 4, hi - lo, o->mask, o->fill);
}

void pb_do_halo(const pb_op *op, const pb_run_ctx *r)
{
    const int64_t work = op->u.halo.entries * r->p->value[op->out].chans;
    move_ctx m = {op, r, work < 4096 ? 1 : r->threads};
    pb_share(r->team, halo_task, &m, m.parts);
}

static const float *source(const pb_run_ctx *r, int64_t i)
{
    const pb_value *v = &r->p->value[i];
    return v->kind == PB_VALUE_INPUT ? r->in[v->off] : (v->local ? r->slot : r->shared) + v->off;
}
static float *target(const pb_run_ctx *r, int64_t i)
{
    const pb_value *v = &r->p->value[i];
    return v->kind == PB_VALUE_OUTPUT ? r->out[v->off] : (v->local ? r->slot : r->shared) + v->off;
}

static void move_task(void *arg, int64_t part)
{
    const move_ctx *m = arg;
    const pb_op_move *o = &m->op->u.move;
    const float *s = source(m->r, m->op->in) + o->src[m->r->g];
    float *d = target(m->r, m->op->out) + o->dst[m->r->g];
    int64_t lo, hi;
    span_of(o->chans, part, m->parts, &lo, &hi);
    const int tables = !o->blocks && !o->pairs;
    for (int64_t c = lo; !tables && c < hi; c++) {
        const float *from = s + (o->channel ? o->channel[c] : c) * o->sc;
        if (o->blocks) m->r->p->isa->transpose(d + c * o->dc, from, o->table, o->blocks, o->fill);
        else m->r->p->isa->permute(d + c * o->dc, from, o->table, o->pairs, o->fill);
    }
    for (int64_t y = 0; tables && y < o->dr; y++) {
        const int32_t *t = o->table + y * o->n;
        for (int64_t c = lo; c < hi; c++) {
            const float *from = s + (o->channel ? o->channel[c] : c) * o->sc;
            float *to = d + y * o->dy + c * o->dc;
            m->r->p->isa->gather(to, from, t, o->n, o->fill);
        }
    }
}

void pb_do_move(const pb_op *op, const pb_run_ctx *r)
{
    const pb_op_move *o = &op->u.move;
    move_ctx m = {op, r, (double)o->dr * (double)o->chans * (double)o->n < 16384 ? 1 : r->threads};
    pb_share(r->team, move_task, &m, m.parts);
}
