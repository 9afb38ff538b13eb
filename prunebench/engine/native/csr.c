/* The public CSR product: checks the caller's arrays while copying them, then runs them through the tile kernels. What was checked is what is used: no later change of the arrays can lead outside the operands. */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

static int64_t at(const void *p, int wide, size_t i)
{
    return wide ? ((const int64_t *)p)[i] : ((const int32_t *)p)[i];
}

/* Private copies of the row pointers and indices; an error line in `why` when they are wrong. */
static int copy_checked(const pb_csr *m, int64_t *indptr, uint32_t **indices, char *why, size_t room)
{
    indptr[0] = at(m->indptr, m->indptr_wide, 0);
    for (int64_t r = 1; r <= m->rows; r++) indptr[r] = at(m->indptr, m->indptr_wide, (size_t)r);
    if (indptr[0] != 0) return snprintf(why, room, "indptr[0] is %lld, must be 0", (long long)indptr[0]), -1;
    for (int64_t r = 0; r < m->rows; r++)
        if (indptr[r + 1] < indptr[r])
            return snprintf(why, room, "indptr must not decrease: indptr[%lld] is %lld after %lld", (long long)(r + 1),
                            (long long)indptr[r + 1], (long long)indptr[r]), -1;
    const int64_t nnz = indptr[m->rows];
    if (nnz != m->nnz)
        return snprintf(why, room, "indptr ends at %lld, but indices and data have %lld entries", (long long)nnz,
                        (long long)m->nnz), -1;
    *indices = malloc((size_t)(nnz ? nnz : 1) * sizeof **indices);
    if (!*indices) return -2;
    for (int64_t k = 0; k < nnz; k++) {
        const int64_t c = at(m->indices, m->indices_wide, (size_t)k);
        if (c < 0 || c >= m->cols)
            return snprintf(why, room, "indices[%lld] is %lld, outside 0 .. %lld", (long long)k, (long long)c,
                            (long long)m->cols - 1), -1;
        (*indices)[k] = (uint32_t)c;
    }
    return 0;
}

/* A task: `tile` lane vectors of columns, all rows. The columns of a block are copied side by side, the last ones filled
 * up with zeros, so the kernel reads whole lane vectors wherever a row of the operand starts. */
typedef struct {
    const pb_csr *m;
    const pb_weights *w;
    const uint16_t *col;
    const pb_isa *isa;
    int64_t tile;
    atomic_int failed;
} product_ctx;

static void product_task(void *arg, int64_t t)
{
    product_ctx *a = arg;
    const pb_csr *m = a->m;
    const pb_weights *w = a->w;
    const int64_t j = t * a->tile * PB_LANES, wide = a->tile * PB_LANES, n = m->n - j < wide ? m->n - j : wide;
    const size_t room = (size_t)(w->widest + w->rows) * (size_t)wide;
    float *buf = pb_workspace(room * sizeof *buf);
    if (!buf) {
        atomic_store(&a->failed, 1);
        return;
    }
    float *out = buf + (size_t)w->widest * (size_t)wide;
    pb_tile k = {.x = buf, .col = a->col, .cnt = w->cnt, .val = w->val, .rows = w->rows, .y = out, .y_row = wide,
                 .bias = m->bias, .relu = m->relu};
    for (uint32_t b = 0; b < w->nblk; b++) {
        const pb_block *blk = &w->blk[b];
        for (uint32_t c = blk->c0; c < blk->c1; c++) {
            float *to = buf + (size_t)(c - blk->c0) * (size_t)wide;
            memcpy(to, m->x + (int64_t)c * m->n + j, (size_t)n * sizeof *to);
            memset(to + n, 0, (size_t)(wide - n) * sizeof *to);
        }
        k.col = a->col + blk->at0, k.val = w->val + blk->at0, k.cnt = w->cnt + blk->cnt0;
        k.first = blk->first, k.last = blk->last;
        a->isa->tile[1][1][a->tile](&k);
    }
    for (uint32_t r = 0; r < w->rows; r++)
        memcpy(m->y + (int64_t)r * m->n + j, out + (size_t)r * (size_t)wide, (size_t)n * sizeof *out);
}

static int product(const pb_csr *m, const int64_t *indptr, const uint32_t *indices, const pb_isa *isa)
{
    const uint64_t most = m->cols < (int64_t)PB_MAX_OFFSET ? 1 : (uint64_t)m->cols / PB_MAX_OFFSET + 1;
    const int hyper = most > 1 && most * (uint64_t)m->rows > 4 * (uint64_t)m->nnz + 65536;
    const int64_t vecs = (m->n + PB_LANES - 1) / PB_LANES;
    int64_t tile = vecs < 8 ? vecs : 8;
    if (tile > isa->maxq[1]) tile = isa->maxq[1];
    pb_weights *w = NULL;
    int rc = 0;
    if (!hyper) { /* a block is no wider than its tile's offsets can reach */
        uint32_t cb = pb_block_channels((uint32_t)m->rows, (uint32_t)m->cols, 1, (uint64_t)m->nnz);
        if ((uint64_t)cb * (uint64_t)tile > PB_MAX_OFFSET) cb = (uint32_t)(PB_MAX_OFFSET / tile);
        w = pb_weights_csr(indptr, indices, m->data, (uint32_t)m->rows, (uint32_t)m->cols, cb);
    }
    if (!w) {
        pb_rows(indptr, indices, m->data, m->rows, m->x, m->n, m->y, m->bias, m->relu, m->threads);
        return 0;
    }
    const pb_geometry g = {m->n == 1 ? 1 : tile, 1, 1, 1};
    pb_offsets(w, &g, w->col);
    w->geo = g;
    if (m->n == 1) {
        pb_dot(isa, w, w->col, m->x, m->y, NULL, m->bias, m->relu, INFINITY, NULL, m->threads);
    } else {
        product_ctx c = {.m = m, .w = w, .col = w->col, .isa = isa, .tile = tile};
        pb_run(product_task, &c, (vecs + tile - 1) / tile, m->threads);
        rc = atomic_load(&c.failed) ? -2 : 0;
    }
    pb_weights_free(w);
    return rc;
}

int pb_csr_product(const pb_csr *m, const pb_isa *isa, char *why, size_t room)
{
    int64_t *indptr = malloc(((size_t)m->rows + 1) * sizeof *indptr);
    uint32_t *indices = NULL;
    int rc = indptr ? copy_checked(m, indptr, &indices, why, room) : -2;
    if (rc == 0 && m->rows && m->n) rc = product(m, indptr, indices, isa);
    free(indptr);
    free(indices);
    return rc;
}
