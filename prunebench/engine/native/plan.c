/* The plan of one convolution at one input size: layout, tile sizes, buffer geometry, the offset of every column. */
#include <stdlib.h>
#include <string.h>

#include "engine.h"

/* Measured, see docs/engine-notes.md. */
#define SCRATCH_BYTES (512 * 1024) /* partial sums of a task: they stream through L2 */
#define BUF_BYTES (240 * 1024)     /* input of one channel block: mostly L1, the rest L2 */
#define L1_BYTES 32768.0
#define PER_NONZERO 2.5            /* loop overhead of a nonzero, in vector FMAs */

void pb_plan_free(pb_plan *p)
{
    if (!p) return;
    free(p->split_at);
    free(p->poy);
    free(p->pox);
    free(p->tab);
    free(p->ymap);
    free(p->xmap);
    free(p);
}

static int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Cost of covering rows x cols pixels with a register tile of tr rows and tp pixels, v vectors a pixel, in vector FMAs;
 * `slow`: what a load from L2 costs more. */
static double cover(int64_t rows, int64_t cols, int tr, int tp, int v, double slow)
{
    double cost = 0;
    const int64_t pieces = up(cols, tp);
    for (int64_t r = 0, step; r < rows; r += step) {
        for (step = tr; step > rows - r;) step /= 2;
        cost += (double)pieces * PER_NONZERO + (double)(step * cols * v) * (1.0 + slow);
    }
    return cost;
}

/* The register tile that wastes least: few edges, and the input it meets in one channel block near the size of L1. */
static void choose_lanes(pb_plan *p, const pb_sparse *s, int64_t qy, int64_t qx)
{
    const int v = PB_LANES / p->isa->vl;
    const int64_t cb = s->max_cols / s->kk;
    double best = -1;
    for (int tr = 4; tr >= 1; tr /= 2) {
        const int64_t most = least(p->isa->maxq[tr] / v, p->ow);
        if (tr > p->oh) continue;
        for (int tp = 1; tp <= most; tp++) {
            const double input = (double)(cb * p->nplane * (tr + qy) * (tp + qx) * PB_LANES * 4);
            const double miss = input > L1_BYTES ? 1.0 - L1_BYTES / input : 0.0;
            const double c = cover(p->oh, p->ow, tr, tp, v, 0.4 * miss);
            if (best < 0 || c < best) best = c, p->tr = tr, p->tp = tp;
        }
    }
}

/* How many rows and pixels of output a task takes, so that its scratch and its block's buffer stay in cache. */
static void size_task(pb_plan *p, const pb_sparse *s, int64_t qy, int64_t qx)
{
    const int64_t unit = p->lanes ? PB_LANES : p->nb, rows = s->rows / s->groups, cb = s->max_cols / s->kk;
    const int64_t stepy = p->lanes ? p->tr : 1, stepx = p->lanes ? p->tp : p->isa->vl;
    for (;;) {
        const int64_t scratch = rows * p->my * p->mx * unit * 4;
        const int64_t buf = cb * p->nplane * (p->my + qy) * (p->mx + qx) * unit * 4;
        if (scratch <= SCRATCH_BYTES && buf <= BUF_BYTES) break;
        if (p->my > stepy) p->my = up(up(p->my, stepy), 2) * stepy;
        else if (p->mx > stepx) p->mx = up(up(p->mx, stepx), 2) * stepx;
        else break;
        if (p->lanes == 0 && p->my == 1 && p->mx >= p->ow) p->mx = least(p->mx, p->ow);
    }
    if (p->lanes) p->mx = up(up(p->ow, up(p->ow, p->mx)), p->tp) * p->tp; /* even shares of whole register tiles */
    p->mx = least(p->mx, p->ow);
    p->my = up(p->oh, up(p->oh, p->my)); /* even shares ... */
    if (p->lanes) p->my = least(up(p->my, p->tr) * p->tr, p->oh); /* ... of whole register tiles */
}

/* Output channels in `parts` shares of about equal work. */
static int split_rows(pb_plan *p, const pb_sparse *s, int64_t parts)
{
    uint64_t *w = calloc((size_t)s->rows + 1, sizeof *w);
    p->split_at = calloc((size_t)parts + 1, sizeof *p->split_at);
    if (!w || !p->split_at) {
        free(w);
        return -1;
    }
    for (uint32_t b = 0; b < s->nblk; b++) {
        const pb_block *k = &s->blk[b];
        for (uint32_t r = k->r0; r < k->r1; r++)
            w[r] += s->ptr[k->ptr0 + r - k->r0 + 1] - s->ptr[k->ptr0 + r - k->r0] + 2;
    }
    uint64_t total = 0, sum = 0;
    for (uint32_t r = 0; r < s->rows; r++) total += w[r];
    int64_t at = 1;
    for (uint32_t r = 0; r < s->rows; r++) {
        sum += w[r];
        while (at < parts && sum * (uint64_t)parts >= total * (uint64_t)at) p->split_at[at++] = r + 1;
    }
    while (at <= parts) p->split_at[at++] = s->rows;
    p->split_at[parts] = s->rows;
    p->splits = parts;
    free(w);
    return 0;
}

/* Where tap t of one axis finds its input: phase (origin within the stride) and step. */
static void tap(int64_t t, int64_t dilation, int64_t stride, int64_t *phase, int64_t *step)
{
    *phase = t * dilation % stride;
    *step = t * dilation / stride;
}

static int64_t plane_of(pb_plan *p, int64_t oy, int64_t ox)
{
    for (int64_t i = 0; i < p->nplane; i++)
        if (p->poy[i] == oy && p->pox[i] == ox) return i;
    p->poy[p->nplane] = oy;
    p->pox[p->nplane] = ox;
    return p->nplane++;
}

static int32_t *copy_map(const int32_t *m, int64_t n)
{
    int32_t *out = malloc((size_t)(n ? n : 1) * sizeof *out);
    if (out) memcpy(out, m, (size_t)n * sizeof *out);
    return out;
}

pb_plan *pb_plan_new(const pb_sparse *s, const pb_geometry *g, const pb_isa *isa)
{
    pb_plan *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->isa = isa, p->groups = s->groups, p->max_cols = s->max_cols;
    p->n = g->n, p->cin = (int64_t)s->chans * s->groups, p->h = g->h, p->w = g->w;
    p->cout = s->rows, p->oh = g->oh, p->ow = g->ow;
    p->kh = g->kh, p->kw = g->kw, p->sh = g->sh, p->sw = g->sw, p->dh = g->dh, p->dw = g->dw;
    p->ny = g->ny, p->nx = g->nx;
    p->ymap = copy_map(g->ymap, g->ny);
    p->xmap = copy_map(g->xmap, g->nx);
    const size_t taps = (size_t)(g->kh * g->kw);
    p->poy = calloc(taps, sizeof *p->poy);
    p->pox = calloc(taps, sizeof *p->pox);
    p->tab = calloc(s->max_cols ? s->max_cols : 1, sizeof *p->tab);
    if (!p->ymap || !p->xmap || !p->poy || !p->pox || !p->tab) goto fail;

    p->lanes = g->lanes ? PB_LANES : 0;
    p->my = p->oh, p->mx = p->ow;
    if (p->lanes) {
        p->nb = PB_LANES;
    } else {
        const int64_t pixels = p->oh * p->ow, want = (int64_t)isa->maxq[1] * isa->vl;
        p->nb = pixels >= want ? 1 : least(p->n, up(want, pixels));
        if (p->nb > 1) p->nb = up(p->n, up(p->n, p->nb)); /* even shares */
        p->mx = least(p->ow, 2048);
    }
    /* planes */
    int64_t qy = 0, qx = 0, fy, fx, y, x;
    for (int64_t ky = 0; ky < p->kh; ky++)
        for (int64_t kx = 0; kx < p->kw; kx++) {
            tap(ky, p->dh, p->sh, &fy, &y);
            tap(kx, p->dw, p->sw, &fx, &x);
            if (p->lanes) plane_of(p, fy, fx), qx = x > qx ? x : qx;
            else plane_of(p, fy, kx * p->dw);
            qy = y > qy ? y : qy;
        }
    if (qy > INT32_MAX || qx > INT32_MAX) goto fail;
    if (p->lanes) choose_lanes(p, s, qy, qx);
    size_task(p, s, qy, qx);

    const int64_t unit = p->lanes ? PB_LANES : p->nb;
    p->pr = p->my + qy, p->pc = p->mx + qx;
    p->plane = (size_t)(up(p->pr * p->pc * unit, 16) * 16);
    p->chan = p->plane * (size_t)p->nplane;
    /* an odd number of lines between channels: planes a power of two apart would fight over the same cache sets */
    if (p->chan / 16 % 2 == 0) p->chan += 16;
    const uint64_t cb = s->max_cols / (s->kk ? s->kk : 1);
    if (cb * (uint64_t)p->chan >= UINT32_MAX) goto fail;
    p->buf = (size_t)cb * p->chan + (size_t)32 * PB_LANES; /* slack: the last tile's vectors read past the last pixel */
    for (int64_t ky = 0; ky < p->kh; ky++)
        for (int64_t kx = 0; kx < p->kw; kx++) {
            tap(ky, p->dh, p->sh, &fy, &y);
            tap(kx, p->dw, p->sw, &fx, &x);
            size_t at;
            if (p->lanes) at = (size_t)plane_of(p, fy, fx) * p->plane + (size_t)((y * p->pc + x) * PB_LANES);
            else at = (size_t)plane_of(p, fy, kx * p->dw) * p->plane + (size_t)(y * p->pc * p->nb);
            for (uint64_t c = 0; c < cb; c++)
                p->tab[c * taps + (size_t)(ky * p->kw + kx)] = (uint32_t)(c * p->chan + at);
        }
    /* tasks: split the output channels only when images and tiles are too few for the threads; the input is then
     * packed once per part, so a part must be worth it */
    const int64_t tasks = up(p->n, p->nb) * up(p->oh, p->my) * up(p->ow, p->mx);
    int64_t parts = 1;
    const int64_t wanted = p->lanes ? 2 * g->threads : g->threads;
    if (g->threads > 1 && tasks < wanted) {
        parts = up(wanted, tasks);
        const double uses = (double)s->nnz / (double)((uint64_t)s->chans * s->groups * (s->kk ? s->kk : 1) + 1);
        const int64_t worth = (int64_t)(uses / 6.0);
        parts = least(parts, worth < 1 ? 1 : worth);
        if (s->groups > 1) parts = least(up(wanted, tasks), s->groups);
        if (tasks * parts < g->threads) parts = up(g->threads, tasks);
        if ((double)s->nnz * (double)(p->n * p->oh * p->ow) < 1e5) parts = 1; /* too small to share */
        parts = least(parts, s->rows ? s->rows : 1);
    }
    if (split_rows(p, s, parts)) goto fail;
    const int64_t flat = p->lanes ? p->my * p->mx * PB_LANES : up(p->my * p->nb * p->mx, 16) * 16;
    p->scratch = (size_t)(s->rows / s->groups * flat) + 512;
    if ((p->buf + p->scratch) > SIZE_MAX / 8) goto fail;
    return p;
fail:
    pb_plan_free(p);
    return NULL;
}
