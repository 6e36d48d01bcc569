/* Sums in the order of their terms: of a matrix's rows, and of the parts of a sum, [part][stride]. n terms: |error| <= gamma_n * the
 * sum of their magnitudes. */
#ifndef FASTNN_PARTIAL_SUMS_H
#define FASTNN_PARTIAL_SUMS_H

#include "lanes.h"

/* sums[k] (+)= sum over n < rows of dy[n*stride + k] for columns [begin, end), some vectors side by side: what one
 * line holds is used at once. */
static inline void sum_rows(const float *dy, ptrdiff_t stride, ptrdiff_t rows, struct fnn_range columns,
                            bool accumulate, float *sums) {
    enum { VECTORS = 4 };
    for (ptrdiff_t k = columns.begin; k < columns.end; k += VECTORS * FNN_LANES) {
        vec sum[VECTORS];
        for (int v = 0; v < VECTORS; v++) sum[v] = vec_zero();
        for (ptrdiff_t n = 0; n < rows; n++)
            for (int v = 0; v < VECTORS; v++) {
                const ptrdiff_t j = k + v * FNN_LANES;
                if (j < columns.end)
                    sum[v] = vec_add(sum[v], load_lanes(dy + n * stride + j, lanes_left(columns.end - j)));
            }
        for (int v = 0; v < VECTORS; v++) {
            const ptrdiff_t j = k + v * FNN_LANES, lanes = lanes_left(columns.end - j);
            if (j >= columns.end) break;
            store_lanes(sums + j, accumulate ? vec_add(load_lanes(sums + j, lanes), sum[v]) : sum[v], lanes);
        }
    }
}

/* total[i] = parts[0][i] + parts[1][i] + ... for elements [begin, end). */
static inline void add_parts(const float *parts, ptrdiff_t count, ptrdiff_t stride, struct fnn_range range,
                             float *total) {
    for (ptrdiff_t i = range.begin; i < range.end; i += FNN_LANES) {
        ptrdiff_t lanes = fnn_min(range.end - i, FNN_LANES);
        vec sum = vec_load_partial(parts + i, lanes);
        for (ptrdiff_t part = 1; part < count; part++)
            sum = vec_add(sum, vec_load_partial(parts + part * stride + i, lanes));
        vec_store_partial(total + i, sum, lanes);
    }
}

/* The same for parts of rows,columns, rows row_stride apart, and a total of columns,rows: rows [first, first + FNN_LANES) of the parts.
 * In squares of FNN_LANES. */
static inline void add_padded_parts_transposed(const float *parts, ptrdiff_t count, ptrdiff_t stride,
                                               ptrdiff_t row_stride, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t first,
                                               float *total) {
    const ptrdiff_t exist = fnn_min(rows - first, FNN_LANES);
    for (ptrdiff_t k = 0; k < columns; k += FNN_LANES) {
        const ptrdiff_t lanes = fnn_min(columns - k, FNN_LANES);
        vec square[FNN_LANES];
        for (ptrdiff_t i = 0; i < FNN_LANES; i++) {
            square[i] = vec_zero();
            for (ptrdiff_t part = 0; i < exist && part < count; part++)
                square[i] =
                    vec_add(square[i], vec_load_partial(parts + part * stride + (first + i) * row_stride + k, lanes));
        }
        vec_transpose(square);
        for (ptrdiff_t i = 0; i < lanes; i++) vec_store_partial(total + (k + i) * rows + first, square[i], exist);
    }
}

/* The same for rows one behind the other. */
static inline void add_parts_transposed(const float *parts, ptrdiff_t count, ptrdiff_t stride, ptrdiff_t rows,
                                        ptrdiff_t columns, ptrdiff_t first, float *total) {
    add_padded_parts_transposed(parts, count, stride, columns, rows, columns, first, total);
}

#endif
