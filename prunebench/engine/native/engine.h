/* Shared types of the native engine: the packed sparse matrix, the plan of one convolution, the kernel table.
 *
 * Everything the engine computes is one operation: a sparse matrix (rows = output channels, columns = input channel
 * x tap) times a buffer in which every column is a run of floats. A matrix product, a linear layer and a convolution
 * differ only in how that buffer is filled (pack_template.h) and in the offset of each column (plan.c). */
#ifndef PB_ENGINE_H
#define PB_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#define PB_LANES 16      /* images side by side in the "lanes" layout, on every ISA */
#define PB_MAX_BLOCK 65536u /* columns of a block: what a uint16 can name */

/* A block: input channels [c0, c1) of one group, feeding the rows [r0, r1). */
typedef struct {
    uint32_t c0, c1, r0, r1;
    size_t ptr0;        /* where its row pointers start in pb_sparse.ptr */
    uint8_t first, last; /* first block of its rows: starts from the bias; last: applies the ReLU */
} pb_block;

/* Compressed weights, block after block, row after row in a block: 6 bytes per nonzero. */
typedef struct {
    uint32_t rows, chans, groups, kk, nblk; /* chans: per group; kk: taps of the kernel */
    uint32_t max_cols;                      /* columns of the widest block */
    size_t nnz, bytes;
    pb_block *blk;
    uint32_t *ptr; /* rows of the block + 1 entries per block */
    uint16_t *col; /* (channel - c0) * kk + tap */
    float *val;
} pb_sparse;

/* One register tile: for each row, R x Q vectors are kept in registers over the row's nonzeros. */
typedef struct {
    const float *x;
    ptrdiff_t x_step; /* floats between the R rows of the tile */
    const uint32_t *tab;
    const uint16_t *col;
    const float *val;
    const uint32_t *ptr;
    uint32_t rows;
    float *y;
    ptrdiff_t y_row, y_step; /* floats between output rows, and between the R rows of the tile */
    const float *bias;       /* NULL: zero */
    int first, relu;
} pb_tile;
typedef void (*pb_tile_fn)(const pb_tile *);

/* A strided float32 image batch. Strides in floats. */
typedef struct {
    float *p;
    ptrdiff_t n, c, h, w;
} pb_view;

struct pb_plan;
typedef struct {
    int32_t src;
    int32_t len;
} pb_run_of;
/* The part of the input one task needs: images [i0, i1), channels [c0, c1), output pixels from (y0, x0), my rows. */
typedef struct {
    const struct pb_plan *plan;
    pb_view src;
    int64_t i0, i1, c0, c1, y0, x0, my;
    pb_run_of *runs; /* room for one per buffer column */
} pb_pack;

typedef struct {
    const char *name;
    int vl;           /* floats per vector */
    int maxq[5];      /* widest tile for R = 1, 2, 4 (0 elsewhere) */
    pb_tile_fn *tile[5]; /* tile[R][Q] */
    void (*pack)(const pb_pack *, float *buf);
    void (*copy_out)(const float *src, float *dst, const float *add, ptrdiff_t step, int64_t count, int lanes, int relu);
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

typedef struct pb_plan {
    const pb_isa *isa;
    uint32_t groups, max_cols; /* of the matrix it was made for */
    int64_t n, cin, h, w, cout, oh, ow;
    int64_t kh, kw, sh, sw, dh, dw;
    int lanes;              /* PB_LANES, or 0: vectors run along the pixels */
    int64_t nb, my, mx;     /* images, output rows and output columns of a task */
    int tr, tp;             /* lanes layout: register tile in rows x pixels */
    int64_t splits;         /* output channels are dealt in this many parts */
    uint32_t *split_at;     /* splits + 1 row numbers */
    int64_t nplane, pr, pc; /* planes of a channel, their rows and columns */
    int64_t *poy, *pox;     /* origin of each plane in the padded image */
    size_t plane, chan;     /* floats */
    size_t buf, scratch;    /* floats, slack included */
    uint32_t *tab;          /* offset of each column of a block, in floats */
    int32_t *ymap, *xmap;   /* padded coordinate -> source coordinate, -1 = zero */
    int64_t ny, nx;         /* their lengths */
} pb_plan;

typedef struct {
    int64_t n, h, w, oh, ow, kh, kw, sh, sw, dh, dw;
    const int32_t *ymap, *xmap;
    int64_t ny, nx;
    int lanes, threads;
} pb_geometry;

/* sparse.c; cb: channels to a block, 0 = choose */
uint32_t pb_block_channels(uint32_t rows, uint32_t chans, uint32_t kk, uint64_t nnz);
pb_sparse *pb_sparse_dense(const float *w, uint32_t rows, uint32_t chans, uint32_t kk, uint32_t groups, uint32_t cb);
pb_sparse *pb_sparse_csr(const int64_t *indptr, const uint32_t *indices, const float *data, uint32_t rows,
                         uint32_t cols, uint32_t cb);
void pb_sparse_free(pb_sparse *);
/* plan.c: NULL when out of memory or when the sizes overflow */
pb_plan *pb_plan_new(const pb_sparse *, const pb_geometry *, const pb_isa *);
void pb_plan_free(pb_plan *);
/* conv.c: y = act(conv(x) + bias + add); add: NULL, or laid out as y. 0, or -1 when out of memory */
int pb_conv(const pb_sparse *, const pb_plan *, pb_view x, pb_view y, const float *bias, const float *add, int relu,
            int threads);
/* rows.c */
void pb_dot(const pb_sparse *, const float *x, ptrdiff_t x_step, float *y, ptrdiff_t y_step, const float *bias,
            int relu, int threads);
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
int pb_cores(void);
void *pb_workspace(size_t bytes); /* this thread's own, 64-byte aligned, grown as needed; NULL: out of memory */
void pb_pool_init(void);

#endif
