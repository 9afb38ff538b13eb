/* The public CSR product: checks the caller's arrays while copying them, then runs them as a 1 x 1 convolution over an
 * image of one row. What was checked is what is used: no later change of the arrays can lead outside the operands. */
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

static int product(const pb_csr *m, const int64_t *indptr, const uint32_t *indices, const pb_isa *isa)
{
    const uint64_t most = m->cols < (int64_t)PB_MAX_BLOCK ? 1 : (uint64_t)m->cols / PB_MAX_BLOCK + 1;
    if (most > 1 && most * (uint64_t)m->rows > 4 * (uint64_t)m->nnz + 65536) {
        pb_rows(indptr, indices, m->data, m->rows, m->x, m->n, m->y, m->bias, m->relu, m->threads);
        return 0;
    }
    pb_sparse *s = pb_sparse_csr(indptr, indices, m->data, (uint32_t)m->rows, (uint32_t)m->cols, 0);
    if (!s) return -2;
    int rc = 0;
    if (m->n == 1) {
        pb_dot(s, m->x, 1, m->y, 1, m->bias, m->relu, m->threads);
    } else {
        const int32_t zero = 0;
        int32_t *xmap = malloc((size_t)m->n * sizeof *xmap);
        pb_plan *p = NULL;
        if (xmap) {
            for (int64_t i = 0; i < m->n; i++) xmap[i] = (int32_t)i;
            const pb_geometry g = {.n = 1, .h = 1, .w = m->n, .oh = 1, .ow = m->n, .kh = 1, .kw = 1, .sh = 1, .sw = 1,
                                   .dh = 1, .dw = 1, .ymap = &zero, .xmap = xmap, .ny = 1, .nx = m->n,
                                   .threads = m->threads};
            p = pb_plan_new(s, &g, isa);
        }
        if (p) {
            const pb_view x = {(float *)m->x, 0, m->n, 0, 1}, y = {m->y, 0, m->n, 0, 1};
            rc = pb_conv(s, p, x, y, m->bias, NULL, m->relu, m->threads) ? -2 : 0;
        } else {
            rc = -2;
        }
        pb_plan_free(p);
        free(xmap);
    }
    pb_sparse_free(s);
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
