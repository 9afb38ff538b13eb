/* Runs a plan: for every task, block by block: fill the buffer, sweep the register tiles over it, hand the sums on. */
#include <stdatomic.h>

#include "engine.h"

typedef struct {
    const pb_sparse *s;
    const pb_plan *p;
    pb_view x, y;
    const float *bias, *add;
    int relu;
    int64_t ti, ty, tx; /* tasks along images, rows and columns */
    atomic_int failed;
} conv_ctx;

typedef struct {
    int64_t i0, i1, y0, my, x0, mx; /* images, output rows, output columns of this task */
    uint32_t r0, r1;                /* output channels */
    int direct;                     /* sums live in the output itself */
} span;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Lanes: tiles of tr x tp pixels; the rest at the edges with smaller ones. */
static void sweep_lanes(const pb_plan *p, pb_tile *t, const span *s, const float *buf, float *out, ptrdiff_t ystep)
{
    const pb_isa *isa = p->isa;
    const int v = PB_LANES / isa->vl;
    const int64_t pieces = (s->mx + p->tp - 1) / p->tp;
    int step;
    for (int64_t y = 0; y < s->my; y += step) {
        for (step = p->tr; step > s->my - y;) step /= 2;
        for (int64_t i = 0; i < pieces; i++) {
            const int64_t x = s->mx * i / pieces, px = s->mx * (i + 1) / pieces - x;
            t->x = buf + (y * p->pc + x) * PB_LANES;
            t->x_step = p->pc * PB_LANES;
            t->y = out + y * ystep + x * PB_LANES;
            t->y_step = ystep;
            isa->tile[step][px * v](t);
        }
    }
}

static void sweep_pixels(const pb_plan *p, pb_tile *t, const span *s, const float *buf, float *out)
{
    const pb_isa *isa = p->isa;
    const int64_t flat = s->my * p->nb * p->mx, vecs = (flat + isa->vl - 1) / isa->vl;
    const int64_t pieces = (vecs + isa->maxq[1] - 1) / isa->maxq[1];
    for (int64_t i = 0; i < pieces; i++) {
        const int64_t a = vecs * i / pieces, q = vecs * (i + 1) / pieces - a;
        t->x = buf + a * isa->vl;
        t->y = out + a * isa->vl;
        t->x_step = t->y_step = 0;
        isa->tile[1][q](t);
    }
}

/* Sums of one output channel from scratch to the output. */
static void hand_on(const conv_ctx *c, const span *s, uint32_t row, const float *sum)
{
    const pb_plan *p = c->p;
    const ptrdiff_t at = s->i0 * c->y.n + row * c->y.c + s->y0 * c->y.h + s->x0 * c->y.w;
    float *to = c->y.p + at;
    const float *add = c->add ? c->add + at : NULL;
    const int relu = c->add && c->relu; /* without a residual the kernel has applied it */
    if (!p->lanes && p->nb == 1 && p->mx == p->ow && c->y.w == 1 && c->y.h == p->ow) {
        p->isa->copy_out(sum, to, add, 1, s->my * p->ow, 0, relu);
        return;
    }
    for (int64_t y = 0; y < s->my; y++, to += c->y.h, add = add ? add + c->y.h : NULL) {
        if (p->lanes) {
            p->isa->copy_out(sum + y * s->mx * PB_LANES, to, add, c->y.w, s->mx, (int)(s->i1 - s->i0), relu);
        } else if (s->mx == 1) {
            p->isa->copy_out(sum + y * p->nb * p->mx, to, add, c->y.n, s->i1 - s->i0, 0, relu);
        } else {
            for (int64_t i = 0; i < s->i1 - s->i0; i++)
                p->isa->copy_out(sum + (y * p->nb + i) * p->mx, to + i * c->y.n, add ? add + i * c->y.n : NULL,
                                 c->y.w, s->mx, 0, relu);
        }
    }
}

static int direct(const conv_ctx *c, const span *s)
{
    const pb_plan *p = c->p;
    if (p->lanes) return c->y.w == PB_LANES && s->i1 - s->i0 == PB_LANES;
    if (p->oh == 1 && p->ow == 1) return c->y.n == 1 && s->i1 - s->i0 == p->nb && p->nb % p->isa->vl == 0;
    return p->nb == 1 && p->mx == p->ow && c->y.w == 1 && (c->y.h == p->ow || p->oh == 1)
        && s->my * p->ow % p->isa->vl == 0;
}

static void task(void *arg, int64_t id)
{
    conv_ctx *c = arg;
    const pb_sparse *w = c->s;
    const pb_plan *p = c->p;
    span s;
    const int64_t part = id % p->splits;
    id /= p->splits;
    s.i0 = id % c->ti * p->nb, s.i1 = least(s.i0 + p->nb, p->n); /* images next to each other in memory come next */
    id /= c->ti;
    s.x0 = id % c->tx * p->mx, s.mx = least(p->mx, p->ow - s.x0);
    s.y0 = id / c->tx * p->my, s.my = least(p->my, p->oh - s.y0);
    s.r0 = p->split_at[part], s.r1 = p->split_at[part + 1];
    if (s.r0 >= s.r1) return;
    s.direct = w->nblk == w->groups && !c->add && direct(c, &s); /* partial sums are better kept together, in scratch */

    float *buf = pb_workspace((p->buf + p->scratch) * sizeof(float) + (size_t)p->pc * sizeof(pb_run_of));
    if (!buf) {
        atomic_store(&c->failed, 1);
        return;
    }
    float *scratch = buf + p->buf / 16 * 16 + 16;
    pb_pack pk = {.plan = p, .src = c->x, .i0 = s.i0, .i1 = s.i1, .y0 = s.y0, .x0 = s.x0, .my = s.my,
                  .runs = (pb_run_of *)(scratch + p->scratch - 16)};
    const int64_t flat = p->lanes ? s.my * s.mx * PB_LANES : (s.my * p->nb * p->mx + 15) / 16 * 16;
    for (uint32_t b = 0; b < w->nblk; b++) {
        const pb_block *k = &w->blk[b];
        const uint32_t lo = s.r0 > k->r0 ? s.r0 : k->r0, hi = s.r1 < k->r1 ? s.r1 : k->r1;
        if (lo >= hi) continue;
        pk.c0 = k->c0, pk.c1 = k->c1;
        p->isa->pack(&pk, buf);
        pb_tile t = {.tab = p->tab, .col = w->col, .val = w->val, .ptr = w->ptr + k->ptr0 + (lo - k->r0),
                     .rows = hi - lo, .bias = c->bias ? c->bias + lo : NULL, .first = k->first,
                     .relu = c->relu && k->last && !c->add};
        float *out = scratch;
        ptrdiff_t ystep = s.mx * PB_LANES;
        t.y_row = flat;
        if (s.direct) {
            out = c->y.p + s.i0 * c->y.n + lo * c->y.c + s.y0 * c->y.h + s.x0 * c->y.w;
            ystep = c->y.h;
            t.y_row = c->y.c;
        }
        if (p->lanes) sweep_lanes(p, &t, &s, buf, out, ystep);
        else sweep_pixels(p, &t, &s, buf, out);
        if (k->last && !s.direct)
            for (uint32_t r = lo; r < hi; r++) hand_on(c, &s, r, scratch + (size_t)(r - lo) * (size_t)flat);
    }
}

int pb_conv(const pb_sparse *s, const pb_plan *p, pb_view x, pb_view y, const float *bias, const float *add, int relu,
            int threads)
{
    if (p->n == 0 || p->oh == 0 || p->ow == 0 || s->rows == 0) return 0;
    conv_ctx c = {.s = s, .p = p, .x = x, .y = y, .bias = bias, .add = add, .relu = relu};
    c.ti = (p->n + p->nb - 1) / p->nb;
    c.ty = (p->oh + p->my - 1) / p->my;
    c.tx = (p->ow + p->mx - 1) / p->mx;
    pb_run(task, &c, c.ti * c.ty * c.tx * p->splits, threads);
    return atomic_load(&c.failed) ? -1 : 0;
}
