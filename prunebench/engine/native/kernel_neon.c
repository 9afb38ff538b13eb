/* NEON (always there on aarch64): 32 registers of 4 floats; 24 hold a tile, the rest weights and loads. */
#if defined(__aarch64__)
#define PB_NAME neon
#define PB_STRING "neon"
#define PB_VL 4
#define PB_Q1 6
#define PB_Q2 3
#define PB_Q3 2
#define PB_Q4 1
#include "kernel_template.h"
#else
typedef int pb_no_neon;
#endif
