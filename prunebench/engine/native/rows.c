/* Products where vectors along the output don't pay: one column (a linear layer at batch 1), and hypersparse matrices. */
#include <string.h>

#include "engine.h"

typedef struct {
    const pb_sparse *s;
    const float *x, *bias;
    float *y;
    ptrdiff_t x_step, y_step;
    int relu;
    int64_t per;
    const int64_t *indptr;
    const uint32_t *indices;
    const float *data;
    int64_t rows, n;
} rows_ctx;

/* Four chains hide the latency of the adds. 10 bytes and 2 FLOP per nonzero, each a scalar load of x: the load ports
 * bind (three loads a nonzero), not the FMA units. */
static float dot(const uint16_t *col, const float *val, uint32_t n, const float *x, ptrdiff_t step)
{
    float a = 0, b = 0, c = 0, d = 0;
    uint32_t k = 0;
    if (step == 1) {
        for (; k + 4 <= n; k += 4) {
            a += val[k] * x[col[k]];
            b += val[k + 1] * x[col[k + 1]];
            c += val[k + 2] * x[col[k + 2]];
            d += val[k + 3] * x[col[k + 3]];
        }
    }
    for (; k < n; k++) a += val[k] * x[col[k] * step];
    return (a + b) + (c + d);
}

static void dot_task(void *arg, int64_t t)
{
    const rows_ctx *a = arg;
    const pb_sparse *s = a->s;
    const int64_t lo = t * a->per, hi = lo + a->per < s->rows ? lo + a->per : s->rows;
    for (uint32_t b = 0; b < s->nblk; b++) {
        const pb_block *k = &s->blk[b];
        const uint32_t *ptr = s->ptr + k->ptr0;
        for (int64_t r = lo > k->r0 ? lo : k->r0; r < hi && r < k->r1; r++) {
            const uint32_t p = ptr[r - k->r0], e = ptr[r - k->r0 + 1];
            float v = k->first ? (a->bias ? a->bias[r] : 0.0f) : a->y[r * a->y_step];
            v += dot(s->col + p, s->val + p, e - p, a->x + k->c0 * a->x_step, a->x_step);
            if (k->last && a->relu && v < 0.0f) v = 0.0f;
            a->y[r * a->y_step] = v;
        }
    }
}

/* y[r] = act(sum_c W[r, c] x[c] + bias[r]); the matrix has one tap per channel. */
void pb_dot(const pb_sparse *s, const float *x, ptrdiff_t x_step, float *y, ptrdiff_t y_step, const float *bias,
            int relu, int threads)
{
    rows_ctx a = {.s = s, .x = x, .x_step = x_step, .y = y, .y_step = y_step, .bias = bias, .relu = relu};
    const int64_t parts = s->nnz < 65536 ? 1 : (int64_t)threads * 4; /* under some 20 us a helper isn't worth waking */
    a.per = (s->rows + parts - 1) / parts;
    if (a.per < 1) a.per = 1;
    pb_run(dot_task, &a, (s->rows + a.per - 1) / a.per, threads);
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

/* Plain CSR times dense, row by row: for matrices so wide and empty that blocks would be mostly row pointers. */
void pb_rows(const int64_t *indptr, const uint32_t *indices, const float *data, int64_t rows, const float *x,
             int64_t n, float *y, const float *bias, int relu, int threads)
{
    rows_ctx a = {.indptr = indptr, .indices = indices, .data = data, .rows = rows, .x = x, .n = n, .y = y,
                  .bias = bias, .relu = relu};
    a.per = (rows + threads * 8 - 1) / (threads * 8);
    if (a.per < 1) a.per = 1;
    pb_run(rows_task, &a, (rows + a.per - 1) / a.per, threads);
}
