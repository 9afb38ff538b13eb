/* A linear layer at batch 1, by rows or by columns; included by kernel_template.h, compiled per ISA.
 *
 * 6 bytes and 2 FLOP per nonzero. One load each of value, offset and input would make the load ports bind, one nonzero a
 * cycle on a core with three of them: so four values and four offsets come with a load each, 1.5 loads a nonzero.
 * Measured on Zen 4, 784 -> 300 at 90 %: 0.27 ns a nonzero, one a cycle (it was 0.31): two vector-unit loads a cycle and
 * the mispredicted end of each row bind now: 1024 x 1024 at 90 % 0.27 ns with AVX-512, 0.35 with AVX2, a nonzero a cycle
 * being the roof. Gather instructions: 0.48 ns. */
#include <string.h>

typedef float vec4 __attribute__((vector_size(16)));
typedef float uvec4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t ivec4 __attribute__((vector_size(16)));

INLINE vec4 four(uint64_t offsets, const float *x)
{
    return (vec4){x[offsets & 0xffff], x[offsets >> 16 & 0xffff], x[offsets >> 32 & 0xffff], x[offsets >> 48]};
}

static float dot(const uint16_t *col, const float *val, uint32_t n, const float *x)
{
    static const ivec4 some[4] = {{0, 0, 0, 0}, {-1, 0, 0, 0}, {-1, -1, 0, 0}, {-1, -1, -1, 0}};
    vec4 s = {0}, t = {0};
    uint64_t c[2];
    uint32_t k = 0;
    for (; k + 8 <= n; k += 8) {
        memcpy(c, col + k, 16);
        s += *(const uvec4 *)(val + k) * four(c[0], x);
        t += *(const uvec4 *)(val + k + 4) * four(c[1], x);
    }
    if (k + 4 <= n) {
        memcpy(c, col + k, 8);
        s += *(const uvec4 *)(val + k) * four(c[0], x);
        k += 4;
    }
    /* the last ones under a mask, not in a loop whose end nobody foresees; what is masked may be NaN */
    const uint32_t rest = n - k;
    memcpy(c, col + k, 8);
    const vec4 last = *(const uvec4 *)(val + k) * four(c[0] & ((1ull << rest * 16) - 1), x);
    t += (vec4)((ivec4)last & some[rest]);
    s += t;
    return (s[0] + s[1]) + (s[2] + s[3]);
}

/* A column: 2.25 loads and a store per nonzero, so inputs must be zero for it to be worth while: one in two about. The roof
 * is a store a cycle; 1024 x 1024 with a quarter of the inputs: 0.52 ns a nonzero, 58 % of it: a column's end is mispredicted. */
static void spread(const uint16_t *restrict col, const float *restrict val, uint32_t n, float v, float *y)
{
    uint32_t k = 0;
    for (; k + 4 <= n; k += 4) { /* all four before any is stored: they are four different outputs */
        uint64_t c;
        memcpy(&c, col + k, 8);
        float *const p = y + (c & 0xffff), *const q = y + (c >> 16 & 0xffff), *const r = y + (c >> 32 & 0xffff), *const s = y + (c >> 48);
        const float a = *p + v * val[k], b = *q + v * val[k + 1], d = *r + v * val[k + 2], e = *s + v * val[k + 3];
        *p = a, *q = b, *r = d, *s = e;
    }
    for (; k < n; k++) y[col[k]] += v * val[k];
}
