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

/* Uses `count` draws, at most FNN_LANES, from draw `first` on; the other lanes have no element. */
typedef void use_draws(const void *settings, ptrdiff_t first, ptrdiff_t count, ivec draws);

/* Words whose draws are to be used: draw `first` and those after it, and as many DRAW_GROUP / 2 later. */
struct drawn_words {
    use_draws *use;
    const void *settings;
    ptrdiff_t first;
    ivec words[4];
};
enum { DRAWN_VECTORS = 2 * 4 };

/* Uses vector v of DRAWN_VECTORS, if draws from `first` on are at least so many. */
FNN_INLINE void use_vector(const struct drawn_words *drawn, int v, ptrdiff_t left) {
    ptrdiff_t at = v % 4 * FNN_LANES + v / 4 * (DRAW_GROUP / 2);
    ivec word = drawn->words[v % 4];
    if (at < left)
        drawn->use(drawn->settings, drawn->first + at, lanes_left(left - at), v < 4 ? word : ivec_swap_halves(word));
}

FNN_INLINE void use_meanwhile(const void *context, int round) { use_vector(context, round - 2, DRAW_GROUP); }
_Static_assert(PHILOX_ROUNDS - 2 == DRAWN_VECTORS, "in each round from the third on a vector is used");

FNN_INLINE void use_words(const struct drawn_words *drawn, ptrdiff_t left) {
#pragma GCC unroll 8
    for (int v = 0; v < DRAWN_VECTORS; v++) use_vector(drawn, v, left);
}

/* The first draw that is made of word w. */
FNN_INLINE ptrdiff_t draw_of_word(ptrdiff_t w) { return w + w / (DRAW_GROUP / 2) * (DRAW_GROUP / 2); }

/* Every draw of a range that begins at a multiple of DRAW_GROUP and lies in one block of DRAW_BLOCK draws. Those of whole groups
 * are used while the next ones are made. */
FNN_INLINE void draw_block(const struct philox_stream *random, struct fnn_range range, use_draws *use,
                           const void *settings) {
    const struct philox_prefix prefix = philox_prefix(random, (uint64_t)range.begin / 2);
    struct drawn_words drawn = {.use = use, .settings = settings, .first = range.begin};
    ptrdiff_t word = range.begin / 2, end = word + (range.end - range.begin) / DRAW_GROUP * (DRAW_GROUP / 2);
    if (word < end) {
        philox_words(random, &prefix, (uint64_t)word, drawn.words, philox_idle, NULL);
        for (word += PHILOX_WORDS; word < end; word += PHILOX_WORDS) {
            ivec next[4];
            philox_words(random, &prefix, (uint64_t)word, next, use_meanwhile, &drawn);
            for (int v = 0; v < 4; v++) drawn.words[v] = next[v];
            drawn.first = draw_of_word(word);
        }
        use_words(&drawn, DRAW_GROUP);
    }
    for (; draw_of_word(word) < range.end && word < end + DRAW_GROUP / 2; word += PHILOX_WORDS) {
        philox_words(random, &prefix, (uint64_t)word, drawn.words, philox_idle, NULL);
        drawn.first = draw_of_word(word);
        use_words(&drawn, range.end - drawn.first);
    }
}

/* Every draw of a range that begins at a multiple of DRAW_GROUP. */
FNN_INLINE void draw(const struct philox_stream *random, struct fnn_range range, use_draws *use, const void *settings) {
    for (ptrdiff_t i = range.begin, end; i < range.end; i = end) {
        end = fnn_min((i / DRAW_BLOCK + 1) * DRAW_BLOCK, range.end);
        draw_block(random, (struct fnn_range){i, end}, use, settings);
    }
}

#endif
