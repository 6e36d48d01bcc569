/* The random numbers that decide which elements dropout drops: two of each Philox word.
 *
 * Draw i of a layer's stream at a step is word g * 64 + (i % 64) for g = i / 128; where i % 128 >= 64, with its upper and lower 16 bits
 * exchanged. Each draw is uniform over 32 bits, so an element is dropped with the very probability that its threshold says.
 * Draws i and i + 64 of one word are as good as independent: the probability that both are below a threshold t = p * 2^32 is p^2
 * but for 2^-17 at most, whatever t is, for either event is decided by other bits unless a half equals the threshold's upper half.
 * All else that philox.h says of words holds for draws: they are a function of (seed, layer, step, i), the same on every ISA. */
#ifndef FASTNN_KERNELS_DRAWS_H
#define FASTNN_KERNELS_DRAWS_H

#include "philox.h"

/* Draws that share their words, and draws within whose aligned blocks one prefix serves. */
enum { DRAW_GROUP = 128, DRAW_BLOCK = 2 * PHILOX_BLOCK };
_Static_assert(DRAW_GROUP / 2 % PHILOX_WORDS == 0, "a group of draws is made of whole calls of philox_words");

/* The least draw that keeps an element which is dropped with the given probability (below 1). */
static inline uint32_t keep_threshold(double probability) {
    double threshold = probability * 4294967296.0;
    return threshold >= 4294967295.0 ? 0xffffffffu : (uint32_t)threshold;
}

/* Uses draws `first` to first + count, of which count is at most 4 * FNN_LANES; the others of draws[] have no element. */
typedef void use_draws(const void *settings, ptrdiff_t first, ptrdiff_t count, const ivec draws[4]);

/* Every draw of a range that begins at a multiple of DRAW_GROUP. */
FNN_INLINE void draw(const struct philox_stream *random, struct fnn_range range, use_draws *use, const void *settings) {
    const ptrdiff_t half = DRAW_GROUP / 2;
    for (ptrdiff_t i = range.begin, end; i < range.end; i = end) {
        const struct philox_prefix prefix = philox_prefix(random, (uint64_t)i / 2);
        end = fnn_min((i / DRAW_BLOCK + 1) * DRAW_BLOCK, range.end);
        for (ptrdiff_t group = i; group < end; group += DRAW_GROUP)
            for (ptrdiff_t first = group; first < fnn_min(group + half, end); first += PHILOX_WORDS) {
                ivec words[4];
                philox_words(random, &prefix, (uint64_t)(first - group / 2), words);
                use(settings, first, fnn_min(end - first, PHILOX_WORDS), words);
                if (first + half >= end) continue;
#pragma GCC unroll 4
                for (int v = 0; v < 4; v++) words[v] = ivec_swap_halves(words[v]);
                use(settings, first + half, fnn_min(end - first - half, PHILOX_WORDS), words);
            }
    }
}

#endif
