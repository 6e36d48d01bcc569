/* Packing of right operands into the panels of gemm.h. Copies only: exact. */
#ifndef FASTNN_GEMM_PACK_H
#define FASTNN_GEMM_PACK_H

#include "gemm.h"
#include "lanes.h"

/* One square of gemm_pack_transposed: `exist` columns and `steps` steps of it exist. */
static inline __attribute__((always_inline)) void gemm_pack_square(const float *corner, ptrdiff_t stride,
                                                                   ptrdiff_t exist, ptrdiff_t steps, ptrdiff_t width,
                                                                   float *packed) {
    vec square[FNN_LANES];
#pragma GCC unroll 16
    for (int i = 0; i < FNN_LANES; i++)
        square[i] = i < exist ? vec_load_partial(corner + i * stride, steps) : vec_zero();
    vec_transpose(square);
#pragma GCC unroll 16
    for (int i = 0; i < FNN_LANES; i++)
        if (i < steps) vec_store(packed + i * width, square[i]);
}

/* packed[d][j] = source[j*stride + d], d < depth, j < columns <= width; zeros for j >= columns. In squares of FNN_LANES. */
static inline void gemm_pack_transposed(const float *source, ptrdiff_t stride, ptrdiff_t columns, ptrdiff_t depth,
                                        ptrdiff_t width, float *packed) {
    for (ptrdiff_t j = 0; j < width; j += FNN_LANES) {
        const ptrdiff_t exist = fnn_min(columns - j, FNN_LANES);
        ptrdiff_t d = 0;
        if (exist == FNN_LANES)
            for (; d + FNN_LANES <= depth; d += FNN_LANES)
                gemm_pack_square(source + j * stride + d, stride, FNN_LANES, FNN_LANES, width, packed + d * width + j);
        for (; d < depth; d += FNN_LANES)
            gemm_pack_square(source + j * stride + d, stride, exist, fnn_min(depth - d, FNN_LANES), width,
                             packed + d * width + j);
    }
}

/* packed[d][j] = source[d*stride + j], d < depth, j < columns <= width; zeros for j >= columns. */
static inline void gemm_pack_rows(const float *source, ptrdiff_t stride, ptrdiff_t columns, ptrdiff_t depth,
                                  ptrdiff_t width, float *packed) {
    for (ptrdiff_t d = 0; d < depth; d++) {
        for (ptrdiff_t j = 0; j < width; j += FNN_LANES) {
            const ptrdiff_t lanes = fnn_min(columns - j, FNN_LANES);
            vec_store(packed + d * width + j, load_lanes(source + d * stride + j, lanes));
        }
    }
}

/* This thread's share of packing all panels of gemm.h, whole depth, of source[j*depth + d], j < columns, d < depth. */
static inline void gemm_pack_by_team(const float *source, ptrdiff_t columns, ptrdiff_t depth, float *packed,
                                     const struct fnn_team *team) {
    enum { STEPS = 256 };
    const ptrdiff_t blocks = fnn_ceil_div(depth, STEPS);
    const struct fnn_range range = fnn_share(gemm_panels(columns) * blocks, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        const ptrdiff_t j = i / blocks * FNN_GEMM_COLUMNS, d = i % blocks * STEPS;
        const ptrdiff_t count = fnn_min(columns - j, FNN_GEMM_COLUMNS), width = gemm_width(count);
        gemm_pack_transposed(source + j * depth + d, depth, count, fnn_min(STEPS, depth - d), width,
                             packed + j * depth + d * width);
    }
}

#endif
