/* Clipping of all gradients of a model, as torch.nn.utils.clip_grad_norm_ and clip_grad_value_ do it.
 *
 * segments: for each gradient three slots: gradient, clipped (float arrays; clipped may be gradient), count.
 *
 * clip_gradient_norm: norm = (sum |g|^p)^(1/p) over all elements of all gradients, p = order 1 or 2; order 0: the largest |g|.
 *     clipped = g * min(1, max_norm / (norm + 1e-6)); with a norm that is NaN all become NaN.
 *     norm (1); workspace: one double a block. Sums are float32 within a block of 4096 elements, double over the blocks, in
 *     order. Error of the norm: (4096 / (4 * lanes) + 8) eps, of an element that plus 2 roundings, eps = 2^-24.
 * clip_gradient_value: clipped = min(max(g, -limit), limit), exact; NaN stays.
 * Parallel over blocks; bits do not depend on the team. Source: Pascanu, Mikolov and Bengio, ICML 2013. */
#include "segments.h"

enum { SLOTS = 3, ORDER_LARGEST = 0, ORDER_ABSOLUTE = 1 };

struct norm_settings {
    double *partial;
    ptrdiff_t order;
};

static double sum_of_magnitudes(const float *x, ptrdiff_t begin, ptrdiff_t end) {
    vec sums[4] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};
    int chain = 0;
    for (ptrdiff_t i = begin; i < end; i += FNN_LANES, chain = (chain + 1) & 3)
        sums[chain] = vec_add(sums[chain], vec_abs(load_lanes(x + i, lanes_left(end - i))));
    return vec_sum(vec_add(vec_add(sums[0], sums[1]), vec_add(sums[2], sums[3])));
}

static void norm_of_block(const struct segment_block *block, void *context) {
    const struct norm_settings *settings = context;
    const float *gradient = segment_input(block, 0);
    settings->partial[block->number] =
        settings->order == ORDER_LARGEST    ? largest_magnitude(gradient, block->begin, block->end)
        : settings->order == ORDER_ABSOLUTE ? sum_of_magnitudes(gradient, block->begin, block->end)
                                            : sum_of_squares(gradient, block->begin, block->end);
}

static float norm_of_all(const double *partial, ptrdiff_t blocks, ptrdiff_t order) {
    if (order == ORDER_LARGEST) {
        float largest = 0.0f;
        for (ptrdiff_t b = 0; b < blocks; b++) largest = largest_of(largest, (float)partial[b]);
        return largest;
    }
    double sum = 0;
    for (ptrdiff_t b = 0; b < blocks; b++) sum += partial[b];
    return (float)(order == ORDER_ABSOLUTE ? sum : __builtin_sqrt(sum));
}

static void scale_block(const struct segment_block *block, void *context) {
    const float *coefficient = context, *gradient = segment_input(block, 0);
    float *clipped = segment_output(block, 1);
    if (*coefficient == 1.0f && clipped == gradient) return;
    for (ptrdiff_t i = block->begin; i < block->end; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(block->end - i);
        store_lanes(clipped + i, vec_mul(load_lanes(gradient + i, n), vec_set1(*coefficient)), n);
    }
}

void FNN_FUNCTION(clip_gradient_norm)(const struct fnn_clip_gradient_norm_args *args, const struct fnn_team *team) {
    struct norm_settings settings = {args->workspace, args->order};
    for_blocks(args->segments, args->segment_count, SLOTS, norm_of_block, &settings, team);
    fnn_barrier(team);
    ptrdiff_t blocks = all_blocks(args->segments, args->segment_count, SLOTS);
    float norm = norm_of_all(args->workspace, blocks, args->order); /* every thread: the same sum */
    if (team->rank == 0) args->norm[0] = norm;
    float coefficient = (float)(args->max_norm / ((double)norm + 1e-6));
    if (coefficient > 1.0f) coefficient = 1.0f;
    for_blocks(args->segments, args->segment_count, SLOTS, scale_block, &coefficient, team);
}

static void limit_block(const struct segment_block *block, void *context) {
    const float *limit = context, *gradient = segment_input(block, 0);
    float *clipped = segment_output(block, 1);
    const vec most = vec_set1(*limit), least = vec_set1(-*limit);
    for (ptrdiff_t i = block->begin; i < block->end; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(block->end - i);
        store_lanes(clipped + i, vec_min(most, vec_max(least, load_lanes(gradient + i, n))), n);
    }
}

void FNN_FUNCTION(clip_gradient_value)(const struct fnn_clip_gradient_value_args *args, const struct fnn_team *team) {
    float limit = (float)args->limit;
    for_blocks(args->segments, args->segment_count, SLOTS, limit_block, &limit, team);
}
