/* SGD, Adam and AdamW over all parameters at once, in PyTorch's order of operations. Segments as in optimizer.h; step is the
 * number of this step, from 1. Factors that depend on the settings alone are computed in double.
 * Error of an update: SGD 4 roundings of its terms, Adam 8, each relative eps = 2^-24.
 * Sources: Sutskever et al., ICML 2013; Kingma and Ba, "Adam", ICLR 2015; Loshchilov and Hutter, "AdamW", ICLR 2019. */
#include "optimizer.h"

struct sgd_settings {
    float lr, momentum, undamped, weight_decay;
    bool nesterov, maximize, first;
};

static void sgd_block(const struct parameter_block *block, const void *context) {
    const struct sgd_settings *settings = context;
    const vec lr = vec_set1(settings->lr), momentum = vec_set1(settings->momentum);
    const vec undamped = vec_set1(settings->undamped);
    float *buffer_array = block->state[0];
    for (ptrdiff_t i = 0; i < block->count; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(block->count - i);
        vec parameter = load_lanes(block->parameter + i, n);
        vec g =
            decayed_gradient(load_lanes(block->gradient + i, n), parameter, settings->maximize, settings->weight_decay);
        if (settings->momentum != 0.0f) {
            vec buffer = g;
            if (!settings->first) buffer = vec_fma(undamped, g, vec_mul(momentum, load_lanes(buffer_array + i, n)));
            store_lanes(buffer_array + i, buffer, n);
            g = settings->nesterov ? vec_fma(momentum, buffer, g) : buffer;
        }
        store_lanes(block->parameter + i, vec_fnma(lr, g, parameter), n);
    }
}

/* g = gradient + weight_decay * parameter; buffer = momentum * buffer + (1 - dampening) * g, at the first step g;
 * parameter -= lr * (g + momentum * buffer if nesterov else buffer). State 0: buffer (unused when momentum is 0). */
void FNN_FUNCTION(sgd_step)(const struct fnn_sgd_step_args *args, const struct fnn_team *team) {
    const struct sgd_settings settings = {(float)args->lr,
                                          (float)args->momentum,
                                          (float)(1.0 - args->dampening),
                                          (float)args->weight_decay,
                                          args->nesterov != 0,
                                          args->maximize != 0,
                                          args->step <= 1};
    update_segments(&SEGMENT_TABLE(args), sgd_block, &settings, team);
}

struct adam_settings {
    float weight_first, beta2, weight_second, step_size, root_scale, eps, weight_decay, shrink;
    bool maximize;
};

/* base^exponent by squaring; a handful of roundings of a double. */
static double integer_power(double base, uint64_t exponent) {
    double power = 1;
    for (; exponent; exponent >>= 1, base *= base)
        if (exponent & 1) power *= base;
    return power;
}

FNN_INLINE void adam_block(const bool amsgrad, const struct parameter_block *block,
                           const struct adam_settings *settings) {
    const vec weight_first = vec_set1(settings->weight_first), beta2 = vec_set1(settings->beta2);
    const vec weight_second = vec_set1(settings->weight_second), root_scale = vec_set1(settings->root_scale);
    const vec step_size = vec_set1(settings->step_size), eps = vec_set1(settings->eps);
    const vec shrink = vec_set1(settings->shrink);
    for (ptrdiff_t i = 0; i < block->count; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(block->count - i);
        vec parameter = load_lanes(block->parameter + i, n), first = load_lanes(block->state[0] + i, n);
        vec second = vec_mul(beta2, load_lanes(block->state[1] + i, n));
        vec g =
            decayed_gradient(load_lanes(block->gradient + i, n), parameter, settings->maximize, settings->weight_decay);
        first = vec_fma(weight_first, vec_sub(g, first), first);
        second = vec_fma(vec_mul(weight_second, g), g, second);
        store_lanes(block->state[0] + i, first, n);
        store_lanes(block->state[1] + i, second, n);
        if (amsgrad) {
            second = vec_max(load_lanes(block->state[2] + i, n), second);
            store_lanes(block->state[2] + i, second, n);
        }
        vec denominator = vec_fma(vec_sqrt(second), root_scale, eps);
        vec direction = vec_div(first, denominator);
        store_lanes(block->parameter + i, vec_fnma(step_size, direction, vec_mul(parameter, shrink)), n);
    }
}

static void adam_plain_block(const struct parameter_block *block, const void *settings) {
    adam_block(false, block, settings);
}

static void adam_amsgrad_block(const struct parameter_block *block, const void *settings) {
    adam_block(true, block, settings);
}

/* m += (1 - beta1) * (g - m); v = beta2 * v + (1 - beta2) * g^2; u = v, or with amsgrad the largest v so far;
 * parameter -= lr / (1 - beta1^step) * m / (sqrt(u) / sqrt(1 - beta2^step) + eps), with g = gradient + weight_decay * parameter,
 * or, decoupled (AdamW), g = gradient and parameter shrunk by 1 - lr * weight_decay first. States: m, v, largest v. */
void FNN_FUNCTION(adam_step)(const struct fnn_adam_step_args *args, const struct fnn_team *team) {
    bool decoupled = args->decoupled != 0;
    double correction1 = 1 - integer_power(args->beta1, args->step);
    double correction2 = 1 - integer_power(args->beta2, args->step);
    const struct adam_settings settings = {.weight_first = (float)(1 - args->beta1),
                                           .beta2 = (float)args->beta2,
                                           .weight_second = (float)(1 - args->beta2),
                                           .step_size = (float)(args->lr / correction1),
                                           .root_scale = (float)(1 / __builtin_sqrt(correction2)),
                                           .eps = (float)args->eps,
                                           .weight_decay = decoupled ? 0.0f : (float)args->weight_decay,
                                           .shrink = decoupled ? (float)(1 - args->lr * args->weight_decay) : 1.0f,
                                           .maximize = args->maximize != 0};
    update_segments(&SEGMENT_TABLE(args), args->amsgrad ? adam_amsgrad_block : adam_plain_block, &settings, team);
}
