/* RMSprop and Adagrad over all parameters at once, in PyTorch's order of operations. Segments as in optimizer.h; step is the
 * number of this step, from 1. Factors that depend on the settings alone are computed in double.
 * Error of an update: 8 roundings of its terms, each relative eps = 2^-24; centred RMSprop subtracts a^2 from v, which
 * makes a rounding of v worth v / (v - a^2) of them.
 * Sources: Tieleman and Hinton, lecture 6.5, 2012; Graves, arXiv:1308.0850 (centred); Duchi, Hazan and Singer, JMLR 2011. */
#include "optimizer.h"

struct rmsprop_settings {
    float lr, alpha, weight, eps, weight_decay, momentum;
    bool centered, maximize;
};

static void rmsprop_block(const struct parameter_block *block, const void *context) {
    const struct rmsprop_settings *settings = context;
    const vec lr = vec_set1(settings->lr), alpha = vec_set1(settings->alpha), weight = vec_set1(settings->weight);
    const vec eps = vec_set1(settings->eps), momentum = vec_set1(settings->momentum);
    for (ptrdiff_t i = 0; i < block->count; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(block->count - i);
        vec parameter = load_lanes(block->parameter + i, n);
        vec g =
            decayed_gradient(load_lanes(block->gradient + i, n), parameter, settings->maximize, settings->weight_decay);
        vec square = vec_fma(vec_mul(weight, g), g, vec_mul(alpha, load_lanes(block->state[0] + i, n)));
        store_lanes(block->state[0] + i, square, n);
        if (settings->centered) {
            vec mean = load_lanes(block->state[1] + i, n);
            mean = vec_fma(weight, vec_sub(g, mean), mean);
            store_lanes(block->state[1] + i, mean, n);
            square = vec_max(vec_zero(), vec_fnma(mean, mean, square));
        }
        vec direction = vec_div(g, vec_add(vec_sqrt(square), eps));
        if (settings->momentum != 0.0f) {
            direction = vec_fma(momentum, load_lanes(block->state[2] + i, n), direction);
            store_lanes(block->state[2] + i, direction, n);
        }
        store_lanes(block->parameter + i, vec_fnma(lr, direction, parameter), n);
    }
}

/* g = gradient + weight_decay * parameter; v = alpha * v + (1 - alpha) * g^2; with centered a += (1 - alpha) * (g - a) and
 * u = max(v - a^2, 0), else u = v; b = momentum * b + g / (sqrt(u) + eps); parameter -= lr * b.
 * States: v; a (unused unless centered); b (unused when momentum is 0). */
void FNN_FUNCTION(rmsprop_step)(const struct fnn_rmsprop_step_args *args, const struct fnn_team *team) {
    const struct rmsprop_settings settings = {.lr = (float)args->lr,
                                              .alpha = (float)args->alpha,
                                              .weight = (float)(1 - args->alpha),
                                              .eps = (float)args->eps,
                                              .weight_decay = (float)args->weight_decay,
                                              .momentum = (float)args->momentum,
                                              .centered = args->centered != 0,
                                              .maximize = args->maximize != 0};
    update_segments(&SEGMENT_TABLE(args), rmsprop_block, &settings, team);
}

struct adagrad_settings {
    float lr, eps, weight_decay;
    bool maximize;
};

static void adagrad_block(const struct parameter_block *block, const void *context) {
    const struct adagrad_settings *settings = context;
    const vec lr = vec_set1(settings->lr), eps = vec_set1(settings->eps);
    for (ptrdiff_t i = 0; i < block->count; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(block->count - i);
        vec parameter = load_lanes(block->parameter + i, n);
        vec g =
            decayed_gradient(load_lanes(block->gradient + i, n), parameter, settings->maximize, settings->weight_decay);
        vec sum = vec_fma(g, g, load_lanes(block->state[0] + i, n));
        store_lanes(block->state[0] + i, sum, n);
        vec direction = vec_div(g, vec_add(vec_sqrt(sum), eps));
        store_lanes(block->parameter + i, vec_fnma(lr, direction, parameter), n);
    }
}

/* g = gradient + weight_decay * parameter; s += g^2; parameter -= lr / (1 + (step - 1) * lr_decay) * g / (sqrt(s) + eps).
 * State 0: s. */
void FNN_FUNCTION(adagrad_step)(const struct fnn_adagrad_step_args *args, const struct fnn_team *team) {
    double steps_before = args->step > 0 ? (double)(args->step - 1) : 0;
    const struct adagrad_settings settings = {.lr = (float)(args->lr / (1 + steps_before * args->lr_decay)),
                                              .eps = (float)args->eps,
                                              .weight_decay = (float)args->weight_decay,
                                              .maximize = args->maximize != 0};
    update_segments(&SEGMENT_TABLE(args), adagrad_block, &settings, team);
}
