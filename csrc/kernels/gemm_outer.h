/* The register tile of products that sum over rows of both operands (weight gradients):
 *
 *   y[i][j] (+)= sum over d of a[d*a_stride + i] * b[d][b_first + j],   i < row_count, j < columns
 *
 * a is read in place, row_count <= FNN_GEMM_ROWS neighbours at each step; b is a pointer for each step, so that rows of an image
 * are read in place too. Each b[d] + b_first has `columns` rounded up to whole vectors of readable floats; what stands
 * beyond `columns` does not matter.
 *
 * The sum runs over d and is then added to y at once, so that a long reduction cut into blocks of at most B steps
 * has |error| <= gamma_(B + blocks) * sum |a||b| (2*B on the scalar ISA). The same sum in whatever tile the element falls. */
#ifndef FASTNN_GEMM_OUTER_H
#define FASTNN_GEMM_OUTER_H

#include "gemm.h"

struct gemm_outer {
    const float *a;
    ptrdiff_t a_stride;
    const float *const *b; /* depth pointers */
    ptrdiff_t b_first;
    ptrdiff_t depth;
    ptrdiff_t row_count, columns;
    float *y; /* element (i, j) at y[i*y_stride + j] */
    ptrdiff_t y_stride;
    bool accumulate; /* y += the sum; else y = the sum */
    /* The address of a float, which need not be in bounds, or 0: next + d*next_stride is asked for at step d, for a product that
     * comes later. Hardware prefetchers do not follow short rows that lie far apart. */
    uintptr_t next;
    ptrdiff_t next_stride;
};

void FNN_FUNCTION(gemm_outer)(const struct gemm_outer *tile);

#endif
