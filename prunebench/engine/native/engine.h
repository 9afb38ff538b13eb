/* Shared types of the native engine: compressed weights, the program of a network, the kernel table.
 *
 * Every activation lies as vectors of 16 lanes, [row][channel][column][lane]. What the lanes are is the planner's
 * business: 16 images, or 16 regions of one image, or 4 regions of each of 4 images. A tap of a convolution is then a
 * whole aligned vector away, whatever the lanes are, so one kernel serves every batch size and every map. */
#ifndef PB_ENGINE_H
#define PB_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#define PB_LANES 16          /* on every ISA: a lane vector is one AVX-512 register, two AVX2, four NEON */
#define PB_MAX_OFFSET 65535u /* what a uint16 can name, in lane vectors */
#define PB_SLACK 4           /* elements that are allocated behind a weight's nonzeros */
#define PB_MAX_R 4           /* rows of a register tile */

/* Where a column of the weights lies in the input, in lane vectors: channel * plane + dh * ky * row + dw * kx. */
typedef struct {
    int64_t plane, row, dh, dw;
} pb_geometry;

/* A block: input channels [c0, c1) of one group, feeding the rows [r0, r1). */
typedef struct {
    uint32_t c0, c1, r0, r1;
    size_t cnt0, at0;    /* where its row counts and its nonzeros start */
    uint8_t first, last; /* first block of its rows: starts from bias and residual; last: applies the ReLU */
} pb_block;

/* Compressed weights, block after block, row after row in a block: 4 bytes of value, 2 of offset per nonzero, and 2 of
 * count per row and block. */
typedef struct {
    uint32_t rows, chans, groups, kh, kw, nblk; /* chans: per group */
    uint32_t widest;                            /* channels of the widest block */
    size_t nnz, bytes;
    pb_block *blk;
    uint16_t *cnt;
    uint16_t *col; /* offsets in the geometry `geo` */
    float *val;
    pb_geometry geo;
} pb_weights;

/* One register tile of R x Q lane vectors, kept in registers over the nonzeros of a row, for one row after the other. */
typedef struct {
    const float *x;
    const uint16_t *col, *cnt;
    const float *val;
    uint32_t rows;
    float *y;
    const float *add; /* NULL, or what is added, at the first block: it may be y itself */
    const float *bias;                 /* NULL: zero */
    ptrdiff_t x_step, y_step, add_step; /* floats between the R rows of the tile */
    ptrdiff_t y_row, add_row;           /* floats between output channels */
    float hi;                           /* upper clamp; relu: lower clamp at 0 */
    int first, last, relu, clamp;
} pb_tile;
typedef void (*pb_tile_fn)(const pb_tile *);

enum { PB_COPY, PB_RELU, PB_RELU6, PB_HARDSWISH, PB_HARDSIGMOID, PB_SIGMOID, PB_SILU, PB_LEAKY, PB_ADD, PB_MUL, PB_AFFINE, PB_FUNCTIONS };

#define PB_MOVE_BLOCK 33 /* numbers of a block of a move */
#define PB_MOVE_PAIR 20  /* and of a pair */

typedef struct {
    const char *name;
    int maxq[PB_MAX_R + 1];                 /* widest tile for each R, in lane vectors; 0: none */
    pb_tile_fn *tile[3][PB_MAX_R + 1];      /* tile[column stride 1 or 2][R][Q] */
    /* y[i] = f(x[i]) over n lane vectors; b: second operand or NULL (one vector for all of them when b_step is 0) */
    void (*map)(int fn, const float *x, const float *b, ptrdiff_t b_step, float *y, int64_t n, float p0, float p1);
    /* entries (row, column, source, mask) of a halo, for `chans` channels from `base` on: mask ? source : fill */
    void (*halo)(float *base, int64_t chans, ptrdiff_t chan, ptrdiff_t row, const int32_t *entry, int64_t entries,
                 const uint32_t *mask, float fill);
    /* to[k] = table[k] < 0 ? fill : from[table[k]] */
    void (*gather)(float *to, const float *from, const int32_t *table, int64_t n, float fill);
    /* blocks of (count, src[16], dst[16]): to[dst[i] + l] = src[l] < 0 ? fill : from[src[l] + i] for i < count */
    void (*transpose)(float *to, const float *from, const int32_t *block, int64_t blocks, float fill);
    /* pairs of (dst, src, mask, first, lane[16]): to[dst + l] = from[src + lane[l]] for the lanes l of the mask; the others
     * hold `fill` at a vector's first pair */
    void (*permute)(float *to, const float *from, const int32_t *pair, int64_t pairs, float fill);
    /* n neighbouring outputs of a pooling window; mult: a factor per lane and output, NULL: maximum */
    void (*window)(const float *x, float *y, int64_t n, int64_t kh, int64_t kw, ptrdiff_t ky, ptrdiff_t kx, ptrdiff_t sx,
                   const float *mult);
    /* total = sum over rh rows of rw lane vectors, each masked (mask NULL: none) */
    void (*sum)(const float *x, ptrdiff_t row, const uint32_t *mask, int64_t rh, int64_t rw, float *total);
    /* sum over n nonzeros of val[k] * x[col[k]]; reads, but doesn't use, up to PB_SLACK numbers behind col and val */
    float (*dot)(const uint16_t *col, const float *val, uint32_t n, const float *x);
    /* y[col[k]] += v * val[k] for n nonzeros; no col twice */
    void (*spread)(const uint16_t *col, const float *val, uint32_t n, float v, float *y);
} pb_isa;

extern const pb_isa pb_isa_scalar;
#if defined(__x86_64__)
extern const pb_isa pb_isa_avx2, pb_isa_avx512;
#elif defined(__aarch64__)
extern const pb_isa pb_isa_neon;
#endif
const pb_isa *pb_isa_best(void);
const pb_isa *pb_isa_find(const char *name); /* NULL: unknown, or this CPU lacks it */
const pb_isa *pb_isa_at(int i);              /* the i-th this CPU can run, NULL at the end */

/* weights.c; cb: channels to a block, 0 = choose */
uint32_t pb_block_channels(uint32_t rows, uint32_t chans, uint32_t taps, uint64_t nnz);
pb_weights *pb_weights_dense(const float *w, uint32_t rows, uint32_t chans, uint32_t kh, uint32_t kw, uint32_t groups,
                             uint32_t cb);
pb_weights *pb_weights_csr(const int64_t *indptr, const uint32_t *indices, const float *data, uint32_t rows,
                           uint32_t cols, uint32_t cb);
void pb_weights_free(pb_weights *);
int pb_geometry_fits(const pb_weights *, const pb_geometry *);
/* The offsets in another geometry: `to` may be w->col itself. The geometry must fit. */
void pb_offsets(const pb_weights *, const pb_geometry *, uint16_t *to);

typedef struct pb_team pb_team;
/* rows.c */
void pb_dot(const pb_isa *, const pb_weights *, const uint16_t *col, const float *x, float *y, const float *add, const float *bias,
            int relu, float hi, pb_team *team, int threads);
/* the same with weights packed by columns (one row of theirs for each input), skipping the inputs that are zero */
void pb_dot_columns(const pb_isa *, const pb_weights *, const uint16_t *col, const float *x, float *y, const float *add,
                    const float *bias, int relu, float hi);
void pb_rows(const int64_t *indptr, const uint32_t *indices, const float *data, int64_t rows, const float *x,
             int64_t n, float *y, const float *bias, int relu, int threads);
/* csr.c */
typedef struct {
    const void *indptr, *indices;
    int indptr_wide, indices_wide; /* int64 rather than int32 */
    const float *data, *x, *bias;
    float *y;
    int64_t rows, cols, nnz, n;
    int relu, threads;
} pb_csr;
/* 0; -1: `why` says what is wrong; -2: out of memory */
int pb_csr_product(const pb_csr *, const pb_isa *, char *why, size_t room);
/* pool.c */
typedef void (*pb_task)(void *ctx, int64_t task);
void pb_run(pb_task fn, void *ctx, int64_t tasks, int threads);
/* A team: threads that have come to work on one program. pb_share hands out the tasks of one operation,
 * the same part of them to the same thread each time; without a team (NULL) the caller does them alone. */
typedef void (*pb_leader)(void *ctx, pb_team *);
void pb_lead(pb_leader fn, void *ctx, int threads); /* fn(ctx, team) on one thread, up to threads - 1 others in the team */
void pb_share(pb_team *, pb_task fn, void *ctx, int64_t tasks);
int pb_cores(void);
void *pb_workspace(size_t bytes); /* this thread's own, 64-byte aligned, grown as needed; NULL: out of memory */
void *pb_arena(size_t bytes);     /* the same, another one: what a running program's values lie in */
void pb_pool_init(void);
/* roofs.c: GFLOP/s of FMAs with one vector operand in memory, this thread */
double pb_roof(size_t bytes, double seconds);

#endif
