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
};

FNN_INLINE void drop(const bool stream, const struct dropout_settings *settings, ptrdiff_t at, ptrdiff_t n,
                     ivec draws) {
    vec grown = vec_mul(load_lanes(settings->x + at, n), settings->scale);
    mask kept = ivec_less_equal(settings->threshold, draws);
    put_lanes(stream, settings->y + at, vec_keep(kept, grown), n);
}

FNN_INLINE void drop_stored(const void *settings, ptrdiff_t at, ptrdiff_t n, ivec draws) {
    drop(false, settings, at, n, draws);
}

FNN_INLINE void drop_streamed(const void *settings, ptrdiff_t at, ptrdiff_t n, ivec draws) {
    drop(true, settings, at, n, draws);
}

static void drop_range(const struct fnn_dropout_args *args, struct fnn_range range) {
    const struct philox_stream random = philox_stream(args->seed, args->layer, args->step);
    const struct dropout_settings settings = {.x = args->x,
                                              .y = args->y,
                                              .threshold = ivec_set1(keep_threshold(args->probability)),
                                              .scale = vec_set1((float)args->scale)};
    if (streams(args->x, args->y, args->count))
        draw(&random, range, drop_streamed, &settings);
    else
        draw(&random, range, drop_stored, &settings);
    vec_fence();
}

/* x, y (count) */
void FNN_FUNCTION(dropout)(const struct fnn_dropout_args *args, const struct fnn_team *team) {
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->count, DRAW_BLOCK, team); fnn_take(&work, &range);)
        if (args->probability >= 1.0)
            memset(args->y + range.begin, 0, (size_t)(range.end - range.begin) * sizeof(float));
        else
            drop_range(args, range);
}

enum { CHANNELS = 512 };

struct drawn_channels {
    ptrdiff_t start;
    uint32_t draws[CHANNELS + 2 * DRAW_GROUP]; /* of `start` and those after it */
};

FNN_INLINE void keep_draws(const void *context, ptrdiff_t first, ptrdiff_t count, ivec draws) {
    (void)count;
    struct drawn_channels *drawn = *(struct drawn_channels *const *)context;
    ivec_store(drawn->draws + (first - drawn->start), draws);
}

/* bits[c / FNN_LANES] bit c % FNN_LANES: whether draw first + c keeps its channel, for c from 0 to count, at most CHANNELS. */
static void kept_channels(const struct philox_stream *random, ivec threshold, bool none, ptrdiff_t first,
                          ptrdiff_t count, uint32_t bits[CHANNELS / FNN_LANES]) {
    struct drawn_channels drawn, *const context = &drawn;
    drawn.start = first / DRAW_GROUP * DRAW_GROUP;
    draw(random, (struct fnn_range){drawn.start, first + count}, keep_draws, &context);
    for (ptrdiff_t c = 0; c < count; c += FNN_LANES) {
        mask kept = ivec_less_equal(threshold, ivec_load(drawn.draws + (first - drawn.start) + c));
        bits[c / FNN_LANES] = none ? 0 : mask_bits(kept);
    }
}

/* One decision for each (n, c), number n*C + c: x, y (batch, positions, channels). */
void FNN_FUNCTION(dropout_channels)(const struct fnn_dropout_channels_args *args, const struct fnn_team *team) {
    ptrdiff_t channels = args->channels, positions = args->positions;
    const struct philox_stream random = philox_stream(args->seed, args->layer, args->step);
    const ivec threshold = ivec_set1(keep_threshold(args->probability));
    const vec scale = vec_set1((float)args->scale);
    const bool stream = channels % FNN_LANES == 0 && streams(args->x, args->y, args->batch * positions * channels);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->batch * positions, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t r = range.begin; r < range.end;) {
            ptrdiff_t image = r / positions, end = fnn_min(range.end, (image + 1) * positions);
            for (ptrdiff_t first = 0; first < channels; first += CHANNELS) {
                ptrdiff_t last = fnn_min(first + CHANNELS, channels);
                uint32_t bits[CHANNELS / FNN_LANES];
                kept_channels(&random, threshold, args->probability >= 1.0, image * channels + first, last - first,
                              bits);
                for (ptrdiff_t row = r; row < end; row++)
                    for (ptrdiff_t c = first; c < last; c += FNN_LANES) {
                        ptrdiff_t n = lanes_left(last - c), at = row * channels + c;
                        mask kept = mask_from_bits(bits[(c - first) / FNN_LANES]);
                        vec grown = vec_mul(load_lanes(args->x + at, n), scale);
                        put_lanes(stream, args->y + at, vec_keep(kept, grown), n);
                    }
            }
            r = end;
        }
    vec_fence();
}
