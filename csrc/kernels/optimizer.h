/* One optimizer step over all parameters of a model in one call.
 *
 * segments: for each parameter six slots: parameter, gradient, state 0, state 1, state 2 (float arrays, null where unused),
 * count. Each parameter is cut into blocks of OPTIMIZER_BLOCK elements; the blocks of all parameters, laid end to end, are
 * shared by the team. Every element is computed alone, so bits do not depend on the team. */
#ifndef FASTNN_KERNELS_OPTIMIZER_H
#define FASTNN_KERNELS_OPTIMIZER_H

#include "lanes.h"

enum { OPTIMIZER_BLOCK = 4096, SEGMENT_SLOTS = 6, STATES = 3 };

/* `count` elements of one parameter, all arrays from the same element on. */
struct parameter_block {
    float *parameter;
    const float *gradient;
    float *state[STATES];
    ptrdiff_t count;
};

typedef void update_block(const struct parameter_block *block, const void *settings);

static inline float *slot_array(const union fnn_slot *slot, ptrdiff_t offset) {
    float *array = (float *)(uintptr_t)slot->pointer;
    return array ? array + offset : NULL;
}

/* Calls update for blocks [range.begin, range.end), counted over all segments. */
FNN_INLINE void update_blocks(const union fnn_slot *segments, ptrdiff_t segment_count, update_block *update,
                              const void *settings, struct fnn_range range) {
    ptrdiff_t first = 0;
    for (ptrdiff_t s = 0; s < segment_count && first < range.end; s++) {
        const union fnn_slot *segment = segments + s * SEGMENT_SLOTS;
        ptrdiff_t count = segment[5].size, blocks = fnn_ceil_div(count, OPTIMIZER_BLOCK);
        for (ptrdiff_t b = fnn_max(range.begin - first, 0); b < fnn_min(blocks, range.end - first); b++) {
            ptrdiff_t offset = b * OPTIMIZER_BLOCK;
            struct parameter_block block = {.parameter = slot_array(&segment[0], offset),
                                            .gradient = slot_array(&segment[1], offset),
                                            .count = fnn_min(count - offset, OPTIMIZER_BLOCK)};
            for (int i = 0; i < STATES; i++) block.state[i] = slot_array(&segment[2 + i], offset);
            update(&block, settings);
        }
        first += blocks;
    }
}

/* Calls update for all blocks. */
FNN_INLINE void update_segments(const union fnn_slot *segments, ptrdiff_t segment_count, update_block *update,
                                const void *settings, const struct fnn_team *team) {
    ptrdiff_t total = 0;
    for (ptrdiff_t s = 0; s < segment_count; s++)
        total += fnn_ceil_div(segments[s * SEGMENT_SLOTS + 5].size, OPTIMIZER_BLOCK);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(total, 1, team); fnn_take(&work, &range);)
        update_blocks(segments, segment_count, update, settings, range);
}

/* The gradient with its sign turned for maximize and, unless the decay is 0, with weight_decay * parameter added. */
FNN_INLINE vec decayed_gradient(vec gradient, vec parameter, bool maximize, float weight_decay) {
    if (maximize) gradient = vec_neg(gradient);
    return weight_decay == 0.0f ? gradient : vec_fma(vec_set1(weight_decay), parameter, gradient);
}

#endif
