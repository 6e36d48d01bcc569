/* A list of arrays worked on in one call: the blocks of all of them, laid end to end, are shared by the team.
 *
 * A table holds for each segment `slots` slots, the last of them its count. Each is cut into blocks of SEGMENT_BLOCK
 * elements, by its count alone, and each block has a number: what is summed over a block has a place of its own. */
#ifndef FASTNN_KERNELS_SEGMENTS_H
#define FASTNN_KERNELS_SEGMENTS_H

#include "lanes.h"

enum { SEGMENT_BLOCK = 4096 };

/* Part of one segment: its slots, the elements [begin, end), and the block's number among those of all segments. */
struct segment_block {
    const union fnn_slot *slots;
    ptrdiff_t begin, end, number;
};

typedef void work_on_block(const struct segment_block *block, void *context);

static inline ptrdiff_t segment_blocks(ptrdiff_t count) { return fnn_ceil_div(count, SEGMENT_BLOCK); }

static inline const float *segment_input(const struct segment_block *block, int slot) {
    return block->slots[slot].pointer;
}

static inline float *segment_output(const struct segment_block *block, int slot) {
    return (float *)(uintptr_t)block->slots[slot].pointer;
}

/* The number of blocks of all segments. */
static inline ptrdiff_t all_blocks(const union fnn_slot *segments, ptrdiff_t segment_count, int slots) {
    ptrdiff_t total = 0;
    for (ptrdiff_t s = 0; s < segment_count; s++) total += segment_blocks(segments[s * slots + slots - 1].size);
    return total;
}

/* Calls work for this thread's blocks. */
FNN_INLINE void for_blocks(const union fnn_slot *segments, ptrdiff_t segment_count, int slots, work_on_block *work,
                           void *context, const struct fnn_team *team) {
    struct fnn_range range = fnn_share(all_blocks(segments, segment_count, slots), team);
    ptrdiff_t first = 0;
    for (ptrdiff_t s = 0; s < segment_count && first < range.end; s++) {
        const union fnn_slot *segment = segments + s * slots;
        ptrdiff_t count = segment[slots - 1].size, blocks = segment_blocks(count);
        for (ptrdiff_t b = fnn_max(range.begin - first, 0); b < fnn_min(blocks, range.end - first); b++) {
            struct segment_block block = {segment, b * SEGMENT_BLOCK, fnn_min((b + 1) * SEGMENT_BLOCK, count),
                                          first + b};
            work(&block, context);
        }
        first += blocks;
    }
}

/* A sum of squares of floats in four chains: error (count / (4 * lanes) + 8) eps of the sum. */
FNN_INLINE double sum_of_squares(const float *x, ptrdiff_t begin, ptrdiff_t end) {
    vec sums[4] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};
    int chain = 0;
    for (ptrdiff_t i = begin; i < end; i += FNN_LANES, chain = (chain + 1) & 3) {
        vec value = load_lanes(x + i, lanes_left(end - i));
        sums[chain] = vec_fma(value, value, sums[chain]);
    }
    return vec_sum(vec_add(vec_add(sums[0], sums[1]), vec_add(sums[2], sums[3])));
}

/* The larger of two numbers, and NaN if either is. */
static inline float largest_of(float a, float b) { return b > a || b != b ? b : a; }

/* The largest magnitude; NaN if one element is NaN. */
FNN_INLINE float largest_magnitude(const float *x, ptrdiff_t begin, ptrdiff_t end) {
    vec largest = vec_zero();
    for (ptrdiff_t i = begin; i < end; i += FNN_LANES) {
        vec value = vec_abs(load_lanes(x + i, lanes_left(end - i)));
        largest = vec_select(vec_is_nan(value), value, vec_max(value, largest));
    }
    float lanes[FNN_LANES], result = 0.0f;
    vec_store(lanes, largest);
    for (int lane = 0; lane < FNN_LANES; lane++) result = largest_of(result, lanes[lane]);
    return result;
}

#endif
