/* AVX2 + FMA: 16 registers of 8 floats; 12 hold a tile, one the weight. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define PB_NAME avx2
#define PB_STRING "avx2"
#define PB_VL 8
#define PB_Q1 6
#define PB_Q2 3
#define PB_Q3 2
#define PB_Q4 1
#include "kernel_template.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int pb_no_avx2;
#endif
