/* Fills a task's input buffer and empties its output scratch; included by kernel_template.h, so compiled per ISA.
 *
 * Buffer, lanes layout:   [channel][plane][row][column][16 images]
 * Buffer, pixels layout:  [channel][plane][row][image][column]
 * A plane starts at its origin in the padded image and steps by the stride, so consecutive outputs read consecutive
 * places. Padding is written here, from the coordinate maps: the kernels have no borders. */
#include <string.h>

INLINE void copy16(float *d, const float *s)
{
    UNROLL for (int q = 0; q < PB_LANES; q += PB_VL) STORE(d + q, LOAD(s + q));
}
INLINE void zero16(float *d)
{
    UNROLL for (int q = 0; q < PB_LANES; q += PB_VL) STORE(d + q, (vec){0});
}

typedef float vec8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float vec4 __attribute__((vector_size(16), aligned(4), may_alias));

/* A few to a few hundred floats: a call of memcpy would cost more than the copy. The last chunk overlaps the one before. */
INLINE void copy_short(float *d, const float *s, int64_t n)
{
    if (n >= 8) {
        int64_t i = 0;
        for (; i + 8 <= n; i += 8) *(vec8 *)(d + i) = *(const vec8 *)(s + i);
        if (i < n) *(vec8 *)(d + n - 8) = *(const vec8 *)(s + n - 8);
    } else if (n >= 4) {
        const vec4 a = *(const vec4 *)s, b = *(const vec4 *)(s + n - 4);
        *(vec4 *)d = a;
        *(vec4 *)(d + n - 4) = b;
    } else {
        for (int64_t i = 0; i < n; i++) d[i] = s[i];
    }
}

/* Source columns in runs: `len` buffer columns from source column `src` on, a stride apart; src -1: zeros. */
static int64_t find_runs(pb_run_of *runs, const pb_plan *p, int64_t first)
{
    int64_t count = 0;
    for (int64_t x = 0; x < p->pc; x++) {
        const int64_t at = first + x * p->sw;
        const int32_t from = at < p->nx ? p->xmap[at] : -1;
        pb_run_of *r = runs + count - 1;
        if (count && (r->src < 0 ? from < 0 : from >= 0 && from == r->src + r->len * p->sw)) r->len++;
        else runs[count++] = (pb_run_of){from, 1};
    }
    return count;
}

/* One buffer row, images in lanes. */
INLINE void row_lanes(float *d, const float *s, const pb_run_of *runs, int64_t count, const pb_view *v, int64_t sw, int lanes)
{
    for (int64_t k = 0; k < count; k++) {
        const float *p = s + runs[k].src * v->w;
        const ptrdiff_t step = v->w * sw;
        const int64_t len = runs[k].len;
        if (runs[k].src < 0) {
            for (int64_t x = 0; x < len; x++, d += PB_LANES) zero16(d);
        } else if (v->n == 1 && lanes == PB_LANES) {
            for (int64_t x = 0; x < len; x++, d += PB_LANES, p += step) copy16(d, p);
        } else if (lanes == PB_LANES) {
            for (int i = 0; i < PB_LANES; i++) /* image by image: its pixels lie side by side */
                for (int64_t x = 0; x < len; x++) d[x * PB_LANES + i] = p[i * v->n + x * step];
            d += len * PB_LANES;
        } else {
            for (int64_t x = 0; x < len; x++, d += PB_LANES, p += step) {
                zero16(d);
                for (int i = 0; i < lanes; i++) d[i] = p[i * v->n];
            }
        }
    }
}

/* One buffer row, vectors along the pixels. */
INLINE void row_pixels(float *d, const float *s, const pb_run_of *runs, int64_t count, ptrdiff_t w, int64_t sw)
{
    for (int64_t k = 0; k < count; k++) {
        const int64_t len = runs[k].len;
        const ptrdiff_t step = w * sw;
        const float *p = s + runs[k].src * w;
        if (runs[k].src < 0) for (int64_t i = 0; i < len; i++) d[i] = 0.0f;
        else if (step == 1) copy_short(d, p, len);
        else for (int64_t i = 0; i < len; i++) d[i] = p[i * step];
        d += len;
    }
}

/* A linear layer's input: images x features, features consecutive, turned into [feature][image] in 16 x 16 squares. */
static void turn(const pb_pack *a, float *buf)
{
    const int64_t images = a->i1 - a->i0, chans = a->c1 - a->c0;
    const ptrdiff_t cs = (ptrdiff_t)a->plan->chan;
    if (a->src.n == 1) { /* already turned: what a sparse linear layer hands on */
        for (int64_t c = 0; c < chans; c++)
            memcpy(buf + c * cs, a->src.p + a->i0 + (a->c0 + c) * a->src.c, (size_t)images * sizeof(float));
        return;
    }
    for (int64_t c = 0; c < chans; c += 16) {
        const int64_t ce = c + 16 < chans ? c + 16 : chans;
        for (int64_t i = 0; i < images; i++) {
            const float *s = a->src.p + (a->i0 + i) * a->src.n + (a->c0 + c) * a->src.c;
            float *d = buf + c * cs + i;
            for (int64_t q = 0; q < ce - c; q++) d[q * cs] = s[q * a->src.c];
        }
    }
}

static void pack(const pb_pack *a, float *buf)
{
    const pb_plan *p = a->plan;
    const int64_t images = a->i1 - a->i0;
    const int64_t unit = p->lanes ? p->lanes : p->nb; /* floats a buffer column takes in its row */
    if (!p->lanes && p->h == 1 && p->w == 1 && p->pc == 1 && p->pr == 1 && p->nplane == 1 && p->ymap[0] == 0
        && p->xmap[0] == 0) {
        turn(a, buf);
        return;
    }
    for (int64_t k = 0; k < p->nplane; k++) {
        const int64_t count = find_runs(a->runs, p, a->x0 * p->sw + p->pox[k]);
        const int empty = count == 1 && a->runs[0].src < 0;
        const int64_t rows = a->my + (p->pr - p->my);
        for (int64_t c = a->c0; c < a->c1; c++) {
            float *d = buf + (size_t)(c - a->c0) * p->chan + (size_t)k * p->plane;
            const float *chan = a->src.p + a->i0 * a->src.n + c * a->src.c;
            for (int64_t r = 0; r < rows; r++) {
                const int64_t at = (a->y0 + r) * p->sh + p->poy[k];
                const int32_t iy = !empty && at < p->ny ? p->ymap[at] : -1;
                const float *s = chan + iy * a->src.h;
                if (iy < 0) {
                    memset(d, 0, (size_t)(p->pc * unit) * sizeof(float));
                    d += p->pc * unit;
                } else if (p->lanes) {
                    row_lanes(d, s, a->runs, count, &a->src, p->sw, (int)images);
                    d += p->pc * unit;
                } else {
                    for (int64_t i = 0; i < images; i++, d += p->pc, s += a->src.n)
                        row_pixels(d, s, a->runs, count, a->src.w, p->sw);
                    d += (p->nb - images) * p->pc;
                }
            }
        }
    }
}

/* `count` floats from scratch to the output, which lie side by side there as here; with the residual and the ReLU. */
INLINE void finish(float *d, const float *s, const float *add, int64_t count, int relu)
{
    int64_t i = 0;
    if (!add && !relu) {
        copy_short(d, s, count);
        return;
    }
    for (; i + PB_VL <= count; i += PB_VL) {
        vec v = LOAD(s + i);
        if (add) v += LOAD(add + i);
        if (relu) v = relu_(v);
        STORE(d + i, v);
    }
    for (; i < count; i++) {
        float v = s[i];
        if (add) v += add[i];
        d[i] = relu && v < 0.0f ? 0.0f : v;
    }
}

/* `count` pixels of `lanes` images (out of 16 in scratch), or of one float when lanes is 0, to places `step` floats apart.
 * The residual `add`, if any, lies as the output does. */
static void copy_out(const float *s, float *d, const float *add, ptrdiff_t step, int64_t count, int lanes, int relu)
{
    if (lanes == PB_LANES && step == PB_LANES) {
        finish(d, s, add, count * PB_LANES, relu);
    } else if (lanes == PB_LANES) {
        for (int64_t x = 0; x < count; x++) finish(d + x * step, s + x * PB_LANES, add ? add + x * step : NULL, PB_LANES, relu);
    } else if (lanes) {
        for (int64_t x = 0; x < count; x++) finish(d + x * step, s + x * PB_LANES, add ? add + x * step : NULL, lanes, relu);
    } else if (step == 1) {
        finish(d, s, add, count, relu);
    } else {
        for (int64_t x = 0; x < count; x++) finish(d + x * step, s + x, add ? add + x * step : NULL, 1, relu);
    }
}
