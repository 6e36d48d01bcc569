/* Gaussian and alpha dropout, on the random stream of dropout.c. x, y (count); y may be x. Parallel over blocks.
 *
 * gaussian_dropout: y[i] = x[i] * (1 + deviation * z[i]), z[i] standard normal by Box and Muller from words 2i and 2i + 1:
 *     z = sqrt(-2 ln u1) * cos(2 pi u2),  u1 = (bits + 1) * 2^-32,  u2 = bits * 2^-32
 *     The backward pass is the same kernel on dy. Error: |y - exact| <= 8 eps |x| (1 + deviation * sqrt(-2 ln u1)), eps = 2^-24.
 * alpha_dropout: y = scale * x + shift where kept, `dropped` where dropped, the mask as in dropout.c; one fused rounding.
 *     The backward pass is dropout with the same scale.
 * Sources: Srivastava et al., "Dropout", JMLR 2014; Klambauer et al., "Self-normalizing neural networks", NIPS 2017. */
#include "philox.h"
#include "vector_math.h"

enum { BLOCK = 1024 };

/* The word as a float, to one rounding. */
FNN_INLINE vec float_of_word(ivec word) {
    vec high = vec_from_int(ivec_shift_right(word, 16)), low = vec_from_int(ivec_and(word, ivec_set1(0xffffu)));
    return vec_fma(high, vec_set1(65536.0f), low);
}

/* ln((word + 1) * 2^-32): the logarithm of u rounded; near 1, where u lies d below it, plus what rounding 1 - d lost, over u. */
FNN_INLINE vec log_of_uniform(ivec word) {
    const vec unit = vec_set1(0x1p-32f), one = vec_set1(1.0f);
    vec distance = vec_mul(float_of_word(ivec_sub(ivec_set1(0xffffffffu), word)), unit);
    vec near_one = vec_sub(one, distance), lost = vec_sub(vec_sub(one, near_one), distance);
    mask below = ivec_less(word, ivec_set1(0x80000000u));
    vec u = vec_select(below, vec_mul(vec_add(float_of_word(word), one), unit), near_one);
    return vec_add(vec_log_positive(u), vec_select(below, vec_zero(), vec_div(lost, u)));
}

/* cos(2 pi word * 2^-32): eighths of a turn are taken off as whole numbers, the rest by the Taylor series of cos and sin,
 * whose next terms are below 2^-26 of the sum at pi/4. */
FNN_INLINE vec cosine_of_turn(ivec word) {
    ivec quarter = ivec_shift_right(ivec_add(word, ivec_set1(0x20000000u)), 30);
    ivec rest = ivec_sub(word, ivec_shift_left(quarter, 30));
    vec angle = vec_mul(vec_from_int(rest), vec_set1(1.46291807926715968105e-9f)); /* 2 pi / 2^32 */
    vec square = vec_mul(angle, angle), one = vec_set1(1.0f);
    vec cosine = vec_fma(square, vec_set1(2.48015873e-5f), vec_set1(-1.38888889e-3f));
    cosine = vec_fma(cosine, square, vec_set1(4.16666667e-2f));
    cosine = vec_fma(vec_mul(cosine, square), square, vec_fma(square, vec_set1(-0.5f), one));
    vec sine = vec_fma(square, vec_set1(2.75573192e-6f), vec_set1(-1.98412698e-4f));
    sine = vec_fma(sine, square, vec_set1(8.33333333e-3f));
    sine = vec_fma(sine, square, vec_set1(-1.66666667e-1f));
    sine = vec_fma(vec_mul(sine, square), angle, angle);
    const ivec zero = ivec_set1(0);
    mask is_cosine = ivec_equal(ivec_and(quarter, ivec_set1(1)), zero);
    ivec sign = ivec_and(ivec_add(quarter, ivec_set1(1)), ivec_set1(2)); /* negative in quarters 1 and 2 */
    vec value = vec_select(is_cosine, cosine, sine);
    return vec_from_bits(ivec_xor(ivec_from_float_bits(value), ivec_shift_left(sign, 30)));
}

FNN_INLINE vec normal_of_words(ivec first, ivec second) {
    vec radius = vec_sqrt(vec_max(vec_zero(), vec_mul(vec_set1(-2.0f), log_of_uniform(first))));
    return vec_mul(radius, cosine_of_turn(second));
}

void FNN_FUNCTION(gaussian_dropout)(const struct fnn_gaussian_dropout_args *args, const struct fnn_team *team) {
    struct fnn_range range = fnn_share_blocks(args->count, BLOCK, team);
    const struct philox_stream words_of = philox_stream(args->seed, args->layer, args->step);
    const vec deviation = vec_set1((float)args->deviation), one = vec_set1(1.0f);
    const bool stream = streams(args->x, args->y, args->count);
    for (ptrdiff_t i = range.begin; i < range.end; i += 2 * FNN_LANES) {
        ivec words[4];
        philox_counters(&words_of, (uint64_t)i >> 1, words); /* a counter serves two elements */
        vec even = normal_of_words(words[0], words[1]), odd = normal_of_words(words[2], words[3]);
        vec noise[2] = {vec_interleave_low(even, odd), vec_interleave_high(even, odd)};
        for (int v = 0; v < 2; v++) {
            ptrdiff_t at = i + v * FNN_LANES, n = lanes_left(range.end - at);
            if (n <= 0) break;
            vec factor = vec_fma(deviation, noise[v], one);
            put_lanes(stream, args->y + at, vec_mul(load_lanes(args->x + at, n), factor), n);
        }
    }
    vec_fence();
}

void FNN_FUNCTION(alpha_dropout)(const struct fnn_alpha_dropout_args *args, const struct fnn_team *team) {
    struct fnn_range range = fnn_share_blocks(args->count, BLOCK, team);
    const struct philox_stream words_of = philox_stream(args->seed, args->layer, args->step);
    const ivec threshold = ivec_set1(keep_threshold(args->probability));
    const vec scale = vec_set1((float)args->scale), shift = vec_set1((float)args->shift);
    const vec dropped = vec_set1((float)args->dropped);
    const bool all = args->probability >= 1.0, stream = streams(args->x, args->y, args->count);
    for (ptrdiff_t i = range.begin; i < range.end; i += PHILOX_WORDS) {
        ivec words[4];
        philox_words(&words_of, (uint64_t)i, words);
        for (int v = 0; v < 4; v++) {
            ptrdiff_t at = i + v * FNN_LANES, n = lanes_left(range.end - at);
            if (n <= 0) break;
            mask drop = all ? mask_first(FNN_LANES) : ivec_less(words[v], threshold);
            vec kept = vec_fma(scale, load_lanes(args->x + at, n), shift);
            put_lanes(stream, args->y + at, vec_select(drop, dropped, kept), n);
        }
    }
    vec_fence();
}
