/* Which kernels this CPU can run: CPUID for the instructions, XGETBV for whether the system saves their registers. */
#include <string.h>

#include "engine.h"

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t saved_registers(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return 0; /* OSXSAVE */
    unsigned lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return ((uint64_t)hi << 32) | lo;
}

static int has_avx2(void)
{
    unsigned a, b, c, d;
    if ((saved_registers() & 0x6) != 0x6) return 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 12))) return 0; /* FMA */
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 5));
}

static int has_avx512(void)
{
    unsigned a, b, c, d;
    if (!has_avx2() || (saved_registers() & 0xe6) != 0xe6) return 0;
    const unsigned need = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31); /* F, DQ, BW, VL */
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & need) == need;
}
#endif

const pb_isa *pb_isa_at(int i)
{
    const pb_isa *can[4];
    int n = 0;
#if defined(__x86_64__)
    if (has_avx512()) can[n++] = &pb_isa_avx512;
    if (has_avx2()) can[n++] = &pb_isa_avx2;
#elif defined(__aarch64__)
    can[n++] = &pb_isa_neon;
#endif
    can[n++] = &pb_isa_scalar;
    return i < n ? can[i] : NULL;
}

const pb_isa *pb_isa_best(void) { return pb_isa_at(0); }

const pb_isa *pb_isa_find(const char *name)
{
    const pb_isa *isa;
    for (int i = 0; (isa = pb_isa_at(i)); i++)
        if (strcmp(isa->name, name) == 0) return isa;
    return NULL;
}
