/* What carries numbers from one layout to another; included by kernel_template.h, compiled per ISA. 8 bytes a number, read
 * once and written once: the roof is the bandwidth of the level that the map lies in.
 *
 * gather: any pattern, number by number: 4 cycles each with gather instructions, 10 % of L2's roof on a Zen 4; the plan
 * takes it for what neither of the others can do. transpose: 16 numbers of 16 rows. permute: lanes of some vectors into one. */
#include "engine.h"

#if defined(__AVX512F__)
#include <immintrin.h>
static void gather(float *to, const float *from, const int32_t *table, int64_t n, float fill)
{
    int64_t k = 0;
    for (; k + 16 <= n; k += 16) {
        const __m512i t = _mm512_loadu_si512(table + k);
        const __mmask16 m = _mm512_cmpge_epi32_mask(t, _mm512_setzero_si512());
        _mm512_storeu_ps(to + k, _mm512_mask_i32gather_ps(_mm512_set1_ps(fill), m, t, from, 4));
    }
    for (; k < n; k++) to[k] = table[k] < 0 ? fill : from[table[k]];
}

/* 16 x 16 in registers: four rounds of 16 shuffles, one a cycle, beside 16 loads and stores: 64 GB/s, half of L2's roof. */
static void transpose(float *to, const float *from, const int32_t *block, int64_t blocks, float fill)
{
    for (int64_t b = 0; b < blocks; b++, block += PB_MOVE_BLOCK) {
        const int count = block[0];
        const int32_t *src = block + 1, *dst = block + 17;
        const __mmask16 m = (__mmask16)((1u << count) - 1);
        __m512 r[16], t[16];
        UNROLL for (int l = 0; l < 16; l++)
            r[l] = src[l] < 0 ? _mm512_set1_ps(fill) : _mm512_maskz_loadu_ps(m, from + src[l]);
        UNROLL for (int l = 0; l < 16; l += 2) {
            t[l] = _mm512_unpacklo_ps(r[l], r[l + 1]);
            t[l + 1] = _mm512_unpackhi_ps(r[l], r[l + 1]);
        }
        UNROLL for (int l = 0; l < 16; l += 4) {
            UNROLL for (int k = 0; k < 2; k++) {
                r[l + 2 * k] = _mm512_shuffle_ps(t[l + k], t[l + k + 2], 0x44);
                r[l + 2 * k + 1] = _mm512_shuffle_ps(t[l + k], t[l + k + 2], 0xee);
            }
        }
        UNROLL for (int h = 0; h < 16; h += 8) {
            UNROLL for (int l = 0; l < 4; l++) {
                t[h + l] = _mm512_shuffle_f32x4(r[h + l], r[h + l + 4], 0x88);
                t[h + l + 4] = _mm512_shuffle_f32x4(r[h + l], r[h + l + 4], 0xdd);
            }
        }
        UNROLL for (int l = 0; l < 8; l++) {
            r[l] = _mm512_shuffle_f32x4(t[l], t[l + 8], 0x88);
            r[l + 8] = _mm512_shuffle_f32x4(t[l], t[l + 8], 0xdd);
        }
        if (count == 16) {
            UNROLL for (int i = 0; i < 16; i++) _mm512_storeu_ps(to + dst[i], r[i]);
        } else {
            for (int i = 0; i < count; i++) _mm512_storeu_ps(to + dst[i], r[i]);
        }
    }
}

/* Two lines read and one written for each pair: 62 GB/s of results read and written (64 x 32 x 32 into 4 x 4 regions). */
static void permute(float *to, const float *from, const int32_t *pair, int64_t pairs, float fill)
{
    __m512 acc = _mm512_set1_ps(fill);
    for (int64_t b = 0; b < pairs; b++, pair += PB_MOVE_PAIR) {
        if (pair[3]) acc = _mm512_set1_ps(fill);
        acc = _mm512_mask_permutexvar_ps(acc, (__mmask16)pair[2], _mm512_loadu_si512(pair + 4), _mm512_loadu_ps(from + pair[1]));
        _mm512_storeu_ps(to + pair[0], acc);
    }
}
#elif defined(__AVX2__)
#include <immintrin.h>
static void permute(float *to, const float *from, const int32_t *pair, int64_t pairs, float fill)
{
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256 acc[2] = {_mm256_set1_ps(fill), _mm256_set1_ps(fill)};
    for (int64_t b = 0; b < pairs; b++, pair += PB_MOVE_PAIR) {
        const __m256 low = _mm256_loadu_ps(from + pair[1]), high = _mm256_loadu_ps(from + pair[1] + 8);
        UNROLL for (int h = 0; h < 2; h++) {
            const __m256i index = _mm256_loadu_si256((const __m256i *)(pair + 4 + 8 * h));
            const __m256 got = _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, index), _mm256_permutevar8x32_ps(high, index),
                                                _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
            const __m256i use = _mm256_and_si256(_mm256_set1_epi32(pair[2] >> 8 * h), bit);
            const __m256 before = pair[3] ? _mm256_set1_ps(fill) : acc[h];
            acc[h] = _mm256_blendv_ps(before, got, _mm256_castsi256_ps(_mm256_cmpeq_epi32(use, bit)));
            _mm256_storeu_ps(to + pair[0] + 8 * h, acc[h]);
        }
    }
}

/* 8 x 8 at a time: three rounds of 8 shuffles. */
static void transpose(float *to, const float *from, const int32_t *block, int64_t blocks, float fill)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (int64_t b = 0; b < blocks; b++, block += PB_MOVE_BLOCK)
        for (int i = 0; i < block[0]; i += 8) {
            const int count = block[0] - i < 8 ? block[0] - i : 8;
            const __m256i m = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane);
            for (int h = 0; h < 16; h += 8) {
                const int32_t *src = block + 1 + h, *dst = block + 17 + i;
                __m256 r[8], t[8];
                UNROLL for (int l = 0; l < 8; l++)
                    r[l] = src[l] < 0 ? _mm256_set1_ps(fill) : _mm256_maskload_ps(from + src[l] + i, m);
                UNROLL for (int l = 0; l < 8; l += 2) {
                    t[l] = _mm256_unpacklo_ps(r[l], r[l + 1]);
                    t[l + 1] = _mm256_unpackhi_ps(r[l], r[l + 1]);
                }
                UNROLL for (int l = 0; l < 8; l += 4) {
                    UNROLL for (int k = 0; k < 2; k++) {
                        r[l + 2 * k] = _mm256_shuffle_ps(t[l + k], t[l + k + 2], 0x44);
                        r[l + 2 * k + 1] = _mm256_shuffle_ps(t[l + k], t[l + k + 2], 0xee);
                    }
                }
                UNROLL for (int l = 0; l < 4; l++) {
                    t[l] = _mm256_permute2f128_ps(r[l], r[l + 4], 0x20);
                    t[l + 4] = _mm256_permute2f128_ps(r[l], r[l + 4], 0x31);
                }
                for (int k = 0; k < count; k++) _mm256_storeu_ps(to + dst[k] + h, t[k]);
            }
        }
}
#else
static void permute(float *restrict to, const float *restrict from, const int32_t *restrict pair, int64_t pairs, float fill)
{
    for (int64_t b = 0; b < pairs; b++, pair += PB_MOVE_PAIR)
        for (int l = 0; l < PB_LANES; l++) {
            if (pair[2] >> l & 1) to[pair[0] + l] = from[pair[1] + pair[4 + l]];
            else if (pair[3]) to[pair[0] + l] = fill;
        }
}

static void transpose(float *restrict to, const float *restrict from, const int32_t *block, int64_t blocks, float fill)
{
    for (int64_t b = 0; b < blocks; b++, block += PB_MOVE_BLOCK)
        for (int l = 0; l < PB_LANES; l++)
            for (int i = 0; i < block[0]; i++)
                to[block[17 + i] + l] = block[1 + l] < 0 ? fill : from[block[1 + l] + i];
}
#endif

#if !defined(__AVX512F__)
static void gather(float *restrict to, const float *restrict from, const int32_t *restrict table, int64_t n, float fill)
{
    for (int64_t k = 0; k < n; k++) to[k] = table[k] < 0 ? fill : from[table[k]];
}
#endif
