/* Elementwise kernels over contiguous arrays of `count` floats. Parallel over blocks of BLOCK elements; every
 * element is computed by the same arithmetic wherever it stands, so bits do not depend on the team.
 * An output may be the same array as an input. */
#include "kernel.h"

enum { BLOCK = 1024 };

/* y = a + b, exact to one rounding */
void FNN_FUNCTION(add_forward)(const struct fnn_add_forward_args *args, const struct fnn_team *team) {
    struct fnn_range range = fnn_share_blocks(args->count, BLOCK, team);
    ptrdiff_t i = range.begin;
    for (; i + FNN_LANES <= range.end; i += FNN_LANES)
        vec_store(args->y + i, vec_add(vec_load(args->a + i), vec_load(args->b + i)));
    ptrdiff_t rest = range.end - i;
    if (rest > 0)
        vec_store_partial(args->y + i,
                          vec_add(vec_load_partial(args->a + i, rest), vec_load_partial(args->b + i, rest)), rest);
}

/* y = max(x, 0), exact; a NaN stays NaN. */
void FNN_FUNCTION(relu_forward)(const struct fnn_relu_forward_args *args, const struct fnn_team *team) {
    struct fnn_range range = fnn_share_blocks(args->count, BLOCK, team);
    ptrdiff_t i = range.begin;
    for (; i + FNN_LANES <= range.end; i += FNN_LANES)
        vec_store(args->y + i, vec_max(vec_zero(), vec_load(args->x + i)));
    ptrdiff_t rest = range.end - i;
    if (rest > 0) vec_store_partial(args->y + i, vec_max(vec_zero(), vec_load_partial(args->x + i, rest)), rest);
}

/* dx = 0 where y <= 0, else dy, exact: the output tells where the input was positive. dx may be dy. */
void FNN_FUNCTION(relu_backward)(const struct fnn_relu_backward_args *args, const struct fnn_team *team) {
    struct fnn_range range = fnn_share_blocks(args->count, BLOCK, team);
    ptrdiff_t i = range.begin;
    for (; i + FNN_LANES <= range.end; i += FNN_LANES) {
        mask idle = vec_less_equal(vec_load(args->y + i), vec_zero());
        vec_store(args->dx + i, vec_select(idle, vec_zero(), vec_load(args->dy + i)));
    }
    ptrdiff_t rest = range.end - i;
    if (rest > 0) {
        mask idle = vec_less_equal(vec_load_partial(args->y + i, rest), vec_zero());
        vec_store_partial(args->dx + i, vec_select(idle, vec_zero(), vec_load_partial(args->dy + i, rest)), rest);
    }
}
