/* Elementwise kernels over contiguous arrays of `count` floats. Parallel over blocks of BLOCK elements; every
 * element is computed by the same arithmetic wherever it stands, so bits do not depend on the team.
 * An output may be the same array as an input. */
#include "lanes.h"

enum { BLOCK = 1024 };

/* y = a + b, exact to one rounding */
void FNN_FUNCTION(add_forward)(const struct fnn_add_forward_args *args, const struct fnn_team *team) {
    struct fnn_range range;
    const bool stream = args->b != args->y && streams(args->a, args->y, args->count);
    for (struct fnn_work work = fnn_work(args->count, BLOCK, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin; i < range.end; i += FNN_LANES) {
            ptrdiff_t n = lanes_left(range.end - i);
            put_lanes(stream, args->y + i, vec_add(load_lanes(args->a + i, n), load_lanes(args->b + i, n)), n);
        }
    vec_fence();
}

/* y = max(x, 0), exact; a NaN stays NaN. */
void FNN_FUNCTION(relu_forward)(const struct fnn_relu_forward_args *args, const struct fnn_team *team) {
    struct fnn_range range;
    const bool stream = streams(args->x, args->y, args->count);
    for (struct fnn_work work = fnn_work(args->count, BLOCK, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin; i < range.end; i += FNN_LANES) {
            ptrdiff_t n = lanes_left(range.end - i);
            put_lanes(stream, args->y + i, vec_max(vec_zero(), load_lanes(args->x + i, n)), n);
        }
    vec_fence();
}

/* dx = 0 where y <= 0, else dy, exact: the output tells where the input was positive. dx may be dy or y. */
void FNN_FUNCTION(relu_backward)(const struct fnn_relu_backward_args *args, const struct fnn_team *team) {
    struct fnn_range range;
    const bool stream = args->y != args->dx && streams(args->dy, args->dx, args->count);
    for (struct fnn_work work = fnn_work(args->count, BLOCK, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin; i < range.end; i += FNN_LANES) {
            ptrdiff_t n = lanes_left(range.end - i);
            mask idle = vec_less_equal(load_lanes(args->y + i, n), vec_zero());
            put_lanes(stream, args->dx + i, vec_select(idle, vec_zero(), load_lanes(args->dy + i, n)), n);
        }
    vec_fence();
}
