/* Gradient of the penalty l1 * sum |w| + l2 * sum w^2 on a parameter, added to the gradient of the loss. */
#include "lanes.h"

enum { BLOCK = 1024 };

/* y = gradient + l1 * sign(parameter) + 2 * l2 * parameter, sign(0) = 0; all arrays `count` floats, y may be gradient.
 * Error: two roundings of the sum, one of each of its terms, relative eps = 2^-24. Parallel over blocks. */
void FNN_FUNCTION(penalty_gradient)(const struct fnn_penalty_gradient_args *args, const struct fnn_team *team) {
    const vec up = vec_set1((float)args->l1), down = vec_set1((float)-args->l1),
              slope = vec_set1((float)(2 * args->l2));
    struct fnn_range range = fnn_share_blocks(args->count, BLOCK, team);
    for (ptrdiff_t i = range.begin; i < range.end; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(range.end - i);
        vec parameter = load_lanes(args->parameter + i, n);
        vec sign = vec_select(vec_less_equal(parameter, vec_zero()), vec_zero(), up);
        sign = vec_select(vec_less(parameter, vec_zero()), down, sign);
        vec gradient = vec_add(load_lanes(args->gradient + i, n), sign);
        store_lanes(args->y + i, vec_fma(slope, parameter, gradient), n);
    }
}
