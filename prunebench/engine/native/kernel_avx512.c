/* AVX-512: 32 registers of 16 floats; 28 hold a tile, one the weight. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,fma,prefer-vector-width=512")
#endif
#define PB_NAME avx512
#define PB_STRING "avx512"
#define PB_VL 16
#define PB_Q1 16
#define PB_Q2 10
#define PB_Q3 7
#define PB_Q4 6
#include "kernel_template.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int pb_no_avx512;
#endif
