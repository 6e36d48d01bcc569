/* Activations forward: y = f(x), codes and formulas in activation.h. x, y (count); y may be x.
 *
 * Error in units in the last place of y: HARDTANH, LEAKY_RELU exact to 1 rounding; ELU 3; SIGMOID 2.5; TANH 5.5;
 * LOGSIGMOID, SOFTPLUS 3; SOFTSIGN, HARDSIGMOID 1.5, HARDSWISH 2 (both: of 1/2 near the zero at x = -3); SILU 3.5; MISH 5; GELU 7;
 * GELU_TANH 4 + 3 |sqrt(8/pi) (x + 0.044715 x^3)| for x < 0 (the error of exp's argument); EXPONENTIAL, LOGARITHM 1.01.
 * NaN gives NaN. Parallel over blocks of elements. */
#include "activation.h"

typedef vec activation_function(const struct activation *p, vec x);

FNN_INLINE vec hardtanh(const struct activation *p, vec x) { return vec_min(p->b, vec_max(p->a, x)); }

FNN_INLINE vec leaky_relu(const struct activation *p, vec x) {
    return vec_select(vec_less(vec_zero(), x), x, vec_mul(p->a, x));
}

FNN_INLINE vec elu(const struct activation *p, vec x) {
    vec below = vec_mul(p->a, vec_expm1(vec_mul(p->c, vec_min(vec_zero(), x))));
    return vec_mul(p->b, vec_select(vec_less(vec_zero(), x), x, below));
}

FNN_INLINE vec sigmoid(const struct activation *p, vec x) {
    (void)p;
    return vec_sigmoid(x);
}

FNN_INLINE vec hyperbolic_tangent(const struct activation *p, vec x) {
    (void)p;
    return vec_tanh(x);
}

FNN_INLINE vec logsigmoid(const struct activation *p, vec x) {
    (void)p;
    return vec_sub(vec_min(vec_zero(), x), vec_softplus_below(x));
}

FNN_INLINE vec softplus(const struct activation *p, vec x) {
    vec scaled = vec_mul(p->a, x);
    vec inverse = vec_div(vec_set1(1.0f), p->a); /* the same for all: taken out of the loop */
    return vec_select(vec_less(p->b, scaled), x, vec_mul(vec_softplus(scaled), inverse));
}

/* The same for a = 1 where y rounds to x beyond b: nothing to choose. */
FNN_INLINE vec softplus_alone(const struct activation *p, vec x) {
    (void)p;
    return vec_softplus(x);
}

FNN_INLINE vec softsign(const struct activation *p, vec x) {
    (void)p;
    return vec_div(x, vec_add(vec_set1(1.0f), vec_abs(x)));
}

FNN_INLINE vec silu(const struct activation *p, vec x) {
    (void)p;
    return vec_mul(x, vec_sigmoid(x));
}

FNN_INLINE vec mish(const struct activation *p, vec x) {
    (void)p;
    vec m = mish_term(mish_exponential(x));
    return vec_mul(x, vec_div(m, vec_add(m, vec_set1(2.0f))));
}

FNN_INLINE vec gelu(const struct activation *p, vec x) {
    (void)p;
    return vec_gelu(x);
}

FNN_INLINE vec gelu_tanh(const struct activation *p, vec x) {
    (void)p;
    return vec_mul(x, vec_sigmoid(gelu_tanh_argument(x)));
}

FNN_INLINE vec hardsigmoid(const struct activation *p, vec x) {
    (void)p;
    vec clipped = vec_min(vec_set1(6.0f), vec_max(vec_zero(), vec_add(x, vec_set1(3.0f))));
    return vec_div(clipped, vec_set1(6.0f));
}

FNN_INLINE vec hardswish(const struct activation *p, vec x) { return vec_mul(x, hardsigmoid(p, x)); }

FNN_INLINE vec exponential(const struct activation *p, vec x) {
    (void)p;
    return vec_exp(x);
}

FNN_INLINE vec logarithm(const struct activation *p, vec x) {
    (void)p;
    return vec_log(x);
}

FNN_INLINE void map_range(activation_function *function, const struct fnn_activation_forward_args *args,
                          struct fnn_range range) {
    const struct activation parameters = activation_of(args->a, args->b, args->c);
    const bool stream = streams(args->x, args->y, args->count);
    const float *x = args->x;
    float *y = args->y;
    ptrdiff_t i = range.begin;
    for (; i + SIDE_BY_SIDE * FNN_LANES <= range.end; i += SIDE_BY_SIDE * FNN_LANES) {
        vec some[SIDE_BY_SIDE];
#pragma GCC unroll 4
        for (int v = 0; v < SIDE_BY_SIDE; v++) some[v] = function(&parameters, vec_load(x + i + v * FNN_LANES));
#pragma GCC unroll 4
        for (int v = 0; v < SIDE_BY_SIDE; v++) put_lanes(stream, y + i + v * FNN_LANES, some[v], FNN_LANES);
    }
    for (; i < range.end; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(range.end - i);
        put_lanes(stream, y + i, function(&parameters, load_lanes(x + i, n)), n);
    }
    vec_fence();
}

FNN_INLINE void map(activation_function *function, const struct fnn_activation_forward_args *args,
                    const struct fnn_team *team) {
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->count, ACTIVATION_BLOCK, team); fnn_take(&work, &range);)
        map_range(function, args, range);
}

void FNN_FUNCTION(activation_forward)(const struct fnn_activation_forward_args *args, const struct fnn_team *team) {
    if (args->code == SOFTPLUS && args->a == 1.0 && args->b >= 18.0)
        map(softplus_alone, args, team);
    else
        switch ((enum activation_code)args->code) { ACTIVATIONS(ACTIVATION_CASE) }
}
