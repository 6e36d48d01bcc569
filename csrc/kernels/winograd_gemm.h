/* The register tile of Winograd's products, as that of gemm.h but for rows at one distance, whole vectors of columns and no
 * epilogue. A call makes `tiles` of them, one below the other: with 16 channels a call for each takes 8 % of the time.
 *
 *   m[i*m_stride + j] (+)= sum over runs t, steps d of v[t*run_stride + i*row_stride + d] * u[(t*depth + d)*columns + j]
 *
 * i < tiles*rows, rows <= FNN_GEMM_ROWS, j < columns <= FNN_GEMM_COLUMNS, columns a multiple of FNN_LANES. The sum runs over
 * t, then d, one fused multiply-add each: the same sum in whatever tile the element falls.
 *
 * While it runs it asks for what the next plane will need, a line or two a step: hardware prefetchers do not follow so many
 * short rows, and asking for everything at once stalls. With 256 channels this makes the products 1.4 times as fast.
 */
#ifndef FASTNN_WINOGRAD_GEMM_H
#define FASTNN_WINOGRAD_GEMM_H

#include "gemm.h"

struct winograd_gemm {
    const float *v, *u;
    float *m;
    ptrdiff_t row_stride, run_stride, m_stride;
    ptrdiff_t tiles, rows, columns, runs, depth; /* rows: of a tile */
    bool accumulate;
    /* Addresses of floats, which need not be in bounds: next_v + t*run_stride + 16*d is asked for at step d of run t of the
     * first tile, and next_u + (t*depth + d)*next_u_step; of each further one, next_v is `rows` rows on and next_u goes on. */
    uintptr_t next_v, next_u;
    ptrdiff_t next_u_step;
};

void FNN_FUNCTION(winograd_gemm)(const struct winograd_gemm *tile);

#endif
