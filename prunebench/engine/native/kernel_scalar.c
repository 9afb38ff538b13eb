/* Portable C for the compiler's base target: 4 floats at a time in whatever registers that has, 8 of them a tile. */
#define PB_NAME scalar
#define PB_STRING "scalar"
#define PB_VL 4
#define PB_Q1 2
#define PB_Q2 1
#define PB_Q3 0
#define PB_Q4 0
#include "kernel_template.h"
