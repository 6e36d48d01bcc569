/* What every kernel file includes: arguments, team, SIMD vocabulary, and how to share work.
 *
 * The folder is the build policy: each file here is compiled once per ISA with FNN_ISA_NAME set to its
 * name, and FNN_FUNCTION(relu_forward) is then fnn_relu_forward__avx2 and so on. */
#ifndef FASTNN_KERNEL_H
#define FASTNN_KERNEL_H

#include "../fastnn.h"
#include "../simd/simd.h"

#define FNN_PASTE(a, b, c) a##b##c
#define FNN_EXPAND(a, b, c) FNN_PASTE(a, b, c)
#define FNN_FUNCTION(name) FNN_EXPAND(fnn_##name, __, FNN_ISA_NAME)

/* Every kernel of kernels.def has this prototype; a definition that differs does not compile. */
#define FNN_KERNEL(name, fields) \
    void FNN_FUNCTION(name)(const struct fnn_##name##_args *args, const struct fnn_team *team);
#include "../kernels.def"
#undef FNN_KERNEL

static inline ptrdiff_t fnn_min(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static inline ptrdiff_t fnn_max(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
static inline ptrdiff_t fnn_ceil_div(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }

/* This thread's share of `count` things of which any split is allowed: a contiguous range, of small works or of those that the
 * team cuts into few things; others are taken piece by piece (fnn_work). Which thread does a thing must not change its bits,
 * so a sum is never cut by a share: sums are cut into blocks by shape, and the *blocks* are shared. */
static inline struct fnn_range fnn_share(ptrdiff_t count, const struct fnn_team *team) {
    ptrdiff_t each = count / team->size, extra = count % team->size, rank = team->rank;
    ptrdiff_t begin = rank * each + fnn_min(rank, extra);
    return (struct fnn_range){begin, begin + each + (rank < extra)};
}

/* As fnn_share, in whole blocks of `block` things but for the last: threads do not share a cache line, and
 * a lane's neighbours are the same for every team size. */
static inline struct fnn_range fnn_share_blocks(ptrdiff_t count, ptrdiff_t block, const struct fnn_team *team) {
    struct fnn_range blocks = fnn_share(fnn_ceil_div(count, block), team);
    return (struct fnn_range){fnn_min(blocks.begin * block, count), fnn_min(blocks.end * block, count)};
}

/* The block of a work (fnn_work) whose things come in units of `unit` that are dear to cut: whole units where there are enough of
 * them for threads to help each other, else one block a thread. */
static inline ptrdiff_t fnn_whole_units(ptrdiff_t count, ptrdiff_t unit, const struct fnn_team *team) {
    enum { ENOUGH = 4 }; /* a thread */
    return count >= ENOUGH * unit * team->size ? unit : fnn_max(fnn_ceil_div(count, team->size), 1);
}

#endif
