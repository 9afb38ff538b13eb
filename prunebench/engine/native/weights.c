/* Packing weights: channel block after channel block, row after row, a count per row and a 16-bit offset per nonzero. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

void pb_weights_free(pb_weights *w)
{
    if (!w) return;
    free(w->blk);
    free(w->cnt);
    free(w->col);
    free(w->val);
    free(w);
}

/* Blocks and row counts for `groups` groups of `chans` channels, cb channels to a block; NULL: no memory. */
static pb_weights *skeleton(uint32_t rows, uint32_t chans, uint32_t kh, uint32_t kw, uint32_t groups, uint32_t cb, size_t nnz)
{
    pb_weights *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    const uint32_t taps = kh * kw, most = PB_MAX_OFFSET / taps; /* a row's count in a block is a uint16, too */
    if (cb < 1) cb = 1;
    if (cb > most) cb = most;
    if (cb > chans) cb = chans;
    const uint32_t per = chans ? (chans + cb - 1) / cb : 1; /* a layer without inputs still writes its bias */
    const uint32_t grows = rows / groups;
    w->rows = rows, w->chans = chans, w->groups = groups, w->kh = kh, w->kw = kw;
    w->nblk = per * groups;
    w->nnz = nnz;
    w->geo = (pb_geometry){taps, kw, 1, 1};
    const uint64_t ncnt = (uint64_t)per * rows;
    w->blk = calloc(w->nblk, sizeof *w->blk);
    if (ncnt < SIZE_MAX / 8) w->cnt = calloc(ncnt ? ncnt : 1, sizeof *w->cnt);
    w->col = calloc(nnz + PB_SLACK, sizeof *w->col);
    w->val = calloc(nnz + PB_SLACK, sizeof *w->val);
    if (!w->blk || !w->cnt || !w->col || !w->val) {
        pb_weights_free(w);
        return NULL;
    }
    for (uint32_t g = 0, b = 0; g < groups; g++)
        for (uint32_t i = 0; i < per; i++, b++) {
            pb_block *k = &w->blk[b];
            /* even shares, so that the last block is not a stub */
            k->c0 = g * chans + (uint32_t)((uint64_t)chans * i / per);
            k->c1 = g * chans + (uint32_t)((uint64_t)chans * (i + 1) / per);
            k->r0 = g * grows;
            k->r1 = k->r0 + grows;
            k->cnt0 = (size_t)b * grows;
            k->first = i == 0;
            k->last = i == per - 1;
            if (k->c1 - k->c0 > w->widest) w->widest = k->c1 - k->c0;
        }
    w->bytes = sizeof *w + w->nblk * sizeof *w->blk + ncnt * sizeof *w->cnt + nnz * (sizeof *w->col + sizeof *w->val);
    return w;
}

/* Channels to a block: enough for a row to have some nonzeros per block (its partial sums are loaded and stored once
 * per block), few enough for the block's input to stay near L1. Measured, see docs/engine-notes.md. */
uint32_t pb_block_channels(uint32_t rows, uint32_t chans, uint32_t taps, uint64_t nnz)
{
    const double per_channel = (double)nnz / ((double)rows * (double)chans + 1e-9); /* nonzeros of a row in a channel */
    const double want = 16.0 / (per_channel + 1e-9);
    const uint32_t most = PB_MAX_OFFSET / taps;
    if (want >= (double)chans || want >= (double)most) return chans < most ? chans : most;
    return want < 4 ? 4 : (uint32_t)want;
}

pb_weights *pb_weights_dense(const float *p, uint32_t rows, uint32_t chans, uint32_t kh, uint32_t kw, uint32_t groups,
                             uint32_t cb)
{
    const uint32_t taps = kh * kw, grows = rows / groups;
    const size_t width = (size_t)chans * taps;
    size_t nnz = 0;
    for (size_t i = 0; i < rows * width; i++) nnz += fabsf(p[i]) >= FLT_MIN; /* subnormals count as zero */
    if (!cb) cb = pb_block_channels(rows, chans, taps, nnz);
    pb_weights *w = skeleton(rows, chans, kh, kw, groups, cb, nnz);
    if (!w) return NULL;
    size_t at = 0;
    for (uint32_t b = 0; b < w->nblk; b++) {
        pb_block *k = &w->blk[b];
        const uint32_t base = grows ? k->r0 / grows * chans : 0; /* first channel of the group */
        k->at0 = at;
        for (uint32_t r = k->r0; r < k->r1; r++) {
            const float *row = p + r * width + (size_t)(k->c0 - base) * taps;
            const size_t before = at;
            for (uint32_t j = 0; j < (k->c1 - k->c0) * taps; j++)
                if (fabsf(row[j]) >= FLT_MIN) w->col[at] = (uint16_t)j, w->val[at++] = row[j];
            w->cnt[k->cnt0 + (r - k->r0)] = (uint16_t)(at - before);
        }
    }
    return w;
}

static uint32_t block_of(const pb_weights *w, uint32_t c)
{
    uint32_t b = (uint32_t)((uint64_t)c * w->nblk / w->chans);
    while (c < w->blk[b].c0) b--;
    while (c >= w->blk[b].c1) b++;
    return b;
}

/* indptr and indices were checked by the caller and are nobody else's. Order and duplicates within a row are kept.
 * NULL also when a row has more than 65535 entries in a block. */
pb_weights *pb_weights_csr(const int64_t *indptr, const uint32_t *indices, const float *data, uint32_t rows,
                           uint32_t cols, uint32_t cb)
{
    if (!cb) cb = pb_block_channels(rows, cols, 1, (uint64_t)indptr[rows]);
    pb_weights *w = skeleton(rows, cols, 1, 1, 1, cb, (size_t)indptr[rows]);
    size_t *start = w ? calloc((size_t)w->nblk + 1, sizeof *start) : NULL;
    if (!start) {
        pb_weights_free(w);
        return NULL;
    }
    for (uint32_t r = 0; r < rows; r++)
        for (int64_t k = indptr[r]; k < indptr[r + 1]; k++) {
            const uint32_t b = block_of(w, indices[k]);
            if (++w->cnt[(size_t)b * rows + r] == 0) { /* duplicates without end */
                pb_weights_free(w);
                free(start);
                return NULL;
            }
            start[b + 1]++;
        }
    for (uint32_t b = 0; b < w->nblk; b++) start[b + 1] += start[b], w->blk[b].at0 = start[b];
    for (uint32_t r = 0; r < rows; r++) /* row after row, so every block is filled in order */
        for (int64_t k = indptr[r]; k < indptr[r + 1]; k++) {
            const uint32_t b = block_of(w, indices[k]);
            const size_t to = start[b]++;
            w->col[to] = (uint16_t)(indices[k] - w->blk[b].c0);
            w->val[to] = data[k];
        }
    free(start);
    return w;
}

int pb_geometry_fits(const pb_weights *w, const pb_geometry *g)
{
    const int64_t kh = w->kh, kw = w->kw, wide = w->widest ? w->widest : 1;
    if (g->plane < 1 || g->row < 1 || g->dh < 1 || g->dw < 1 || g->plane > INT32_MAX || g->row > INT32_MAX) return 0;
    if (g->dh > INT32_MAX || g->dw > INT32_MAX || (kw - 1) * g->dw >= g->plane) return 0;
    if (kh > 1 && wide * g->plane > g->dh * g->row) return 0; /* else an offset could not be read back */
    return (wide - 1) * g->plane + (kh - 1) * g->dh * g->row + (kw - 1) * g->dw <= (int64_t)PB_MAX_OFFSET;
}

void pb_offsets(const pb_weights *w, const pb_geometry *g, uint16_t *to)
{
    const pb_geometry o = w->geo;
    if (w->kh * w->kw == 1 && o.plane == g->plane) {
        if (to != w->col) memcpy(to, w->col, w->nnz * sizeof *to);
        return;
    }
    const int canonical = o.plane == (int64_t)w->kh * w->kw && o.row == (int64_t)w->kw && o.dh == 1 && o.dw == 1;
    for (size_t i = 0; i < w->nnz; i++) {
        int64_t c, ky, kx, v = w->col[i];
        if (canonical) { /* channel outermost */
            c = v / o.plane, v %= o.plane;
            ky = v / w->kw, kx = v % w->kw;
        } else { /* rows outermost */
            ky = w->kh > 1 ? v / (o.dh * o.row) : 0;
            v -= ky * o.dh * o.row;
            c = v / o.plane, kx = v % o.plane / o.dw;
        }
        to[i] = (uint16_t)(c * g->plane + ky * g->dh * g->row + kx * g->dw);
    }
}
