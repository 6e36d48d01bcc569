/* Elementwise losses backward: dx = dloss * scale * weight * d loss / d x, formulas in pointwise_loss.h.
 *
 * dloss (count) for reduction 0, else (1); x, target, dx (count); weight, pos_weight (count) or null. dx may be x.
 * |dx - exact| <= 10 eps |dloss * scale * weight| * (sum of the magnitudes of the slope's terms), eps = 2^-24.
 * Parallel over blocks of 256 elements. */
#include "pointwise_loss.h"

typedef vec slope_function(const struct loss_settings *p, vec x, vec target, vec pos_weight);

FNN_INLINE vec squared_error(const struct loss_settings *p, vec x, vec target, vec pos_weight) {
    (void)p, (void)pos_weight;
    vec d = vec_sub(x, target);
    return vec_add(d, d);
}

FNN_INLINE vec absolute_error(const struct loss_settings *p, vec x, vec target, vec pos_weight) {
    (void)p, (void)pos_weight;
    const vec one = vec_set1(1.0f), zero = vec_zero();
    vec d = vec_sub(x, target);
    vec sign = vec_select(vec_less(d, zero), vec_neg(one), vec_select(vec_less(zero, d), one, zero));
    return vec_select(vec_is_nan(d), d, sign);
}

FNN_INLINE vec huber(const struct loss_settings *p, vec x, vec target, vec pos_weight) {
    (void)pos_weight;
    return vec_mul(p->b, vec_min(p->a, vec_max(vec_neg(p->a), vec_sub(x, target))));
}

FNN_INLINE vec cross_entropy(const struct loss_settings *p, vec x, vec target, vec pos_weight) {
    (void)p, (void)pos_weight;
    vec variance = vec_max(vec_set1(1e-12f), vec_mul(x, vec_sub(vec_set1(1.0f), x)));
    return vec_div(vec_sub(x, target), variance);
}

FNN_INLINE vec logit_entropy(const struct loss_settings *p, vec x, vec target, vec pos_weight) {
    (void)p;
    vec miss = vec_mul(vec_sub(vec_set1(1.0f), target), vec_sigmoid(x));
    return vec_fnma(vec_mul(pos_weight, target), vec_sigmoid(vec_neg(x)), miss);
}

FNN_INLINE vec divergence(const struct loss_settings *p, vec x, vec target, vec pos_weight) {
    (void)p, (void)x, (void)pos_weight;
    return vec_sub(vec_zero(), vec_max(vec_zero(), target));
}

FNN_INLINE vec log_divergence(const struct loss_settings *p, vec x, vec target, vec pos_weight) {
    (void)p, (void)x, (void)pos_weight;
    return vec_neg(vec_exp(target));
}

FNN_INLINE void map(slope_function *function, const struct fnn_pointwise_loss_backward_args *args,
                    const struct fnn_team *team) {
    const struct loss_settings settings = {vec_set1((float)args->a), vec_set1((float)args->b)};
    const bool each = args->reduction == LOSS_REDUCTION_NONE;
    const vec scale = vec_set1((float)args->scale);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->count, LOSS_BLOCK, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin; i < range.end; i += FNN_LANES) {
            ptrdiff_t n = lanes_left(range.end - i);
            vec pos_weight = args->pos_weight ? load_lanes(args->pos_weight + i, n) : vec_set1(1.0f);
            vec slope = function(&settings, load_lanes(args->x + i, n), load_lanes(args->target + i, n), pos_weight);
            if (args->weight) slope = vec_mul(slope, load_lanes(args->weight + i, n));
            vec dloss = each ? load_lanes(args->dloss + i, n) : vec_set1(args->dloss[0]);
            store_lanes(args->dx + i, vec_mul(slope, vec_mul(dloss, scale)), n);
        }
}

void FNN_FUNCTION(pointwise_loss_backward)(const struct fnn_pointwise_loss_backward_args *args,
                                           const struct fnn_team *team) {
    switch ((enum loss_code)args->code) { LOSSES(LOSS_CASE) }
}
