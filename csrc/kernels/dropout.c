/* Dropout: y = scale * x where kept, exactly 0 where dropped, whatever x was.
 *
 * Element i (in memory order) is dropped when draw i of the stream (seed, layer, step), see draws.h, is below
 * floor(probability * 2^32); probability 1 drops all, 0 none. The mask is never stored: the backward pass is the same kernel
 * on dy. scale is 1 / (1 - probability) for inverted dropout. One rounding; masks are the same on every ISA.
 * y may be x. Parallel over blocks of elements.
 * Source: Srivastava et al., "Dropout", JMLR 2014; Tompson et al. 2015 for whole channels. */
#include <string.h>

#include "draws.h"

struct dropout_settings {
    const float *x;
    float *y;
    ivec threshold;
    vec scale;
    bool stream;
};

FNN_INLINE void drop(const void *context, ptrdiff_t first, ptrdiff_t count, const ivec draws[4]) {
    const struct dropout_settings *settings = context;
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        ptrdiff_t at = first + v * FNN_LANES, n = lanes_left(first + count - at);
        if (n <= 0) break;
        vec grown = vec_mul(load_lanes(settings->x + at, n), settings->scale);
        mask dropped = ivec_less(draws[v], settings->threshold);
        put_lanes(settings->stream, settings->y + at, vec_select(dropped, vec_zero(), grown), n);
    }
}

/* x, y (count) */
void FNN_FUNCTION(dropout)(const struct fnn_dropout_args *args, const struct fnn_team *team) {
    struct fnn_range range = fnn_share_blocks(args->count, DRAW_BLOCK, team);
    if (args->probability >= 1.0) {
        if (range.begin < range.end)
            memset(args->y + range.begin, 0, (size_t)(range.end - range.begin) * sizeof(float));
        return;
    }
    const struct philox_stream random = philox_stream(args->seed, args->layer, args->step);
    const struct dropout_settings settings = {.x = args->x,
                                              .y = args->y,
                                              .threshold = ivec_set1(keep_threshold(args->probability)),
                                              .scale = vec_set1((float)args->scale),
                                              .stream = streams(args->x, args->y, args->count)};
    draw(&random, range, drop, &settings);
    vec_fence();
}

enum { CHANNELS = 512 };

struct drawn_channels {
    ptrdiff_t start;
    uint32_t draws[CHANNELS + 2 * DRAW_GROUP]; /* of `start` and those after it */
};

FNN_INLINE void keep_draws(const void *context, ptrdiff_t first, ptrdiff_t count, const ivec draws[4]) {
    (void)count;
    struct drawn_channels *drawn = *(struct drawn_channels *const *)context;
    for (int v = 0; v < 4; v++) ivec_store(drawn->draws + (first - drawn->start) + v * FNN_LANES, draws[v]);
}

/* bits[c / FNN_LANES] bit c % FNN_LANES: whether draw first + c drops its channel, for c from 0 to count, at most CHANNELS. */
static void dropped_channels(const struct philox_stream *random, ivec threshold, bool all, ptrdiff_t first,
                             ptrdiff_t count, uint32_t bits[CHANNELS / FNN_LANES]) {
    struct drawn_channels drawn, *const context = &drawn;
    drawn.start = first / DRAW_GROUP * DRAW_GROUP;
    draw(random, (struct fnn_range){drawn.start, first + count}, keep_draws, &context);
    for (ptrdiff_t c = 0; c < count; c += FNN_LANES) {
        mask dropped = ivec_less(ivec_load(drawn.draws + (first - drawn.start) + c), threshold);
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
