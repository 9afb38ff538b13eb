/* The register-tile kernel, once for all ISAs. The including file defines PB_NAME (suffix), PB_VL (floats per vector),
 * PB_Q1, PB_Q2, PB_Q4 (widest tile for 1, 2 and 4 rows: what the register file holds) and sets the compiler's target.
 *
 * Vectors are the compiler's own vector types, so one source serves every ISA; a product and a sum in one expression
 * contract to an FMA where the target has one.
 *
 * Per nonzero and tile: 6 bytes of weights, 4 of the offset table and T vectors of input are read; 2*T*VL FLOP. One
 * vector load per FMA is the floor of any unstructured-sparse product, so the roof is the load rate of the level the
 * tile's input lies in: channels come in blocks whose input fits L1. Fractions reached: docs/engine-notes.md. */
#include "engine.h"

typedef float vec __attribute__((vector_size(PB_VL * 4)));
typedef float uvec __attribute__((vector_size(PB_VL * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(PB_VL * 4)));

#define LOAD(p) (*(const uvec *)(p))
#define STORE(p, v) (*(uvec *)(p) = (v))
#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#define PB_MAXT (PB_Q1 > 2 * PB_Q2 ? (PB_Q1 > 4 * PB_Q4 ? PB_Q1 : 4 * PB_Q4) : (2 * PB_Q2 > 4 * PB_Q4 ? 2 * PB_Q2 : 4 * PB_Q4))

/* x < 0 is false for NaN, so a NaN passes, as in torch. */
INLINE vec relu_(vec x) { return (vec)((ivec)x & ~(ivec)(x < (vec){0})); }

/* Keeps the compiler from precomputing an address per vector: it then runs out of registers. One pointer per row of the
 * tile and constant displacements are all a tile needs. */
#define OPAQUE(p) __asm__("" : "+r"(p))

/* acc += v * tile at p. R and Q are constants where this is inlined. */
INLINE void step(vec *acc, const float v, const float *p, const ptrdiff_t xs, const int R, const int Q)
{
    UNROLL for (int r = 0; r < R; r++) {
        UNROLL for (int q = 0; q < Q; q++) acc[r * Q + q] += v * LOAD(p + q * PB_VL);
        if (r + 1 < R) {
            p += xs;
            OPAQUE(p);
        }
    }
}

/* U > 1 interleaves U partial sums, so that a tile of few vectors is not bound by the latency of one FMA chain. */
INLINE void tile_body(const pb_tile *a, const int R, const int Q, const int U)
{
    const uint16_t *restrict col = a->col;
    const float *restrict val = a->val;
    const uint32_t *restrict tab = a->tab;
    const float *const x = a->x;
    const ptrdiff_t xs = a->x_step, ys = a->y_step;
    float *out = a->y;
    for (uint32_t row = 0; row < a->rows; row++, out += a->y_row) {
        vec acc[4 * PB_MAXT];
        uint32_t k = a->ptr[row];
        const uint32_t end = a->ptr[row + 1];
        float *y = out;
        if (a->first) {
            const vec b = (vec){0} + (a->bias ? a->bias[row] : 0.0f);
            UNROLL for (int t = 0; t < R * Q; t++) acc[t] = b;
        } else {
            if (k == end && !a->relu) continue;
            UNROLL for (int r = 0; r < R; r++) {
                UNROLL for (int q = 0; q < Q; q++) acc[r * Q + q] = LOAD(y + q * PB_VL);
                y += ys;
                OPAQUE(y);
            }
        }
        if (U > 1) {
            UNROLL for (int t = R * Q; t < U * R * Q; t++) acc[t] = (vec){0};
            for (; k + U <= end; k += U) {
                UNROLL for (int u = 0; u < U; u++) step(acc + u * R * Q, val[k + u], x + tab[col[k + u]], xs, R, Q);
            }
        }
        for (; k < end; k++) step(acc, val[k], x + tab[col[k]], xs, R, Q);
        if (U > 1) {
            UNROLL for (int u = 1; u < U; u++) UNROLL for (int t = 0; t < R * Q; t++) acc[t] += acc[u * R * Q + t];
        }
        if (a->relu) {
            UNROLL for (int t = 0; t < R * Q; t++) acc[t] = relu_(acc[t]);
        }
        y = out;
        UNROLL for (int r = 0; r < R; r++) {
            UNROLL for (int q = 0; q < Q; q++) STORE(y + q * PB_VL, acc[r * Q + q]);
            y += ys;
            OPAQUE(y);
        }
    }
}

#define UNROLLED(R, Q) ((R) * (Q) == 1 ? 4 : (R) * (Q) <= 4 && 4 * (R) * (Q) <= PB_MAXT ? (R) * (Q) <= 2 ? 4 : 2 : 1)
#define TILE(R, Q) \
    static void tile_##R##_##Q(const pb_tile *a) { tile_body(a, R, Q, UNROLLED(R, Q)); }
#define NAME(R, Q) tile_##R##_##Q,
#define TO2(X, R) X(R, 1) X(R, 2)
#define TO3(X, R) TO2(X, R) X(R, 3)
#define TO4(X, R) TO3(X, R) X(R, 4)
#define TO6(X, R) TO4(X, R) X(R, 5) X(R, 6)
#define TO7(X, R) TO6(X, R) X(R, 7)
#define TO8(X, R) TO7(X, R) X(R, 8)
#define TO12(X, R) TO8(X, R) X(R, 9) X(R, 10) X(R, 11) X(R, 12)
#define TO14(X, R) TO12(X, R) X(R, 13) X(R, 14)
#define TO24(X, R) \
    TO14(X, R) X(R, 15) X(R, 16) X(R, 17) X(R, 18) X(R, 19) X(R, 20) X(R, 21) X(R, 22) X(R, 23) X(R, 24)
#define TO28(X, R) TO24(X, R) X(R, 25) X(R, 26) X(R, 27) X(R, 28)
#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define UPTO(n, X, R) CAT(TO, n)(X, R)

UPTO(PB_Q1, TILE, 1)
UPTO(PB_Q2, TILE, 2)
UPTO(PB_Q4, TILE, 4)
static pb_tile_fn tiles1[] = {NULL, UPTO(PB_Q1, NAME, 1)};
static pb_tile_fn tiles2[] = {NULL, UPTO(PB_Q2, NAME, 2)};
static pb_tile_fn tiles4[] = {NULL, UPTO(PB_Q4, NAME, 4)};

#include "pack_template.h"

const pb_isa CAT(pb_isa_, PB_NAME) = {
    .name = PB_STRING,
    .vl = PB_VL,
    .maxq = {0, PB_Q1, PB_Q2, 0, PB_Q4},
    .tile = {NULL, tiles1, tiles2, NULL, tiles4},
    .pack = pack,
    .copy_out = copy_out,
};
