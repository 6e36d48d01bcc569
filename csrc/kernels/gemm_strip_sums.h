/* What batch normalisations are told of a tile of gemm_strip.h: its rows are added to moments (block_moments.h), or to the sums of
 * a gradient (gradient_sums.h), as the strip says.
 *
 * value: the tile, a vector of columns after the other, `rows` vectors each   seen: rows of the strip before it */
#ifndef FASTNN_GEMM_STRIP_SUMS_H
#define FASTNN_GEMM_STRIP_SUMS_H

#include "gemm_strip.h"

void FNN_FUNCTION(gemm_strip_sums)(const struct gemm_strip *strip, const vec *value, ptrdiff_t rows, ptrdiff_t seen);

#endif
