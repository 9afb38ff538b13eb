/* Products where vectors along the output don't pay: one image (a linear layer at batch 1), and hypersparse matrices.
 * dot_template.h's kernels, block by block: their roofs bind. */
#include "engine.h"

typedef struct {
    const pb_weights *w;
    const pb_isa *isa;
    const uint16_t *col;
    const float *x, *add, *bias;
    float *y, hi;
    int relu;
    int64_t per;
    const int64_t *indptr;
    const uint32_t *indices;
    const float *data;
    int64_t rows, n;
} rows_ctx;

/* Rows [lo, hi) of every block; a block's first nonzeros are found by adding up the counts before `lo`. */
static void dot_task(void *arg, int64_t t)
{
    const rows_ctx *a = arg;
    const pb_weights *w = a->w;
    const int64_t lo = t * a->per, hi = lo + a->per < w->rows ? lo + a->per : w->rows;
    for (uint32_t b = 0; b < w->nblk; b++) {
        const pb_block *k = &w->blk[b];
        const uint16_t *cnt = w->cnt + k->cnt0;
        size_t at = k->at0;
        for (int64_t r = 0; r < lo; r++) at += cnt[r];
        const float *x = a->x + k->c0;
        for (int64_t r = lo; r < hi; r++) {
            float v = k->first ? (a->bias ? a->bias[r] : 0.0f) : a->y[r];
            v += a->isa->dot(a->col + at, w->val + at, cnt[r], x);
            at += cnt[r];
            if (k->last) {
                if (a->add) v += a->add[r];
                if (a->relu && v < 0.0f) v = 0.0f;
                if (v > a->hi) v = a->hi;
            }
            a->y[r] = v;
        }
    }
}

/* y[r] = act(sum_c W[r, c] x[c] + bias[r] + add[r]); one tap, one group, offsets in the geometry {1, 1, 1, 1}. */
void pb_dot(const pb_isa *isa, const pb_weights *w, const uint16_t *col, const float *x, float *y, const float *add, const float *bias,
            int relu, float hi, pb_team *team, int threads)
{
    rows_ctx a = {.w = w, .isa = isa, .col = col, .x = x, .y = y, .add = add, .bias = bias, .relu = relu, .hi = hi};
    const int64_t parts = w->nnz < 65536 ? 1 : (int64_t)threads; /* under some 20 us a helper isn't worth waking */
    a.per = (w->rows + parts - 1) / parts;
    if (a.per < 1) a.per = 1;
    pb_share(team, dot_task, &a, (w->rows + a.per - 1) / a.per);
}

#define INPUTS 512 /* looked through at once: which are not zero, without a branch nobody foresees */

void pb_dot_columns(const pb_isa *isa, const pb_weights *w, const uint16_t *col, const float *x, float *y, const float *add,
                    const float *bias, int relu, float hi)
{
    uint32_t which[INPUTS + 1];
    size_t start[INPUTS + 1];
    for (uint32_t r = 0; r < w->chans; r++) y[r] = bias ? bias[r] : 0.0f;
    for (uint32_t b = 0; b < w->nblk; b++) {
        const pb_block *k = &w->blk[b];
        const uint16_t *cnt = w->cnt + k->cnt0;
        size_t at = k->at0;
        for (uint32_t lo = 0; lo < w->rows; lo += INPUTS) {
            const uint32_t hi_ = lo + INPUTS < w->rows ? lo + INPUTS : w->rows;
            uint32_t n = 0;
            for (uint32_t i = lo; i < hi_; i++) {
                which[n] = i, start[n] = at;
                n += x[i] != 0.0f; /* a NaN counts */
                at += cnt[i];
            }
            for (uint32_t i = 0; i < n; i++)
                isa->spread(col + start[i], w->val + start[i], cnt[which[i]], x[which[i]], y + k->c0);
        }
    }
    for (uint32_t r = 0; r < w->chans; r++) {
        float v = y[r];
        if (add) v += add[r];
        if (relu && v < 0.0f) v = 0.0f;
        y[r] = v > hi ? hi : v;
    }
}

static void rows_task(void *arg, int64_t t)
{
    const rows_ctx *a = arg;
    const int64_t hi = (t + 1) * a->per < a->rows ? (t + 1) * a->per : a->rows;
    for (int64_t r = t * a->per; r < hi; r++) {
        float *y = a->y + r * a->n;
        const float b = a->bias ? a->bias[r] : 0.0f;
        for (int64_t j = 0; j < a->n; j++) y[j] = b;
        for (int64_t k = a->indptr[r]; k < a->indptr[r + 1]; k++) {
            const float v = a->data[k];
            const float *x = a->x + (int64_t)a->indices[k] * a->n;
            for (int64_t j = 0; j < a->n; j++) y[j] += v * x[j];
        }
        if (a->relu)
            for (int64_t j = 0; j < a->n; j++) y[j] = y[j] < 0.0f ? 0.0f : y[j];
    }
}

/* Plain CSR times dense, row by row: for matrices so wide and empty that blocks would be mostly row counts. */
void pb_rows(const int64_t *indptr, const uint32_t *indices, const float *data, int64_t rows, const float *x,
             int64_t n, float *y, const float *bias, int relu, int threads)
{
    rows_ctx a = {.indptr = indptr, .indices = indices, .data = data, .rows = rows, .x = x, .n = n, .y = y,
                  .bias = bias, .relu = relu};
    a.per = (rows + threads * 8 - 1) / (threads * 8);
    if (a.per < 1) a.per = 1;
    pb_run(rows_task, &a, (rows + a.per - 1) / a.per, threads);
}
