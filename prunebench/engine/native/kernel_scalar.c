/* Portable C for the compiler's base target: 4 floats at a time in whatever registers that has, 8 of them a tile. */
#define PB_NAME scalar
#define PB_STRING "scalar"
#define PB_VL 4
#define PB_Q1 8
#define PB_Q2 4
#define PB_Q4 2
#include "kernel_template.h"
