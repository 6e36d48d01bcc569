/* Leaky ReLU with a slope drawn for each element, on the random stream of philox.h.
 *
 *     y[i] = v[i] where x[i] > 0, else slope[i] * v[i];    slope[i] = lower + (upper - lower) * u[i]
 *     u[i] = (word i of the stream >> 8) * 2^-24, in [0, 1)
 *
 * Forward: v = x. Backward: v = dy, y = dx; the slopes are drawn again, never stored. v, x, y (count); y may be v, and x.
 * Error: of a slope one rounding of |upper - lower| and two of the slope, of y one more, relative eps = 2^-24.
 * Parallel over blocks. Source: Xu et al., "Empirical evaluation of rectified activations in convolutional network", 2015. */
#include "philox.h"

void FNN_FUNCTION(random_rectifier)(const struct fnn_random_rectifier_args *args, const struct fnn_team *team) {
    struct fnn_range range;
    const struct philox_stream random = philox_stream(args->seed, args->layer, args->step);
    const vec lower = vec_set1((float)args->lower), width = vec_set1((float)(args->upper - args->lower));
    const vec unit = vec_set1(0x1p-24f), one = vec_set1(1.0f);
    for (struct fnn_work work = fnn_work(args->count, PHILOX_BLOCK, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin; i < range.end; i += PHILOX_BLOCK) {
            const struct philox_prefix prefix = philox_prefix(&random, (uint64_t)i);
            ptrdiff_t end = fnn_min(i + PHILOX_BLOCK, range.end);
            for (ptrdiff_t j = i; j < end; j += PHILOX_WORDS) {
                ivec words[4];
                philox_words(&random, &prefix, (uint64_t)j, words, philox_idle, NULL);
                for (int v = 0; v < 4; v++) {
                    ptrdiff_t at = j + v * FNN_LANES, n = lanes_left(end - at);
                    if (n <= 0) break;
                    vec slope = vec_fma(width, vec_mul(vec_from_int(ivec_shift_right(words[v], 8)), unit), lower);
                    vec factor = vec_select(vec_less(vec_zero(), load_lanes(args->x + at, n)), one, slope);
                    store_lanes(args->y + at, vec_mul(load_lanes(args->values + at, n), factor), n);
                }
            }
        }
}
