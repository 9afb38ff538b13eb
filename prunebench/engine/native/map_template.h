/* What is not a product: elementwise functions, halos, pooling, sums; included by kernel_template.h, compiled per ISA.
 * A group's maps lie in L2, which on a Zen 4 gives one thread 118 GB/s of reads (64 bytes for every FMA of its 59 GFLOP/s
 * roof): the figures below are fractions of that, one thread, AVX-512, maps of 64 x 32 x 32, bytes read and written.
 *
 * map: 8 to 12 bytes a number. leaky 127 GB/s and mul 157 (108 % and 133 %: what is written is not read first), add 101
 * (86 %), hardswish 90 (76 %). sigmoid 17 (15 %): some 25 operations and a division, 24 cycles a vector, so the vector units
 * bind and not the loads; silu alike. AVX2: leaky 80 GB/s, sigmoid 11. */

/* exp(x) for x <= 0 clamped at -87: 2^k * p(r), Cephes' polynomial, within 2 units in the last place. */
INLINE vec exp_(vec x)
{
    const vec low = (vec){0} - 87.0f;
    x = select_((ivec)(x < low), low, x);
    const vec t = x * 1.44269504088896341f - 0.5f;
    const ivec k = __builtin_convertvector(t, ivec); /* towards zero: rounds x / ln 2 for x <= 0 */
    const vec f = __builtin_convertvector(k, vec);
    x = x - f * 0.693359375f;
    x = x - f * -2.12194440e-4f;
    vec p = (vec){0} + 1.9875691500e-4f;
    p = p * x + 1.3981999507e-3f;
    p = p * x + 8.3334519073e-3f;
    p = p * x + 4.1665795894e-2f;
    p = p * x + 1.6666665459e-1f;
    p = p * x + 5.0000001201e-1f;
    p = p * x * x + x + 1.0f;
    return p * (vec)((k + 127) << 23);
}

INLINE vec sigmoid_(vec x)
{
    const ivec neg = (ivec)(x < (vec){0});
    const vec e = exp_(select_(neg, x, -x)), one = (vec){0} + 1.0f;
    const vec y = select_(neg, e, one) / (one + e);
    return select_((ivec)(x != x), x, y);
}

INLINE vec hardsigmoid_(vec x) { return most_(relu_(x + 3.0f), 6.0f) * (1.0f / 6.0f); }

#define EACH(expr)                                              \
    for (int64_t i = 0; i < n * PB_LANES; i += PB_VL) {         \
        const vec v = LOAD(x + i);                              \
        STORE(y + i, expr);                                     \
    }                                                           \
    break
#define EACH2(expr)                                             \
    for (int64_t i = 0, j = 0; i < n; i++, j += b_step)         \
        for (int l = 0; l < PB_LANES; l += PB_VL) {             \
            const vec v = LOAD(x + i * PB_LANES + l), w = LOAD(b + j + l); \
            STORE(y + i * PB_LANES + l, expr);                  \
        }                                                       \
    break

static void map(int fn, const float *x, const float *b, ptrdiff_t b_step, float *y, int64_t n, float p0, float p1)
{
    switch (fn) {
    case PB_COPY: EACH(v);
    case PB_RELU: EACH(relu_(v));
    case PB_RELU6: EACH(most_(relu_(v), 6.0f));
    case PB_HARDSWISH: EACH(v * hardsigmoid_(v));
    case PB_HARDSIGMOID: EACH(hardsigmoid_(v));
    case PB_SIGMOID: EACH(sigmoid_(v));
    case PB_SILU: EACH(v * sigmoid_(v));
    case PB_LEAKY: EACH(select_((ivec)(v < (vec){0}), v * p0, v));
    case PB_ADD: EACH2(v + w);
    case PB_MUL: EACH2(v * w);
    case PB_AFFINE: EACH(v * p0 + p1);
    default: break;
    }
}

/* Entries from `first` that are one run: neighbouring columns of a row from neighbouring sources, under one mask. */
static int64_t run_of(const int32_t *first, int64_t most)
{
    int64_t n = 1;
    for (const int32_t *t = first + 4; n < most && t[0] == first[0] && t[1] == first[1] + n
         && t[2] == first[2] + n * PB_LANES && t[3] == first[3]; n++, t += 4) {}
    return n;
}

#if defined(__AVX512F__)
#include <immintrin.h>
/* A run for all channels, then the next: addresses and mask stay in registers, and a row's halo is written from line to
 * line, which matters where another core has them. The source's lanes all lie in one aligned vector, so a load and a
 * permutation stand for a load across two lines: 1.2 to 0.9 ns a vector in L1. In L2 1.15 ns: 112 GB/s, 95 % of the roof. */
static void halo(float *base, int64_t chans, ptrdiff_t chan, ptrdiff_t row, const int32_t *entry, int64_t entries,
                 const uint32_t *mask, float fill)
{
    const __m512 f = _mm512_set1_ps(fill);
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (int64_t e = 0, n; e < entries; e += n, entry += n * 4) {
        n = run_of(entry, entries - e);
        const __m512i use = _mm512_loadu_si512(mask + (int64_t)entry[3] * PB_LANES);
        const __mmask16 m = _mm512_test_epi32_mask(use, use);
        float *to = base + (entry[0] * row + entry[1]) * PB_LANES;
        /* the aligned vector that the first lane in use reads from; with none in use, any */
        const float *from = base + (m ? (entry[2] + __builtin_ctz(m)) & ~(int64_t)15 : 0);
        const __m512i index = _mm512_add_epi32(lane, _mm512_set1_epi32(entry[2]));
        for (int64_t c = 0; c < chans; c++, to += chan, from += chan)
            for (int64_t i = 0; i < n; i++)
                _mm512_storeu_ps(to + i * PB_LANES,
                                 _mm512_mask_permutexvar_ps(f, m, index, _mm512_loadu_ps(from + i * PB_LANES)));
    }
}
#else
/* Sources are unaligned: a neighbouring lane's value is one float away. A run for all channels, then the next. AVX2: 1.8 ns
 * for 16 lanes, 60 % of L2's roof: every second load splits a line. */
static void halo(float *base, int64_t chans, ptrdiff_t chan, ptrdiff_t row, const int32_t *entry, int64_t entries,
                 const uint32_t *mask, float fill)
{
    const vec f = (vec){0} + fill;
    for (int64_t e = 0, n; e < entries; e += n, entry += n * 4) {
        n = run_of(entry, entries - e);
        float *to = base + (entry[0] * row + entry[1]) * PB_LANES, *from = base + entry[2];
        const uint32_t *m = mask + (int64_t)entry[3] * PB_LANES;
        ivec use[VPL];
        UNROLL for (int l = 0; l < VPL; l++) use[l] = *(const uivec *)(m + l * PB_VL);
        for (int64_t c = 0; c < chans; c++, to += chan, from += chan)
            for (int64_t i = 0; i < n * PB_LANES; i += PB_LANES) {
                vec got[VPL];
                UNROLL for (int l = 0; l < VPL; l++) /* all before any: a vector may be its own source */
                    got[l] = select_(use[l], LOAD(from + i + l * PB_VL), f);
                UNROLL for (int l = 0; l < VPL; l++) STORE(to + i + l * PB_VL, got[l]);
            }
    }
}
#endif

/* A NaN wins in a maximum, as in torch. 2 x 2: 4 loads and 12 operations for a store, 16 cycles (66 GB/s, 56 % of L2's
 * roof): the vector units bind, three quarters of their rate reached. */
static void window(const float *x, float *y, int64_t n, int64_t kh, int64_t kw, ptrdiff_t ky, ptrdiff_t kx, ptrdiff_t sx,
                   const float *mult)
{
    for (int64_t i = 0; i < n; i++, x += sx, y += PB_LANES) {
        for (int l = 0; l < PB_LANES; l += PB_VL) {
            vec acc = LOAD(x + l);
            for (int64_t a = 0; a < kh; a++) {
                const float *p = x + a * ky + l;
                for (int64_t b = a == 0; b < kw; b++) {
                    const vec v = LOAD(p + b * kx);
                    acc = mult ? acc + v : select_((ivec)(v > acc) | (ivec)(v != v), v, acc);
                }
            }
            if (mult) acc *= LOAD(mult + i * PB_LANES + l);
            STORE(y + l, acc);
        }
    }
}

/* Row by row: fewer digits lost than one after the other. 64 GB/s, 54 % of L2's roof: 3.2 cycles a vector is the latency of
 * the one chain of sums; a network's last map is too small for more to matter. */
static void sum_(const float *x, ptrdiff_t row, const uint32_t *mask, int64_t rh, int64_t rw, float *total)
{
    for (int l = 0; l < PB_LANES; l += PB_VL) {
        vec all = (vec){0};
        for (int64_t y = 0; y < rh; y++) {
            vec s = (vec){0};
            for (int64_t i = 0; i < rw; i++) {
                const vec v = LOAD(x + y * row + i * PB_LANES + l);
                s += mask ? (vec)((ivec)v & *(const uivec *)(mask + (y * rw + i) * PB_LANES + l)) : v;
            }
            all += s;
        }
        STORE(total + l, all);
    }
}
