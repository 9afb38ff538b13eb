/* The register-tile kernel, once for all ISAs. The including file defines PB_NAME (suffix), PB_STRING, PB_VL (floats per
 * vector), PB_Q1 .. PB_Q4 (widest tile for 1 to 4 rows, in lane vectors: what the register file holds) and sets the
 * compiler's target.
 *
 * Vectors are the compiler's own vector types, so one source serves every ISA; a product and a sum in one expression
 * contract to an FMA where the target has one.
 *
 * Per nonzero and tile: 6 bytes of weights and R*Q lane vectors of input are read, 32*R*Q FLOP done. One vector load per
 * FMA is the floor of any unstructured-sparse product, so the roof is the load rate of the level that the tile's input
 * lies in: channels come in blocks whose input fits L1. Measured, one thread of a Zen 4 (512-bit roof from L1: 105
 * GFLOP/s): 4 x 4 tiles 80-85% of it, 2 x 2 75%, 1 x 8 (a 1 x 1 convolution) 73%, 1 x 1 43%. AVX2, whose roof is the same there (two
 * loads of half the width a cycle): 2 x 2 and 2 x 3 tiles 65-68%, twelve accumulators for sixteen. scalar, 4 floats at a
 * time: 20 GFLOP/s, 38% of its roof of 52. docs/engine-notes.md has the rest. */
#include "engine.h"

typedef float vec __attribute__((vector_size(PB_VL * 4)));
typedef float uvec __attribute__((vector_size(PB_VL * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(PB_VL * 4)));
typedef int32_t uivec __attribute__((vector_size(PB_VL * 4), aligned(4), may_alias));

#define LOAD(p) (*(const uvec *)(p))
#define STORE(p, v) (*(uvec *)(p) = (v))
#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 128")
#endif
#define VPL (PB_LANES / PB_VL) /* vectors per lane vector */
#define MAX_(a, b) ((a) > (b) ? (a) : (b))
#define PB_MAXT (VPL * MAX_(MAX_(PB_Q1, 2 * PB_Q2), MAX_(3 * PB_Q3, 4 * PB_Q4)))

/* x < 0 is false for NaN, so a NaN passes, as in torch. */
INLINE vec relu_(vec x) { return (vec)((ivec)x & ~(ivec)(x < (vec){0})); }
INLINE vec select_(ivec m, vec a, vec b) { return (vec)((m & (ivec)a) | (~m & (ivec)b)); }
INLINE vec most_(vec x, float hi)
{
    const vec h = (vec){0} + hi;
    return select_((ivec)(x > h), h, x);
}

/* Keeps the compiler from precomputing an address per vector: it then runs out of registers. One pointer per row of the
 * tile and constant displacements are all a tile needs. */
#define OPAQUE(p) __asm__("" : "+r"(p))

/* acc += v * tile at p; S: lane vectors from one column of the tile to the next. R, Q and S are constants here. */
INLINE void step(vec *acc, const float v, const float *p, const ptrdiff_t xs, const int R, const int Q, const int S)
{
    UNROLL for (int r = 0; r < R; r++) {
        UNROLL for (int q = 0; q < Q * VPL; q++)
            acc[r * Q * VPL + q] += v * LOAD(p + q / VPL * S * PB_LANES + q % VPL * PB_VL);
        if (r + 1 < R) {
            p += xs;
            OPAQUE(p);
        }
    }
}

INLINE void accumulate(vec *acc, const float *y, const ptrdiff_t ys, const int R, const int Q, const int sum)
{
    UNROLL for (int r = 0; r < R; r++) {
        UNROLL for (int q = 0; q < Q * VPL; q++) {
            const vec v = LOAD(y + q * PB_VL);
            acc[r * Q * VPL + q] = sum ? acc[r * Q * VPL + q] + v : v;
        }
        if (r + 1 < R) {
            y += ys;
            OPAQUE(y);
        }
    }
}

/* U > 1 interleaves U partial sums, so that a tile of few vectors is not bound by the latency of one FMA chain. */
INLINE void tile_body(const pb_tile *a, const int R, const int Q, const int S, const int U)
{
    enum { W = PB_LANES };
    const int T = R * Q * VPL;
    const uint16_t *restrict col = a->col;
    const uint16_t *restrict cnt = a->cnt;
    const float *restrict val = a->val;
    const float *const x = a->x;
    const ptrdiff_t xs = a->x_step;
    const int first = a->first, last = a->last;
    float *out = a->y;
    for (uint32_t row = 0; row < a->rows; row++, out += a->y_row) {
        vec acc[4 * PB_MAXT];
        const uint16_t *const end = col + cnt[row];
        if (first) {
            const vec b = (vec){0} + (a->bias ? a->bias[row] : 0.0f);
            UNROLL for (int t = 0; t < T; t++) acc[t] = b;
            if (a->add) accumulate(acc, a->add + (ptrdiff_t)row * a->add_row, a->add_step, R, Q, 1);
        } else {
            if (col == end && !last) continue;
            accumulate(acc, out, a->y_step, R, Q, 0);
        }
        if (U > 1) {
            UNROLL for (int t = T; t < U * T; t++) acc[t] = (vec){0};
            for (; col + U <= end; col += U, val += U) {
                UNROLL for (int u = 0; u < U; u++) step(acc + u * T, val[u], x + (size_t)col[u] * W, xs, R, Q, S);
            }
        }
        for (; col < end; col++, val++) step(acc, *val, x + (size_t)*col * W, xs, R, Q, S);
        if (U > 1) {
            UNROLL for (int u = 1; u < U; u++) UNROLL for (int t = 0; t < T; t++) acc[t] += acc[u * T + t];
        }
        if (last) {
            if (a->relu) {
                UNROLL for (int t = 0; t < T; t++) acc[t] = relu_(acc[t]);
            }
            if (a->clamp) {
                UNROLL for (int t = 0; t < T; t++) acc[t] = most_(acc[t], a->hi);
            }
        }
        float *y = out;
        UNROLL for (int r = 0; r < R; r++) {
            UNROLL for (int q = 0; q < Q * VPL; q++) STORE(y + q * PB_VL, acc[r * Q * VPL + q]);
            if (r + 1 < R) {
                y += a->y_step;
                OPAQUE(y);
            }
        }
    }
}

#define UNROLLED(R, Q) \
    ((R) * (Q) * VPL == 1 ? 4 : (R) * (Q) * VPL <= 4 && 4 * (R) * (Q) * VPL <= PB_MAXT ? ((R) * (Q) * VPL <= 2 ? 4 : 2) : 1)
#define TILE(R, Q)                                                                     \
    static void tile1_##R##_##Q(const pb_tile *a) { tile_body(a, R, Q, 1, UNROLLED(R, Q)); } \
    static void tile2_##R##_##Q(const pb_tile *a) { tile_body(a, R, Q, 2, UNROLLED(R, Q)); }
#define NAME1(R, Q) tile1_##R##_##Q,
#define NAME2(R, Q) tile2_##R##_##Q,
#define TO1(X, R) X(R, 1)
#define TO2(X, R) TO1(X, R) X(R, 2)
#define TO3(X, R) TO2(X, R) X(R, 3)
#define TO4(X, R) TO3(X, R) X(R, 4)
#define TO5(X, R) TO4(X, R) X(R, 5)
#define TO6(X, R) TO5(X, R) X(R, 6)
#define TO7(X, R) TO6(X, R) X(R, 7)
#define TO8(X, R) TO7(X, R) X(R, 8)
#define TO10(X, R) TO8(X, R) X(R, 9) X(R, 10)
#define TO14(X, R) TO10(X, R) X(R, 11) X(R, 12) X(R, 13) X(R, 14)
#define TO16(X, R) TO14(X, R) X(R, 15) X(R, 16)
#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define UPTO(n, X, R) CAT(TO, n)(X, R)
#define TABLE(S, R) static pb_tile_fn tiles##S##_##R[] = {NULL, UPTO(PB_Q##R, NAME##S, R)};

UPTO(PB_Q1, TILE, 1)
UPTO(PB_Q2, TILE, 2)
TABLE(1, 1) TABLE(1, 2) TABLE(2, 1) TABLE(2, 2)
#if PB_Q3
UPTO(PB_Q3, TILE, 3)
TABLE(1, 3) TABLE(2, 3)
#else
#define tiles1_3 NULL
#define tiles2_3 NULL
#endif
#if PB_Q4
UPTO(PB_Q4, TILE, 4)
TABLE(1, 4) TABLE(2, 4)
#else
#define tiles1_4 NULL
#define tiles2_4 NULL
#endif

#include "map_template.h"
#include "move_template.h"
#include "dot_template.h"

const pb_isa CAT(pb_isa_, PB_NAME) = {
    .name = PB_STRING,
    .maxq = {0, PB_Q1, PB_Q2, PB_Q3, PB_Q4},
    .tile = {{NULL}, {NULL, tiles1_1, tiles1_2, tiles1_3, tiles1_4}, {NULL, tiles2_1, tiles2_2, tiles2_3, tiles2_4}},
    .map = map,
    .halo = halo,
    .gather = gather,
    .transpose = transpose,
    .permute = permute,
    .window = window,
    .sum = sum_,
    .dot = dot,
    .spread = spread,
};
