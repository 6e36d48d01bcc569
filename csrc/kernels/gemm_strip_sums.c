/* The sums of gemm_strip_sums.h: one body for tiles of all sizes, and one for full height, whose rows stay in registers. */
#include "gemm_strip_sums.h"
#include "block_moments.h"
#include "gradient_sums.h"

/* One vector of columns, those from `at` on. */
FNN_INLINE void add_vector(const struct gemm_strip *strip, const vec *value, ptrdiff_t rows, ptrdiff_t seen,
                           ptrdiff_t at, ptrdiff_t lanes) {
    if (strip->moments)
        add_moments(value, rows, strip->moment_rows_seen + seen, strip->moments + at, strip->y_step, lanes);
    if (strip->gradient)
        add_gradient_sums(strip->gradient, value, rows, strip->gradient_at + seen * strip->y_step + at, strip->y_step,
                          strip->gradient_ahead, strip->gradient_channel + at, lanes, strip->sums);
}

void FNN_FUNCTION(gemm_strip_sums)(const struct gemm_strip *strip, const vec *value, ptrdiff_t rows, ptrdiff_t seen) {
    for (ptrdiff_t at = 0; at < strip->columns; at += FNN_LANES, value += rows) {
        const ptrdiff_t lanes = lanes_left(strip->columns - at);
        if (rows == FNN_GEMM_ROWS && lanes == FNN_LANES)
            add_vector(strip, value, FNN_GEMM_ROWS, seen, at, FNN_LANES);
        else
            add_vector(strip, value, rows, seen, at, lanes);
    }
}
