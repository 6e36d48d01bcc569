/* Activations backward: dx = dy * f'(x), from x or y as activation.h says. dy, saved, dx (count); dx may be dy or saved.
 *
 * |dx - exact| <= 16 eps |dy| * max(1, |f'|), eps = 2^-24 (GELU_TANH, MISH, SILU: 16 (1 + |x|) where that is larger), the error of
 * y itself not counted where y is what was saved. Where f is flat, dx is 0, whatever dy was. Parallel over blocks. */
#include "activation.h"

typedef vec gradient_function(const struct activation *p, vec dy, vec saved);

FNN_INLINE vec one_minus(vec a) { return vec_sub(vec_set1(1.0f), a); }

FNN_INLINE vec hardtanh(const struct activation *p, vec dy, vec x) {
    mask inside = mask_and(vec_less(p->a, x), vec_less(x, p->b));
    return vec_select(inside, dy, vec_zero());
}

FNN_INLINE vec leaky_relu(const struct activation *p, vec dy, vec x) {
    return vec_select(vec_less(vec_zero(), x), dy, vec_mul(p->a, dy));
}

FNN_INLINE vec elu(const struct activation *p, vec dy, vec x) {
    vec slope = vec_mul(vec_mul(p->a, p->c), vec_exp_below_88(vec_mul(p->c, vec_min(vec_zero(), x))));
    return vec_mul(vec_mul(p->b, dy), vec_select(vec_less(vec_zero(), x), vec_set1(1.0f), slope));
}

FNN_INLINE vec sigmoid(const struct activation *p, vec dy, vec y) {
    (void)p;
    return vec_mul(vec_mul(dy, y), one_minus(y));
}

FNN_INLINE vec hyperbolic_tangent(const struct activation *p, vec dy, vec y) {
    (void)p;
    return vec_mul(dy, vec_fnma(y, y, vec_set1(1.0f)));
}

FNN_INLINE vec logsigmoid(const struct activation *p, vec dy, vec x) {
    (void)p;
    return vec_mul(dy, vec_sigmoid(vec_neg(x)));
}

FNN_INLINE vec softplus(const struct activation *p, vec dy, vec x) {
    vec scaled = vec_mul(p->a, x);
    return vec_select(vec_less(p->b, scaled), dy, vec_mul(dy, vec_sigmoid(scaled)));
}

FNN_INLINE vec softsign(const struct activation *p, vec dy, vec x) {
    (void)p;
    vec root = vec_add(vec_set1(1.0f), vec_abs(x));
    return vec_div(dy, vec_mul(root, root));
}

/* s * (1 + x * (1 - s)) */
FNN_INLINE vec silu(const struct activation *p, vec dy, vec x) {
    (void)p;
    vec s = vec_sigmoid(x);
    return vec_mul(dy, vec_mul(s, vec_fma(x, one_minus(s), vec_set1(1.0f))));
}

/* t + x * 4e(1 + e) / (m + 2)^2, with e = exp(x), m = e(e + 2), t = m / (m + 2) */
FNN_INLINE vec mish(const struct activation *p, vec dy, vec x) {
    (void)p;
    vec e = mish_exponential(x), m = mish_term(e), inverse = vec_div(vec_set1(1.0f), vec_add(m, vec_set1(2.0f)));
    vec slope = vec_mul(vec_mul(vec_set1(4.0f), vec_fma(e, e, e)), vec_mul(inverse, inverse));
    return vec_mul(dy, vec_fma(vec_min(vec_set1(20.0f), x), slope, vec_mul(m, inverse))); /* beyond, the slope is 0 */
}

FNN_INLINE vec gelu(const struct activation *p, vec dy, vec x) {
    (void)p;
    return vec_mul(dy, vec_gelu_slope(x));
}

/* s * (1 + x * u' * (1 - s)), u' = sqrt(8/pi) * (1 + 3 * 0.044715 x^2) */
FNN_INLINE vec gelu_tanh(const struct activation *p, vec dy, vec x) {
    (void)p;
    vec s = vec_sigmoid(gelu_tanh_argument(x));
    vec du = vec_mul(vec_set1(1.59576912f), vec_fma(vec_set1(0.134145f), vec_mul(x, x), vec_set1(1.0f)));
    return vec_mul(dy, vec_mul(s, vec_fma(vec_mul(x, du), one_minus(s), vec_set1(1.0f))));
}

FNN_INLINE vec hardsigmoid(const struct activation *p, vec dy, vec x) {
    (void)p;
    mask inside = vec_less(vec_abs(x), vec_set1(3.0f));
    return vec_select(inside, vec_div(dy, vec_set1(6.0f)), vec_zero());
}

FNN_INLINE vec hardswish(const struct activation *p, vec dy, vec x) {
    (void)p;
    const vec three = vec_set1(3.0f);
    vec slope = vec_add(vec_div(x, three), vec_set1(0.5f));
    vec dx = vec_select(vec_less_equal(three, x), dy, vec_mul(dy, slope)); /* of NaN the product */
    return vec_select(vec_less_equal(x, vec_neg(three)), vec_zero(), dx);
}

FNN_INLINE vec exponential(const struct activation *p, vec dy, vec y) {
    (void)p;
    return vec_mul(dy, y);
}

FNN_INLINE vec logarithm(const struct activation *p, vec dy, vec x) {
    (void)p;
    return vec_div(dy, x);
}

FNN_INLINE void map_range(gradient_function *function, const struct fnn_activation_backward_args *args,
                          struct fnn_range range) {
    const struct activation parameters = activation_of(args->a, args->b, args->c);
    const bool stream = args->saved != args->dx && streams(args->dy, args->dx, args->count);
    const float *dy = args->dy, *saved = args->saved;
    float *dx = args->dx;
    ptrdiff_t i = range.begin;
    for (; i + SIDE_BY_SIDE * FNN_LANES <= range.end; i += SIDE_BY_SIDE * FNN_LANES) {
        vec some[SIDE_BY_SIDE];
#pragma GCC unroll 4
        for (int v = 0; v < SIDE_BY_SIDE; v++)
            some[v] = function(&parameters, vec_load(dy + i + v * FNN_LANES), vec_load(saved + i + v * FNN_LANES));
#pragma GCC unroll 4
        for (int v = 0; v < SIDE_BY_SIDE; v++) put_lanes(stream, dx + i + v * FNN_LANES, some[v], FNN_LANES);
    }
    for (; i < range.end; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(range.end - i);
        put_lanes(stream, dx + i, function(&parameters, load_lanes(dy + i, n), load_lanes(saved + i, n)), n);
    }
    vec_fence();
}

FNN_INLINE void map(gradient_function *function, const struct fnn_activation_backward_args *args,
                    const struct fnn_team *team) {
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->count, ACTIVATION_BLOCK, team); fnn_take(&work, &range);)
        map_range(function, args, range);
}

void FNN_FUNCTION(activation_backward)(const struct fnn_activation_backward_args *args, const struct fnn_team *team) {
    switch ((enum activation_code)args->code) { ACTIVATIONS(ACTIVATION_CASE) }
}
