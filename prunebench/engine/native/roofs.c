/* What this machine can give: FMAs with one vector operand in memory, the work of a sparse kernel without its weights. */
#include <stdlib.h>
#include <time.h>

#include "engine.h"

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The widest one-row tile over consecutive lane vectors: one "nonzero" per tile width, read from `bytes` of memory. The
 * best of many short passes, as other work on the machine only ever slows one down. */
double pb_roof(size_t bytes, double seconds)
{
    const pb_isa *isa = pb_isa_best();
    const int q = isa->maxq[1];
    const uint32_t count = (uint32_t)(bytes / (size_t)(q * PB_LANES * 4));
    if (!count || count * (uint32_t)q > PB_MAX_OFFSET * 16u) return 0;
    const uint32_t wide = PB_MAX_OFFSET / (uint32_t)q, rows = (count + wide - 1) / wide; /* a row's offsets are 16 bits */
    const uint32_t per = (count + rows - 1) / rows;
    float *x = NULL, y[16 * PB_LANES] = {0};
    uint16_t *col = malloc(per * sizeof *col);
    float *val = malloc(per * sizeof *val);
    if (posix_memalign((void **)&x, 64, (size_t)(per + 1) * rows * q * PB_LANES * 4)) x = NULL;
    double best = 0;
    if (x && col && val) {
        for (size_t i = 0; i < (size_t)(per + 1) * rows * q * PB_LANES; i++) x[i] = 1.0f;
        for (uint32_t i = 0; i < per; i++) col[i] = (uint16_t)(i * (uint32_t)q), val[i] = 1e-3f;
        const uint16_t n = (uint16_t)per;
        pb_tile t = {.col = col, .cnt = &n, .val = val, .rows = 1, .y = y, .first = 1};
        const double until = seconds_now() + seconds;
        const int reps = (int)(2000000 / ((size_t)per * rows * q)) + 1;
        while (seconds_now() < until) {
            const double from = seconds_now();
            for (int k = 0; k < reps; k++)
                for (uint32_t r = 0; r < rows; r++) {
                    t.x = x + (size_t)r * per * q * PB_LANES;
                    isa->tile[1][1][q](&t);
                }
            const double g = 2.0 * PB_LANES * q * per * rows * reps / (seconds_now() - from) * 1e-9;
            if (g > best) best = g;
        }
    }
    free(x), free(col), free(val);
    return best;
}
