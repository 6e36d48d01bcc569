/* Elementwise losses forward: codes and formulas in pointwise_loss.h.
 *
 * x, target (count); weight, pos_weight (count) or null; loss (count) for reduction 0, else (1): scale * sum, where scale is 1
 * for a sum, 1 / count for a mean. workspace: ceil(count / 256) doubles.
 * Error of an element: 4 eps times the sum of its terms' magnitudes (logarithms 1 ulp, softplus 2); of a sum in addition
 * (256 / lanes + 6) eps * sum |loss|: 256 elements are summed in float32, those sums in double, in order; eps = 2^-24.
 * Parallel over blocks of 256 elements. */
#include "pointwise_loss.h"

typedef vec loss_function(const struct loss_settings *p, vec x, vec target, vec pos_weight);

FNN_INLINE vec squared_error(const struct loss_settings *p, vec x, vec target, vec pos_weight) {
    (void)p, (void)pos_weight;
    vec d = vec_sub(x, target);
    return vec_mul(d, d);
}

FNN_INLINE vec absolute_error(const struct loss_settings *p, vec x, vec target, vec pos_weight) {
    (void)p, (void)pos_weight;
    return vec_abs(vec_sub(x, target));
}

FNN_INLINE vec huber(const struct loss_settings *p, vec x, vec target, vec pos_weight) {
    (void)pos_weight;
    const vec half = vec_set1(0.5f);
    vec distance = vec_abs(vec_sub(x, target));
    vec square = vec_mul(half, vec_mul(distance, distance));
    vec line = vec_mul(p->a, vec_sub(distance, vec_mul(half, p->a)));
    return vec_mul(p->b, vec_select(vec_less_equal(distance, p->a), square, line));
}

FNN_INLINE vec cross_entropy(const struct loss_settings *p, vec x, vec target, vec pos_weight) {
    (void)p, (void)pos_weight;
    const vec floor = vec_set1(-100.0f);
    vec hit = vec_mul(target, vec_max(floor, vec_log(x)));
    vec miss = vec_mul(vec_sub(vec_set1(1.0f), target), vec_max(floor, vec_log1m(x)));
    return vec_neg(vec_add(hit, miss));
}

/* Both softplus share one logarithm: log(1 + exp(-x)) = log(1 + exp x) - x. */
FNN_INLINE vec logit_entropy(const struct loss_settings *p, vec x, vec target, vec pos_weight) {
    (void)p;
    vec shared = vec_log1p(vec_exp(vec_neg(vec_abs(x))));
    vec hit = vec_add(vec_max(vec_zero(), vec_neg(x)), shared), miss = vec_add(vec_max(vec_zero(), x), shared);
    return vec_fma(vec_mul(target, pos_weight), hit, vec_mul(vec_sub(vec_set1(1.0f), target), miss));
}

FNN_INLINE vec divergence(const struct loss_settings *p, vec x, vec target, vec pos_weight) {
    (void)p, (void)pos_weight;
    vec loss = vec_mul(target, vec_sub(vec_log(target), x));
    return vec_select(vec_less_equal(target, vec_zero()), vec_zero(), loss);
}

FNN_INLINE vec log_divergence(const struct loss_settings *p, vec x, vec target, vec pos_weight) {
    (void)p, (void)pos_weight;
    return vec_mul(vec_exp(target), vec_sub(target, x));
}

FNN_INLINE void map(loss_function *function, const struct fnn_pointwise_loss_forward_args *args,
                    const struct fnn_team *team) {
    const struct loss_settings settings = {vec_set1((float)args->a), vec_set1((float)args->b)};
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(fnn_ceil_div(args->count, LOSS_BLOCK), 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t b = range.begin; b < range.end; b++) {
            vec sum = vec_zero();
            ptrdiff_t end = fnn_min((b + 1) * LOSS_BLOCK, args->count);
            for (ptrdiff_t i = b * LOSS_BLOCK; i < end; i += FNN_LANES) {
                ptrdiff_t n = lanes_left(end - i);
                vec pos_weight = args->pos_weight ? load_lanes(args->pos_weight + i, n) : vec_set1(1.0f);
                vec loss = function(&settings, load_lanes(args->x + i, n), load_lanes(args->target + i, n), pos_weight);
                if (args->weight) loss = vec_mul(loss, load_lanes(args->weight + i, n));
                if (args->reduction == LOSS_REDUCTION_NONE) store_lanes(args->loss + i, loss, n);
                sum = vec_add(sum, n == FNN_LANES ? loss : vec_select(mask_first(n), loss, vec_zero()));
            }
            args->workspace[b] = vec_sum(sum);
        }
}

void FNN_FUNCTION(pointwise_loss_forward)(const struct fnn_pointwise_loss_forward_args *args,
                                          const struct fnn_team *team) {
    switch ((enum loss_code)args->code) { LOSSES(LOSS_CASE) }
    if (args->reduction == LOSS_REDUCTION_NONE) return;
    fnn_barrier(team);
    if (team->rank != 0) return;
    double sum = 0;
    for (ptrdiff_t b = 0; b < fnn_ceil_div(args->count, LOSS_BLOCK); b++) sum += args->workspace[b];
    args->loss[0] = (float)(args->scale * sum);
}
