/* The elementwise activations: their codes, which the Python side uses as well, and parameters a, b, c.
 *
 *   code               y                                                    a, b, c                    saved
 *   HARDTANH           min(max(x, a), b)                                    limits a, b                x or y
 *   LEAKY_RELU         x > 0 ? x : a*x                                      slope a                    x
 *   ELU                b * (x > 0 ? x : a * (exp(c*x) - 1)), c > 0          ELU: a, 1, 1; CELU:        x
 *                                                                           a, 1, 1/a; SELU: a, b, 1
 *   SIGMOID            1 / (1 + exp(-x))                                                               y
 *   TANH               tanh(x)                                                                         y
 *   LOGSIGMOID         -log(1 + exp(-x))                                                               x
 *   SOFTPLUS           a*x > b ? x : log(1 + exp(a*x)) / a                  beta a, threshold b        x
 *   SOFTSIGN           x / (1 + |x|)                                                                   x
 *   SILU               x * sigmoid(x)                                                                  x
 *   MISH               x * tanh(log(1 + exp(x)))                                                       x
 *   GELU               x * P(standard normal < x)                                                      x
 *   GELU_TANH          x * sigmoid(sqrt(8/pi) * (x + 0.044715 x^3))                                    x
 *   HARDSIGMOID        min(max(x + 3, 0), 6) / 6                                                       x
 *   HARDSWISH          x * hardsigmoid(x)                                                              x
 *   EXPONENTIAL        exp(x)                                                                          y
 *   LOGARITHM          log(x)                                                                          x
 *
 * "saved" is what the backward kernel takes to compute dx = dy * dy/dx. */
#ifndef FASTNN_KERNELS_ACTIVATION_H
#define FASTNN_KERNELS_ACTIVATION_H

#include "vector_math.h"

/* Each code with the function that computes it, forward in one kernel and backward in the other. */
#define ACTIVATIONS(ONE)          \
    ONE(HARDTANH, hardtanh)       \
    ONE(LEAKY_RELU, leaky_relu)   \
    ONE(ELU, elu)                 \
    ONE(SIGMOID, sigmoid)         \
    ONE(TANH, hyperbolic_tangent) \
    ONE(LOGSIGMOID, logsigmoid)   \
    ONE(SOFTPLUS, softplus)       \
    ONE(SOFTSIGN, softsign)       \
    ONE(SILU, silu)               \
    ONE(MISH, mish)               \
    ONE(GELU, gelu)               \
    ONE(GELU_TANH, gelu_tanh)     \
    ONE(HARDSIGMOID, hardsigmoid) \
    ONE(HARDSWISH, hardswish)     \
    ONE(EXPONENTIAL, exponential) \
    ONE(LOGARITHM, logarithm)

#define ACTIVATION_CODE(code, function) code,
enum activation_code { ACTIVATIONS(ACTIVATION_CODE) };

#define ACTIVATION_CASE(code, function) \
    case code: map(function, args, team); break;

struct activation {
    vec a, b, c;
};

static inline struct activation activation_of(double a, double b, double c) {
    return (struct activation){vec_set1((float)a), vec_set1((float)b), vec_set1((float)c)};
}

/* Elements that threads share, and vectors whose chains of operations run side by side. */
enum { ACTIVATION_BLOCK = 1024, SIDE_BY_SIDE = 4 };

/* exp(x) * (exp(x) + 2): with it tanh(log(1 + exp(x))) = m / (m + 2). At x = 20 that quotient is 1. */
FNN_INLINE vec mish_term(vec e) { return vec_mul(e, vec_add(e, vec_set1(2.0f))); }
FNN_INLINE vec mish_exponential(vec x) { return vec_exp_below_88(vec_min(vec_set1(20.0f), x)); }

/* sqrt(8/pi) * (x + 0.044715 x^3) */
FNN_INLINE vec gelu_tanh_argument(vec x) {
    vec inner = vec_fma(vec_mul(vec_set1(0.044715f), vec_mul(x, x)), x, x);
    return vec_mul(vec_set1(1.59576912f), inner);
}

#endif
