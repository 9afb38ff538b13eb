/* A compiled network: values in one arena, operations on them, phases of operations that run group by group. */
#ifndef PB_PROGRAM_H
#define PB_PROGRAM_H

#include "engine.h"

enum { PB_VALUE_LANES, PB_VALUE_VECTOR, PB_VALUE_INPUT, PB_VALUE_OUTPUT, PB_VALUE_KINDS };

/* Lanes: float (row y, channel c, column x, lane l) is at off + ((y * row + c * cols + x) * 16 + l.
 * Vector (one image, no map): channel c is at off + c. Input and output: the caller's float32 arrays, (image, ...). */
typedef struct {
    int64_t kind;
    int64_t local;  /* inside a thread's own slot, not in the shared part of the arena */
    int64_t off;    /* floats; of an input or output: its number */
    int64_t group;  /* floats from one group of images to the next */
    int64_t groups;
    int64_t chans, rows, cols, row; /* row: lane vectors from one row to the next; of an input or output: rows = floats of an image */
} pb_value;
#define PB_VALUE_FIELDS 9
#define PB_FAR ((int64_t)1 << 40) /* floats: no arena, offset or map is larger, so that sums of them don't overflow */

enum { PB_OP_CONV, PB_OP_DOT, PB_OP_HALO, PB_OP_MOVE, PB_OP_WINDOW, PB_OP_SUM, PB_OP_MAP, PB_OP_KINDS };

typedef struct {
    int64_t y, x;
} pb_at;

/* y = clamp(W x + bias + add) over a rh x rw map. */
typedef struct {
    const pb_weights *w;
    const uint16_t *col; /* offsets in the geometry `geo` */
    pb_geometry geo;
    const float *bias;   /* NULL: none */
    int64_t add;       /* value, or -1 */
    int64_t columns;   /* a dot product whose weights are packed by columns: each of their rows is an input's */
    pb_at from, to, plus; /* where output (0, 0) begins in the input, the output and the residual */
    int64_t rh, rw, sy, sx, relu, clamp;
    float hi;
    int64_t tiles, splits;
    const int32_t *tile;    /* tiles x (y, x, R, Q) */
    const uint32_t *split;  /* splits + 1 row numbers */
    size_t *start;          /* splits x blocks: first nonzero */
} pb_op_conv;

/* Lane vectors outside the map (or with lanes outside it) from those of the neighbouring lanes. */
typedef struct {
    int64_t entries, masks;
    const int32_t *entry; /* entries x (row, column, source in floats from the channel's first, mask) */
    const uint32_t *mask; /* masks x 16 */
    float fill;
} pb_op_halo;

/* out[d0 + y * dy + c * dc + k] = in[s0 + c * sc + table[y * n + k]], or `fill` where the table is negative.
 * Or, with blocks: out[d0 + c * dc + dst[i] + l] = in[s0 + c * sc + src[l] + i] for i < count and the 16 lanes l.
 * Or, with pairs: out[d0 + c * dc + dst + l] = in[s0 + c * sc + src + lane[l]] for the lanes l of a mask. */
typedef struct {
    int64_t dr, chans, n, dy, dc, sc, blocks, pairs;
    const int32_t *table;      /* dr x n; or blocks x (count, 16 src, 16 dst); or pairs x (dst, src, mask, first, 16 lanes) */
    const int64_t *src, *dst;  /* s0 and d0 of each group, floats from the value's (or the caller's array's) start */
    float fill;
    const int32_t *channel;    /* NULL, or the input's channel of each output channel */
} pb_op_move;

typedef struct {
    pb_at from, to;
    int64_t rh, rw, kh, kw, sy, sx, dh, dw;
    const float *mult; /* rh x rw x 16: average; NULL: maximum */
} pb_op_window;

/* Sum over a map, lane by lane, then over the `per` lanes of each image, times `scale`. */
typedef struct {
    pb_at from;
    int64_t rh, rw, images, per;
    float scale;
    const uint32_t *mask; /* rh x rw x 16, or NULL */
} pb_op_sum;

typedef struct {
    int64_t fn, in2; /* in2: value, or -1; a gate has one number per image and channel */
    pb_at from, plus, to;
    int64_t rh, rw, gate, images, per; /* gate: so many images of `per` lanes each */
    const float *scale, *shift; /* PB_AFFINE: one per channel */
    float p0;
} pb_op_map;

typedef struct {
    int64_t kind, in, out;
    union {
        pb_op_conv conv;
        pb_op_halo halo;
        pb_op_move move;
        pb_op_window window;
        pb_op_sum sum;
        pb_op_map map;
    } u;
} pb_op;

typedef struct {
    int64_t first, end, groups;
} pb_phase;

typedef struct {
    const pb_isa *isa;
    int64_t values, ops, phases, inputs, outputs, chunk;
    int64_t shared, slot; /* floats of the shared part of the arena, and of each thread's slot */
    pb_value *value;
    pb_op *op;
    pb_phase *phase;
} pb_program;

/* What an operation runs on. */
typedef struct {
    const pb_program *p;
    float *shared, *slot;
    const float *const *in; /* of this chunk */
    float *const *out;
    int64_t g; /* group within the phase */
    pb_team *team;
    int threads;
} pb_run_ctx;

static inline float *pb_address(const pb_run_ctx *c, const pb_value *v)
{
    return v->local ? c->slot + v->off : c->shared + v->off + c->g * v->group;
}
static inline float *pb_place(const pb_run_ctx *c, const pb_value *v, pb_at at)
{
    return pb_address(c, v) + (at.y * v->row + at.x) * PB_LANES;
}

/* program.c: 0, or -1 with `why` */
int pb_program_check(const pb_program *, char *why, size_t room);
/* Runs chunks of p->chunk images; ns: NULL, or nanoseconds added up per operation. 0, or -1 when out of memory */
int pb_program_run(const pb_program *, const float *const *in, float *const *out, int64_t chunks, int threads, double *ns);
/* one operation: op_conv.c, op_move.c, op_map.c */
void pb_do_conv(const pb_op *, const pb_run_ctx *);
void pb_do_dot(const pb_op *, const pb_run_ctx *);
void pb_do_halo(const pb_op *, const pb_run_ctx *);
void pb_do_move(const pb_op *, const pb_run_ctx *);
void pb_do_window(const pb_op *, const pb_run_ctx *);
void pb_do_sum(const pb_op *, const pb_run_ctx *);
void pb_do_map(const pb_op *, const pb_run_ctx *);
/* op_check.c: whether the operation stays inside its values: 0, or -1 with `why` */
int pb_op_check(const pb_program *, const pb_op *, int64_t groups, char *why, size_t room);

#endif
