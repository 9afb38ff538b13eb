/* Packing weights: channel block after channel block, row after row, 16-bit column numbers within the block. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

void pb_sparse_free(pb_sparse *s)
{
    if (!s) return;
    free(s->blk);
    free(s->ptr);
    free(s->col);
    free(s->val);
    free(s);
}

/* Blocks and row pointers for `groups` groups of `chans` channels, cb channels to a block; NULL: no memory. */
static pb_sparse *skeleton(uint32_t rows, uint32_t chans, uint32_t kk, uint32_t groups, uint32_t cb)
{
    pb_sparse *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    if (cb < 1) cb = 1;
    if ((uint64_t)cb * kk > PB_MAX_BLOCK) cb = PB_MAX_BLOCK / kk;
    if (cb > chans) cb = chans;
    const uint32_t per = chans ? (chans + cb - 1) / cb : 1; /* a layer without inputs still writes its bias */
    s->rows = rows, s->chans = chans, s->groups = groups, s->kk = kk;
    s->nblk = per * groups;
    s->blk = calloc(s->nblk, sizeof *s->blk);
    const uint32_t grows = rows / groups;
    const uint64_t nptr = (uint64_t)s->nblk * ((uint64_t)grows + 1);
    if (nptr < SIZE_MAX / 8) s->ptr = calloc(nptr, sizeof *s->ptr);
    if (!s->blk || !s->ptr) {
        pb_sparse_free(s);
        return NULL;
    }
    for (uint32_t g = 0, b = 0; g < groups; g++)
        for (uint32_t i = 0; i < per; i++, b++) {
            pb_block *k = &s->blk[b];
            /* even shares, so that the last block is not a stub */
            k->c0 = g * chans + (uint32_t)((uint64_t)chans * i / per);
            k->c1 = g * chans + (uint32_t)((uint64_t)chans * (i + 1) / per);
            k->r0 = g * grows;
            k->r1 = k->r0 + grows;
            k->ptr0 = (size_t)b * ((size_t)grows + 1);
            k->first = i == 0;
            k->last = i == per - 1;
            if ((k->c1 - k->c0) * kk > s->max_cols) s->max_cols = (k->c1 - k->c0) * kk;
        }
    s->bytes = sizeof *s + s->nblk * sizeof *s->blk + nptr * sizeof *s->ptr;
    return s;
}

/* Channels to a block: enough for a row to have some nonzeros per block (its partial sums are loaded and stored once
 * per block), few enough for the block's input to stay near L1. Measured, see docs/engine-notes.md. */
uint32_t pb_block_channels(uint32_t rows, uint32_t chans, uint32_t kk, uint64_t nnz)
{
    const double per_channel = (double)nnz / ((double)rows * (double)chans + 1e-9); /* nonzeros of a row in a channel */
    const double want = 16.0 / (per_channel + 1e-9);
    const uint32_t most = PB_MAX_BLOCK / kk;
    if (want >= (double)chans || want >= (double)most) return chans < most ? chans : most;
    return want < 4 ? 4 : (uint32_t)want;
}

static int room(pb_sparse *s, size_t nnz)
{
    s->nnz = nnz;
    s->col = malloc((nnz ? nnz : 1) * sizeof *s->col);
    s->val = malloc((nnz ? nnz : 1) * sizeof *s->val);
    s->bytes += nnz * (sizeof *s->col + sizeof *s->val);
    return s->col && s->val;
}

pb_sparse *pb_sparse_dense(const float *w, uint32_t rows, uint32_t chans, uint32_t kk, uint32_t groups, uint32_t cb)
{
    const size_t width = (size_t)chans * kk;
    size_t nnz = 0;
    for (size_t i = 0; i < rows * width; i++) nnz += fabsf(w[i]) >= FLT_MIN; /* subnormals count as zero */
    if (nnz > UINT32_MAX) return NULL;
    if (!cb) cb = pb_block_channels(rows, chans, kk, nnz);
    pb_sparse *s = skeleton(rows, chans, kk, groups, cb);
    if (!s || !room(s, nnz)) {
        pb_sparse_free(s);
        return NULL;
    }
    uint32_t at = 0;
    for (uint32_t b = 0; b < s->nblk; b++) {
        const pb_block *k = &s->blk[b];
        const uint32_t base = k->r0 / (rows / groups ? rows / groups : 1) * chans; /* first channel of the group */
        for (uint32_t r = k->r0; r < k->r1; r++) {
            const float *p = w + r * width + (size_t)(k->c0 - base) * kk;
            s->ptr[k->ptr0 + (r - k->r0)] = at;
            for (uint32_t j = 0; j < (k->c1 - k->c0) * kk; j++)
                if (fabsf(p[j]) >= FLT_MIN) s->col[at] = (uint16_t)j, s->val[at++] = p[j];
        }
        s->ptr[k->ptr0 + (k->r1 - k->r0)] = at;
    }
    return s;
}

static uint32_t block_of(const pb_sparse *s, uint32_t c)
{
    uint32_t b = (uint32_t)((uint64_t)c * s->nblk / s->chans);
    while (c < s->blk[b].c0) b--;
    while (c >= s->blk[b].c1) b++;
    return b;
}

/* indptr and indices were checked by the caller and are nobody else's. Order and duplicates within a row are kept. */
pb_sparse *pb_sparse_csr(const int64_t *indptr, const uint32_t *indices, const float *data, uint32_t rows,
                         uint32_t cols, uint32_t cb)
{
    if (!cb) cb = pb_block_channels(rows, cols, 1, (uint64_t)indptr[rows]);
    pb_sparse *s = skeleton(rows, cols, 1, 1, cb);
    if (!s || !room(s, (size_t)indptr[rows])) {
        pb_sparse_free(s);
        return NULL;
    }
    const size_t stride = (size_t)rows + 1;
    for (uint32_t r = 0; r < rows; r++)
        for (int64_t k = indptr[r]; k < indptr[r + 1]; k++) s->ptr[block_of(s, indices[k]) * stride + r + 1]++;
    uint32_t at = 0;
    for (size_t i = 0; i < stride * s->nblk; i++) { /* counts to starts; entry 0 of a block counts nothing */
        at += s->ptr[i];
        s->ptr[i] = at;
    }
    for (uint32_t r = rows; r-- > 0;) /* backwards, each start moved down to its place while filling */
        for (int64_t k = indptr[r + 1]; k-- > indptr[r];) {
            const uint32_t b = block_of(s, indices[k]);
            const uint32_t to = --s->ptr[b * stride + r + 1];
            s->col[to] = (uint16_t)(indices[k] - s->blk[b].c0);
            s->val[to] = data[k];
        }
    /* every entry r + 1 now holds the start of row r: shift them back */
    for (uint32_t b = 0; b < s->nblk; b++) {
        uint32_t *p = s->ptr + b * stride;
        memmove(p, p + 1, rows * sizeof *p);
        p[rows] = b + 1 < s->nblk ? UINT32_MAX : (uint32_t)s->nnz;
    }
    for (uint32_t b = 0; b + 1 < s->nblk; b++) /* a block ends where the next begins */
        s->ptr[b * stride + rows] = s->ptr[(b + 1) * stride];
    return s;
}
