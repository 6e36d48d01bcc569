/* Moving average of all weights of a model in one call.
 *
 *     average = average + weight * (parameter - average),  for weight >= 1/2:  parameter - (parameter - average) * (1 - weight)
 *
 * so that weight 0 keeps it and weight 1 copies, exactly; weight is 1 - decay, in [0, 1].
 * segments: for each parameter three slots: average (changed), parameter (float arrays), count.
 * Error: 3 roundings of |parameter| + |average|, relative eps = 2^-24. Parallel over blocks.
 * Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992. */
#include "segments.h"

enum { SLOTS = 3 };

struct average_settings {
    float weight, rest;
};

static void average_block(const struct segment_block *block, void *context) {
    const struct average_settings *settings = context;
    const vec weight = vec_set1(settings->weight), rest = vec_set1(settings->rest);
    const bool mostly_new = settings->weight >= 0.5f;
    const float *parameters = segment_input(block, 1);
    float *averages = segment_output(block, 0);
    for (ptrdiff_t i = block->begin; i < block->end; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(block->end - i);
        vec average = load_lanes(averages + i, n), parameter = load_lanes(parameters + i, n);
        vec distance = vec_sub(parameter, average);
        vec moved = mostly_new ? vec_fnma(distance, rest, parameter) : vec_fma(weight, distance, average);
        store_lanes(averages + i, moved, n);
    }
}

void FNN_FUNCTION(average_weights)(const struct fnn_average_weights_args *args, const struct fnn_team *team) {
    struct average_settings settings = {(float)args->weight, (float)(1.0 - args->weight)};
    for_blocks(args->segments, args->segment_count, SLOTS, average_block, &settings, team);
}
