/* Packing of right operands into the panels of gemm.h. Copies only: exact. */
#ifndef FASTNN_GEMM_PACK_H
#define FASTNN_GEMM_PACK_H

#include "gemm.h"

/* packed[d][j] = source[j*stride + d], d < depth, j < columns <= width; zeros for j >= columns. In squares of FNN_LANES. */
static inline void gemm_pack_transposed(const float *source, ptrdiff_t stride, ptrdiff_t columns, ptrdiff_t depth,
                                        ptrdiff_t width, float *packed) {
    for (ptrdiff_t j = 0; j < width; j += FNN_LANES) {
        for (ptrdiff_t d = 0; d < depth; d += FNN_LANES) {
            ptrdiff_t steps = fnn_min(depth - d, FNN_LANES), exist = fnn_min(columns - j, FNN_LANES);
            const float *corner = source + j * stride + d;
            vec square[FNN_LANES];
#pragma GCC unroll 16
            for (int i = 0; i < FNN_LANES; i++)
                square[i] = i < exist ? vec_load_partial(corner + i * stride, steps) : vec_zero();
            vec_transpose(square);
#pragma GCC unroll 16
            for (int i = 0; i < FNN_LANES; i++)
                if (i < steps) vec_store(packed + (d + i) * width + j, square[i]);
        }
    }
}

/* packed[d][j] = source[d*stride + j], d < depth, j < columns <= width; zeros for j >= columns. */
static inline void gemm_pack_rows(const float *source, ptrdiff_t stride, ptrdiff_t columns, ptrdiff_t depth,
                                  ptrdiff_t width, float *packed) {
    for (ptrdiff_t d = 0; d < depth; d++) {
        for (ptrdiff_t j = 0; j < width; j += FNN_LANES) {
            ptrdiff_t lanes = fnn_min(columns - j, FNN_LANES);
            vec_store(packed + d * width + j, vec_load_partial(source + d * stride + j, lanes));
        }
    }
}

#endif
