/* One optimizer step over all parameters of a model in one call.
 *
 * segments: for each parameter ten slots: parameter, gradient, state 0, state 1, state 2 (float arrays, null where unused),
 * count, x, panels, batch, channels. With an x, which is null else, `gradient` is dy, and the gradient is their product:
 * product_update.h. Each parameter is cut into blocks of OPTIMIZER_BLOCK elements, or pieces of the product; the blocks of all
 * parameters, laid end to end, are shared by the team. Every element is computed alone, so bits do not depend on the team.
 * workspace: for each thread of the team workspace_stride floats, as many as product_update.h needs; 0 without products. */
#ifndef FASTNN_KERNELS_OPTIMIZER_H
#define FASTNN_KERNELS_OPTIMIZER_H

#include "lanes.h"

enum { OPTIMIZER_BLOCK = 4096, STATES = 3 };

enum segment_slot {
    SEGMENT_PARAMETER,
    SEGMENT_GRADIENT,
    SEGMENT_STATE,
    SEGMENT_COUNT = SEGMENT_STATE + STATES,
    SEGMENT_X,
    SEGMENT_PANELS,
    SEGMENT_BATCH,
    SEGMENT_CHANNELS,
    SEGMENT_SLOTS
};

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

/* `count` elements of a segment's parameter from `offset` on, with their gradient. */
static inline struct parameter_block segment_block(const union fnn_slot *segment, ptrdiff_t offset, ptrdiff_t count,
                                                   const float *gradient) {
    struct parameter_block block = {
        .parameter = slot_array(&segment[SEGMENT_PARAMETER], offset), .gradient = gradient, .count = count};
    for (int i = 0; i < STATES; i++) block.state[i] = slot_array(&segment[SEGMENT_STATE + i], offset);
    return block;
}

#include "product_update.h"

/* The parts that a segment is cut into. */
static inline ptrdiff_t segment_parts(const union fnn_slot *segment) {
    const ptrdiff_t count = segment[SEGMENT_COUNT].size;
    return segment[SEGMENT_X].pointer ? product_pieces(segment) : fnn_ceil_div(count, OPTIMIZER_BLOCK);
}

/* Calls update for parts [range.begin, range.end), counted over all segments. */
FNN_INLINE void update_parts(const union fnn_slot *segments, ptrdiff_t segment_count, update_block *update,
                             const void *settings, float *workspace, struct fnn_range range) {
    ptrdiff_t first = 0;
    for (ptrdiff_t s = 0; s < segment_count && first < range.end; s++) {
        const union fnn_slot *segment = segments + s * SEGMENT_SLOTS;
        const ptrdiff_t count = segment[SEGMENT_COUNT].size, parts = segment_parts(segment);
        for (ptrdiff_t i = fnn_max(range.begin - first, 0); i < fnn_min(parts, range.end - first); i++) {
            if (segment[SEGMENT_X].pointer) {
                FNN_FUNCTION(update_product)(segment, i, update, settings, workspace);
                continue;
            }
            const ptrdiff_t offset = i * OPTIMIZER_BLOCK;
            const struct parameter_block block =
                segment_block(segment, offset, fnn_min(count - offset, OPTIMIZER_BLOCK),
                              slot_array(&segment[SEGMENT_GRADIENT], offset));
            update(&block, settings);
        }
        first += parts;
    }
}

/* The table of a kernel's arguments, and its workspace. */
struct segment_table {
    const union fnn_slot *segments;
    ptrdiff_t count;
    float *workspace;
    ptrdiff_t workspace_stride;
};

#define SEGMENT_TABLE(args) \
    ((struct segment_table){(args)->segments, (args)->segment_count, (args)->workspace, (args)->workspace_stride})

/* Calls update for all parts. */
FNN_INLINE void update_segments(const struct segment_table *table, update_block *update, const void *settings,
                                const struct fnn_team *team) {
    ptrdiff_t total = 0;
    for (ptrdiff_t s = 0; s < table->count; s++) total += segment_parts(table->segments + s * SEGMENT_SLOTS);
    float *workspace = table->workspace + team->rank * table->workspace_stride;
    if (table->workspace_stride > 0) {
        FNN_FUNCTION(pack_products)(table->segments, table->count, team);
        fnn_barrier(team);
    }
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(total, 1, team); fnn_take(&work, &range);)
        update_parts(table->segments, table->count, update, settings, workspace, range);
}

/* The gradient with its sign turned for maximize and, unless the decay is 0, with weight_decay * parameter added. */
FNN_INLINE vec decayed_gradient(vec gradient, vec parameter, bool maximize, float weight_decay) {
    if (maximize) gradient = vec_neg(gradient);
    return weight_decay == 0.0f ? gradient : vec_fma(vec_set1(weight_decay), parameter, gradient);
}

#endif
