/* y = a + b, a - b, a * b, a / b under NumPy's broadcasting rule, each correctly rounded.
 *
 * y is contiguous with `rank` axes of extents E; axes (rank, 3): for each axis, the outermost first, its extent and the
 * distance in elements between neighbours of a, and of b, along it: 0 where the operand is repeated. Along the last axis both
 * distances are 0 or 1. rank is at least 1. operation: 0 add, 1 subtract, 2 multiply, 3 divide.
 * y may be a or b where that operand is not repeated.
 *
 * Parallel over rows of the last axis, cut into blocks of BLOCK elements. */
#include "lanes.h"

enum { BLOCK = 4096, ADD = 0, SUBTRACT = 1, MULTIPLY = 2, DIVIDE = 3 };

FNN_INLINE vec combine(const int operation, vec a, vec b) {
    switch (operation) {
    case ADD: return vec_add(a, b);
    case SUBTRACT: return vec_sub(a, b);
    case MULTIPLY: return vec_mul(a, b);
    default: return vec_div(a, b);
    }
}

/* One stretch of a row; a_step, b_step: 0 or 1. */
FNN_INLINE void combine_row(const int operation, const int a_step, const int b_step, bool stream, const float *a,
                            const float *b, float *y, ptrdiff_t count) {
    vec first = vec_set1(a[0]), second = vec_set1(b[0]);
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(count - i);
        if (a_step) first = load_lanes(a + i, n);
        if (b_step) second = load_lanes(b + i, n);
        put_lanes(stream, y + i, combine(operation, first, second), n);
    }
}

FNN_INLINE void combine_steps(const int operation, ptrdiff_t a_step, ptrdiff_t b_step, bool stream, const float *a,
                              const float *b, float *y, ptrdiff_t count) {
    if (a_step && b_step)
        combine_row(operation, 1, 1, stream, a, b, y, count);
    else if (a_step)
        combine_row(operation, 1, 0, stream, a, b, y, count);
    else if (b_step)
        combine_row(operation, 0, 1, stream, a, b, y, count);
    else
        combine_row(operation, 0, 0, stream, a, b, y, count);
}

/* Axis i of the table. */
static inline ptrdiff_t extent(const union fnn_slot *axes, ptrdiff_t i) { return axes[3 * i].size; }
static inline ptrdiff_t a_stride(const union fnn_slot *axes, ptrdiff_t i) { return axes[3 * i + 1].size; }
static inline ptrdiff_t b_stride(const union fnn_slot *axes, ptrdiff_t i) { return axes[3 * i + 2].size; }

FNN_INLINE void combine_rows(const int operation, const struct fnn_arithmetic_args *args, struct fnn_range range,
                             ptrdiff_t blocks, bool stream) {
    const union fnn_slot *axes = args->axes;
    ptrdiff_t last = args->rank - 1, columns = extent(axes, last);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t row = i / blocks, begin = i % blocks * BLOCK, rest = row, a_at = 0, b_at = 0;
        for (ptrdiff_t axis = last - 1; axis >= 0 && rest; axis--) {
            ptrdiff_t position = rest % extent(axes, axis);
            rest /= extent(axes, axis);
            a_at += position * a_stride(axes, axis);
            b_at += position * b_stride(axes, axis);
        }
        ptrdiff_t a_step = a_stride(axes, last), b_step = b_stride(axes, last);
        combine_steps(operation, a_step, b_step, stream, args->a + a_at + begin * a_step,
                      args->b + b_at + begin * b_step, args->y + row * columns + begin,
                      fnn_min(BLOCK, columns - begin));
    }
}

void FNN_FUNCTION(arithmetic)(const struct fnn_arithmetic_args *args, const struct fnn_team *team) {
    ptrdiff_t rows = 1, blocks = fnn_ceil_div(extent(args->axes, args->rank - 1), BLOCK);
    for (ptrdiff_t axis = 0; axis < args->rank - 1; axis++) rows *= extent(args->axes, axis);
    const ptrdiff_t columns = extent(args->axes, args->rank - 1);
    const bool stream = columns % FNN_LANES == 0 && args->b != args->y && streams(args->a, args->y, rows * columns);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(rows * blocks, 1, team); fnn_take(&work, &range);) {
        switch (args->operation) {
        case ADD: combine_rows(ADD, args, range, blocks, stream); break;
        case SUBTRACT: combine_rows(SUBTRACT, args, range, blocks, stream); break;
        case MULTIPLY: combine_rows(MULTIPLY, args, range, blocks, stream); break;
        default: combine_rows(DIVIDE, args, range, blocks, stream); break;
        }
    }
    vec_fence();
}
