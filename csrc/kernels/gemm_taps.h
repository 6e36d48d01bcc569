/* The register tile of products that sum over pixels, one operand found tap by tap (weight gradients of few channels):
 *
 *   y[i][j] (+)= sum over d of a(d, i) * b[d*b_step + j],   i < tap_count, j < columns
 *   a(d, i) = a[d][taps[i]], or 1 for the last i with `ones`
 *
 * a: depth pointers   taps: tap_count <= FNN_GEMM_ROWS   y: element (i, j) at y[i*y_stride + j]   columns <= FNN_GEMM_COLUMNS. Whole vectors of
 * b are read and of y written: what stands beyond `columns` does not matter. No aliasing.
 *
 * The sum over d is then added to y at once, so that a long reduction cut into blocks of at most B steps has
 * |error| <= gamma_(B + 1 + blocks) * sum |a||b| (2*B on the scalar ISA). Where a tile has too few sums to keep the units busy, even and odd
 * steps are summed apart: the width of the panel decides it, so an element's sum is the same in whatever tile it falls. */
#ifndef FASTNN_GEMM_TAPS_H
#define FASTNN_GEMM_TAPS_H

#include "gemm.h"

struct gemm_taps {
    const float *const *a;
    const int32_t *taps;
    const float *b;
    ptrdiff_t b_step;
    ptrdiff_t depth;
    ptrdiff_t tap_count, columns;
    float *y;
    ptrdiff_t y_stride;
    bool ones;
    bool accumulate; /* y += the sum; else y = the sum */
    uintptr_t fetch;  /* at step d the line at fetch + d*fetch_step is asked for; need not be in bounds */
    ptrdiff_t fetch_step; /* bytes */
};

void FNN_FUNCTION(gemm_taps)(const struct gemm_taps *tile);

#endif
