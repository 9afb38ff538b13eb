/* Sparse convolution and linear layers: register tiles times parts of the output channels. */
#include "program.h"

typedef struct {
    const pb_op_conv *o;
    const pb_isa *isa;
    const float *x, *add;
    float *y;
    int64_t xrow, xcol, yrow, ycol, arow, acol; /* floats from row to row, and from channel to channel */
} conv_ctx;

static void tile_part(const conv_ctx *c, int64_t tile, int64_t part)
{
    const pb_op_conv *o = c->o;
    const pb_weights *w = o->w;
    const int32_t *t = o->tile + tile * 4;
    const int64_t y = t[0], x = t[1];
    const uint32_t lo = o->split[part], hi = o->split[part + 1];
    const float *from = c->x + y * o->sy * c->xrow + x * o->sx * PB_LANES;
    float *to = c->y + y * c->yrow + x * PB_LANES;
    const float *plus = c->add ? c->add + y * c->arow + x * PB_LANES : NULL;
    pb_tile k = {.x_step = o->sy * c->xrow, .y_step = c->yrow, .add_step = c->arow, .y_row = c->ycol, .add_row = c->acol,
                 .relu = (int)o->relu, .clamp = (int)o->clamp, .hi = o->hi};
    const pb_tile_fn run = c->isa->tile[t[3] == 1 || o->sx == 1 ? 1 : 2][t[2]][t[3]];
    const size_t *start = o->start + part * w->nblk;
    for (uint32_t b = 0; b < w->nblk; b++) {
        const pb_block *blk = &w->blk[b];
        const uint32_t r0 = lo > blk->r0 ? lo : blk->r0, r1 = hi < blk->r1 ? hi : blk->r1;
        if (r0 >= r1) continue;
        k.x = from + (int64_t)blk->c0 * c->xcol;
        k.col = o->col + start[b], k.val = w->val + start[b], k.cnt = w->cnt + blk->cnt0 + (r0 - blk->r0);
        k.rows = r1 - r0;
        k.y = to + (int64_t)r0 * c->ycol;
        k.add = plus ? plus + (int64_t)r0 * c->acol : NULL;
        k.bias = o->bias ? o->bias + r0 : NULL;
        k.first = blk->first, k.last = blk->last;
        run(&k);
    }
}

static void conv_task(void *arg, int64_t id)
{
    const conv_ctx *c = arg;
    tile_part(c, id / c->o->splits, id % c->o->splits);
}

void pb_do_conv(const pb_op *op, const pb_run_ctx *r)
{
    const pb_op_conv *o = &op->u.conv;
    const pb_value *in = &r->p->value[op->in], *out = &r->p->value[op->out];
    const pb_value *add = o->add < 0 ? NULL : &r->p->value[o->add];
    conv_ctx c = {.o = o, .isa = r->p->isa, .x = pb_place(r, in, o->from), .y = pb_place(r, out, o->to),
                  .xrow = in->row * PB_LANES, .xcol = in->cols * PB_LANES, .yrow = out->row * PB_LANES,
                  .ycol = out->cols * PB_LANES};
    if (add) c.add = pb_place(r, add, o->plus), c.arow = add->row * PB_LANES, c.acol = add->cols * PB_LANES;
    pb_share(r->team, conv_task, &c, o->tiles * o->splits);
}

void pb_do_dot(const pb_op *op, const pb_run_ctx *r)
{
    const pb_op_conv *o = &op->u.conv;
    const pb_value *add = o->add < 0 ? NULL : &r->p->value[o->add];
    if (o->columns) {
        pb_dot_columns(r->p->isa, o->w, o->col, pb_address(r, &r->p->value[op->in]), pb_address(r, &r->p->value[op->out]),
                       add ? pb_address(r, add) : NULL, o->bias, (int)o->relu, o->hi);
        return;
    }
    pb_dot(r->p->isa, o->w, o->col, pb_address(r, &r->p->value[op->in]), pb_address(r, &r->p->value[op->out]),
           add ? pb_address(r, add) : NULL, o->bias, (int)o->relu, o->hi, r->team, r->threads);
}
