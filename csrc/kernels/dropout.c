/* Dropout: y = scale * x where kept, exactly 0 where dropped, whatever x was.
 *
 * Element i (in memory order) of the stream (seed, layer, step) is dropped when its Philox word is below
 * floor(probability * 2^32); probability 1 drops all, 0 none. The mask is never stored: the backward pass is the same kernel
 * on dy. scale is 1 / (1 - probability) for inverted dropout. One rounding; masks are the same on every ISA.
 * y may be x. Parallel over blocks of elements.
 * Source: Srivastava et al., "Dropout", JMLR 2014; Tompson et al. 2015 for whole channels. */
#include <string.h>

#include "philox.h"

/* `count` elements, at most PHILOX_WORDS. */
FNN_INLINE void drop(bool stream, const float *x, float *y, ptrdiff_t count, const ivec words[4], ivec threshold,
                     vec scale) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        ptrdiff_t at = v * FNN_LANES, n = lanes_left(count - at);
        if (n <= 0) break;
        vec grown = vec_mul(load_lanes(x + at, n), scale);
        put_lanes(stream, y + at, vec_select(ivec_less(words[v], threshold), vec_zero(), grown), n);
    }
}

/* x, y (count) */
void FNN_FUNCTION(dropout)(const struct fnn_dropout_args *args, const struct fnn_team *team) {
    struct fnn_range range = fnn_share_blocks(args->count, PHILOX_BLOCK, team);
    const struct philox_stream random = philox_stream(args->seed, args->layer, args->step);
    const ivec threshold = ivec_set1(keep_threshold(args->probability));
    const vec scale = vec_set1((float)args->scale);
    if (args->probability >= 1.0) {
        if (range.begin < range.end)
            memset(args->y + range.begin, 0, (size_t)(range.end - range.begin) * sizeof(float));
        return;
    }
    const bool stream = streams(args->x, args->y, args->count);
    for (ptrdiff_t i = range.begin; i < range.end; i += PHILOX_BLOCK) {
        const struct philox_prefix prefix = philox_prefix(&random, (uint64_t)i);
        ptrdiff_t end = fnn_min(i + PHILOX_BLOCK, range.end);
        for (ptrdiff_t j = i; j < end; j += PHILOX_WORDS) {
            ivec words[4];
            philox_words(&random, &prefix, (uint64_t)j, words);
            if (end - j >= PHILOX_WORDS)
                drop(stream, args->x + j, args->y + j, PHILOX_WORDS, words, threshold, scale);
            else
                drop(stream, args->x + j, args->y + j, end - j, words, threshold, scale);
        }
    }
    vec_fence();
}

enum { CHANNELS = 512 };

/* bits[c / FNN_LANES] bit c % FNN_LANES: whether word first + c drops its channel, for c from 0 to count, at most CHANNELS. */
static void dropped_channels(const struct philox_stream *random, ivec threshold, bool all, ptrdiff_t first,
                             ptrdiff_t count, uint32_t bits[CHANNELS / FNN_LANES]) {
    uint32_t lanes[CHANNELS + 3 * PHILOX_WORDS];
    const ptrdiff_t start = first / PHILOX_WORDS * PHILOX_WORDS;
    for (ptrdiff_t w = start; w < first + count; w += PHILOX_WORDS) {
        const struct philox_prefix prefix = philox_prefix(random, (uint64_t)w);
        ivec words[4];
        philox_words(random, &prefix, (uint64_t)w, words);
        for (int v = 0; v < 4; v++) ivec_store(lanes + (w - start) + v * FNN_LANES, words[v]);
    }
    for (ptrdiff_t c = 0; c < count; c += FNN_LANES) {
        mask dropped = ivec_less(ivec_load(lanes + (first - start) + c), threshold);
        bits[c / FNN_LANES] = mask_bits(all ? mask_first(FNN_LANES) : dropped);
    }
}

/* One decision for each (n, c), number n*C + c: x, y (batch, positions, channels). */
void FNN_FUNCTION(dropout_channels)(const struct fnn_dropout_channels_args *args, const struct fnn_team *team) {
    ptrdiff_t channels = args->channels, positions = args->positions;
    const struct philox_stream random = philox_stream(args->seed, args->layer, args->step);
    const ivec threshold = ivec_set1(keep_threshold(args->probability));
    const vec scale = vec_set1((float)args->scale);
    const bool stream = channels % FNN_LANES == 0 && streams(args->x, args->y, args->batch * positions * channels);
    struct fnn_range range = fnn_share(args->batch * positions, team);
    for (ptrdiff_t r = range.begin; r < range.end;) {
        ptrdiff_t image = r / positions, end = fnn_min(range.end, (image + 1) * positions);
        for (ptrdiff_t first = 0; first < channels; first += CHANNELS) {
            ptrdiff_t last = fnn_min(first + CHANNELS, channels);
            uint32_t bits[CHANNELS / FNN_LANES];
            dropped_channels(&random, threshold, args->probability >= 1.0, image * channels + first, last - first,
                             bits);
            for (ptrdiff_t row = r; row < end; row++)
                for (ptrdiff_t c = first; c < last; c += FNN_LANES) {
                    ptrdiff_t n = lanes_left(last - c), at = row * channels + c;
                    mask dropped = mask_from_bits(bits[(c - first) / FNN_LANES]);
                    vec grown = vec_mul(load_lanes(args->x + at, n), scale);
                    put_lanes(stream, args->y + at, vec_select(dropped, vec_zero(), grown), n);
                }
        }
        r = end;
    }
    vec_fence();
}
