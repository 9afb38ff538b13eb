/* Random CSR products through pb_csr_product against double precision, on every kernel set of this CPU; no Python, so
 * that it also runs under an emulator (.ci/neon).
 *
 *   csr_driver [CASES]    prints one line per kernel set; exit 1: a wrong result, or hostile arrays accepted
 *   csr_driver --broken   spoils one value of every result first: must exit 1, else the comparison sees nothing */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

#define GUARD 64
#define SPOIL 12345.0f

static uint64_t state;

static uint64_t next(void) /* splitmix64 */
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int64_t below(int64_t n) { return (int64_t)(next() % (uint64_t)n); }
static float real(void) { return (float)((double)(next() >> 11) / 9007199254740992.0 * 2 - 1); }

static void *get(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    if (!p) exit(3);
    return p;
}

static void put(void *p, int wide, int64_t i, int64_t v)
{
    if (wide) ((int64_t *)p)[i] = v;
    else ((int32_t *)p)[i] = (int32_t)v;
}

typedef struct {
    int64_t rows, cols, n;
    double density;
    int ptr_wide, idx_wide, bias, relu, threads;
} shape;

static shape draw(int i)
{
    static const int64_t ns[] = {0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 24, 31, 33, 64, 95, 96, 97, 100, 196, 200, 449, 784};
    static const double densities[] = {0, 0.02, 0.05, 0.1, 0.1, 0.3, 1};
    shape s = {below(80), below(100), ns[below(sizeof ns / sizeof *ns)], densities[below(7)],
               (int)below(2), (int)below(2), (int)below(2), (int)below(2), 1 + (int)below(3)};
    if (i % 20 == 0) s.rows = 200 + below(100), s.cols = 600 + below(600); /* several blocks of columns */
    if (i % 50 == 7) s.rows = 1 + below(9), s.cols = 70000, s.n = 1 + below(5), s.density = 0.002; /* beyond uint16 */
    return s;
}

/* 0, or 1 with a message. */
static int one(const pb_isa *isa, int i, int broken)
{
    const shape s = draw(i);
    const size_t cells = (size_t)(s.rows * s.cols), out = (size_t)(s.rows * s.n);
    int64_t nnz = 0;
    void *indptr = get((size_t)(s.rows + 1) * 8), *indices = get(cells * 8);
    float *data = get(cells * sizeof *data), *x = get((size_t)(s.cols * s.n) * sizeof *x);
    float *bias = get((size_t)s.rows * sizeof *bias), *y = get((out + 2 * GUARD) * sizeof *y);
    double *want = get(out * sizeof *want), *size = get(out * sizeof *size);
    for (int64_t k = 0; k < s.cols * s.n; k++) x[k] = real();
    for (size_t k = 0; k < out + 2 * GUARD; k++) y[k] = SPOIL; /* every output must be written, the guards must not */
    put(indptr, s.ptr_wide, 0, 0);
    for (int64_t r = 0; r < s.rows; r++) {
        bias[r] = real();
        for (int64_t j = 0; j < s.n; j++) {
            want[r * s.n + j] = s.bias ? bias[r] : 0;
            size[r * s.n + j] = fabs(want[r * s.n + j]);
        }
        for (int64_t c = 0; c < s.cols; c++) {
            if ((double)(next() >> 11) / 9007199254740992.0 >= s.density) continue;
            const float v = real();
            put(indices, s.idx_wide, nnz, c);
            data[nnz++] = v;
            for (int64_t j = 0; j < s.n; j++) {
                const double p = (double)v * x[c * s.n + j];
                want[r * s.n + j] += p;
                size[r * s.n + j] += fabs(p);
            }
        }
        put(indptr, s.ptr_wide, r + 1, nnz);
    }
    const pb_csr m = {.indptr = indptr, .indices = indices, .indptr_wide = s.ptr_wide, .indices_wide = s.idx_wide,
                      .data = data, .x = x, .bias = s.bias ? bias : NULL, .y = y + GUARD, .rows = s.rows,
                      .cols = s.cols, .nnz = nnz, .n = s.n, .relu = s.relu, .threads = s.threads};
    char why[160] = "";
    const int rc = pb_csr_product(&m, isa, why, sizeof why);
    int bad = rc != 0;
    if (bad) printf("%s: case %d: error %d %s\n", isa->name, i, rc, why);
    if (broken && out) y[GUARD + below((int64_t)out)] += 0.001f;
    for (size_t k = 0; k < out && !bad; k++) {
        const double w = s.relu && want[k] < 0 ? 0 : want[k];
        if (!(fabs(y[GUARD + k] - w) <= 2e-6 * size[k] + 1e-30)) {
            printf("%s: case %d: %lld x %lld, %lld nonzeros, times %lld columns, %d threads: y[%zu] is %.9g, not %.9g\n",
                   isa->name, i, (long long)s.rows, (long long)s.cols, (long long)nnz, (long long)s.n, s.threads, k,
                   (double)y[GUARD + k], w);
            bad = 1;
        }
    }
    for (int k = 0; k < GUARD && !bad; k++)
        if (y[k] != SPOIL || y[GUARD + out + (size_t)k] != SPOIL) {
            printf("%s: case %d: wrote outside the result\n", isa->name, i);
            bad = 1;
        }
    free(indptr), free(indices), free(data), free(x), free(bias), free(y), free(want), free(size);
    return bad;
}

/* Arrays that must be refused; 1 with a message when one isn't. */
static int hostile(const pb_isa *isa)
{
    static const int64_t ptr[][3] = {{1, 1, 2}, {0, 2, 1}, {0, 1, 3}, {0, -1, 2}, {0, INT64_MAX, 2}, {0, 1, 2}, {0, 1, 2},
                                     {0, 1, 2}, {INT64_MIN, 1, 2}};
    static const int64_t idx[][2] = {{0, 1}, {0, 1}, {0, 1}, {0, 1}, {0, 1}, {0, 2}, {-1, 0}, {0, INT64_MAX}, {0, 1}};
    const float data[2] = {1, 1}, x[2 * 4] = {1, 1, 1, 1, 1, 1, 1, 1};
    int bad = 0;
    for (size_t i = 0; i < sizeof ptr / sizeof *ptr; i++) {
        float y[2 * 4];
        char why[160] = "";
        const pb_csr m = {.indptr = ptr[i], .indices = idx[i], .indptr_wide = 1, .indices_wide = 1, .data = data, .x = x,
                          .y = y, .rows = 2, .cols = 2, .nnz = 2, .n = 4, .threads = 1};
        const int rc = pb_csr_product(&m, isa, why, sizeof why);
        if (rc == -1 && why[0]) continue;
        printf("%s: hostile arrays %zu: %d '%s'\n", isa->name, i, rc, why);
        bad = 1;
    }
    return bad;
}

int main(int argc, char **argv)
{
    const int broken = argc > 1 && strcmp(argv[1], "--broken") == 0;
    const int cases = argc > 1 && !broken ? atoi(argv[1]) : 300;
    const pb_isa *isa;
    int failed = 0;
    pb_pool_init();
    for (int k = 0; (isa = pb_isa_at(k)); k++) {
        int wrong = 0;
        state = 1;
        for (int i = 0; i < cases && wrong < 5; i++) wrong += one(isa, i, broken);
        wrong += hostile(isa);
        printf("%s: %d random products, %d wrong\n", isa->name, cases, wrong);
        failed |= wrong != 0;
    }
    return failed;
}
