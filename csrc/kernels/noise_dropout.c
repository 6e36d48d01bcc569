/* Gaussian and alpha dropout. x, y (count); y may be x. Parallel over blocks.
 *
 * gaussian_dropout: y[i] = x[i] * (1 + deviation * z[i]), z[2k] and z[2k + 1] standard normal by Box and Muller from
 *     words 2k and 2k + 1 of the stream of philox.h, u1 = (bits + 1) * 2^-32 and u2 = bits * 2^-32:
 *     z[2k] = sqrt(-2 ln u1) * cos(2 pi u2),  z[2k + 1] = sqrt(-2 ln u1) * sin(2 pi u2)
 *     The backward pass is the same kernel on dy. Error: |y - exact| <= 8 eps |x| (1 + deviation * sqrt(-2 ln u1)), eps = 2^-24.
 * alpha_dropout: y = scale * x + shift where kept, `dropped` where dropped, the mask as in dropout.c; one fused rounding.
 *     The backward pass is dropout with the same scale.
 * Sources: Srivastava et al., "Dropout", JMLR 2014; Klambauer et al., "Self-normalizing neural networks", NIPS 2017. */
#include "draws.h"
#include "vector_math.h"

/* ln((word + 1) * 2^-32). The word or its complement, whichever is below 2^31, becomes a float: near 1 the distance to 1 does. */
FNN_INLINE vec log_of_uniform(ivec word) {
    const vec unit = vec_set1(0x1p-32f);
    mask near_one = ivec_less_equal(ivec_set1(0x80000000u), word);
    ivec whole = ivec_xor(word, ivec_shift_right_arithmetic(word, 31));
    vec part = vec_mul(vec_from_int(whole), unit), rest;
    vec u = vec_select(near_one, vec_sub(vec_set1(1.0f), part), vec_add(part, unit));
    vec exponent = vec_log_split(u, &rest);
    rest = vec_select(vec_equal(exponent, vec_zero()), vec_neg(part), rest); /* from sqrt(1/2) to 1 */
    return vec_log_combine(exponent, rest);
}

/* sin(2 pi part * 2^-32) for |part| <= 2^30, an int32: a minimax fit on [-pi/2, pi/2], absolute error 4.7e-9. */
FNN_INLINE vec sine_of_part(ivec part) {
    vec angle = vec_mul(vec_from_int(part), vec_set1(1.46291807926715968105e-9f)); /* 2 pi / 2^32 */
    vec square = vec_mul(angle, angle);
    vec p = vec_fma(square, vec_set1(2.600054131e-06f), vec_set1(-1.980661473e-04f));
    p = vec_fma(p, square, vec_set1(8.333017118e-03f));
    p = vec_fma(p, square, vec_set1(-1.666665673e-01f));
    return vec_fma(vec_mul(p, square), angle, angle);
}

FNN_INLINE ivec magnitude(ivec a) {
    ivec sign = ivec_shift_right_arithmetic(a, 31);
    return ivec_sub(ivec_xor(a, sign), sign);
}

/* One standard normal number and another one. The cosine of a turn t in [-1/2, 1/2) is the sine of 1/4 - |t|, and the sine that of
 * 1/4 - |1/4 - |t|| with the sign of t. */
FNN_INLINE void normals_of_words(ivec first, ivec second, vec *one, vec *other) {
    const ivec quarter = ivec_set1(0x40000000u);
    ivec less = ivec_sub(quarter, magnitude(second)), sign = ivec_and(second, ivec_set1(0x80000000u));
    vec radius = vec_sqrt(vec_mul(vec_set1(-2.0f), log_of_uniform(first)));
    vec sine = sine_of_part(ivec_sub(quarter, magnitude(less)));
    *one = vec_mul(radius, sine_of_part(less));
    *other = vec_mul(radius, vec_from_bits(ivec_xor(ivec_from_float_bits(sine), sign)));
}

/* `count` elements, at most 4 * FNN_LANES. */
FNN_INLINE void add_noise(bool stream, const float *x, float *y, ptrdiff_t count, const ivec even[2], const ivec odd[2],
                          vec deviation) {
    vec normals[4];
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
        vec one, other;
        normals_of_words(even[v], odd[v], &one, &other);
        normals[2 * v] = vec_interleave_low(one, other);
        normals[2 * v + 1] = vec_interleave_high(one, other);
    }
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        ptrdiff_t at = v * FNN_LANES, n = lanes_left(count - at);
        if (n <= 0) break;
        vec factor = vec_fma(deviation, normals[v], vec_set1(1.0f));
        put_lanes(stream, y + at, vec_mul(load_lanes(x + at, n), factor), n);
    }
}

void FNN_FUNCTION(gaussian_dropout)(const struct fnn_gaussian_dropout_args *args, const struct fnn_team *team) {
    struct fnn_range range;
    const struct philox_stream random = philox_stream(args->seed, args->layer, args->step);
    const vec deviation = vec_set1((float)args->deviation);
    const bool stream = streams(args->x, args->y, args->count);
    for (struct fnn_work work = fnn_work(args->count, PHILOX_BLOCK, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin; i < range.end; i += PHILOX_BLOCK) {
            const struct philox_prefix prefix = philox_prefix(&random, (uint64_t)i);
            ptrdiff_t end = fnn_min(i + PHILOX_BLOCK, range.end);
            for (ptrdiff_t j = i; j < end; j += PHILOX_WORDS) {
                ivec even[2], odd[2];
                philox_pairs(&random, &prefix, (uint64_t)j, even, odd, philox_idle, NULL);
                add_noise(stream, args->x + j, args->y + j, fnn_min(end - j, PHILOX_WORDS), even, odd, deviation);
            }
        }
    vec_fence();
}

struct alpha_settings {
    const float *x;
    float *y;
    ivec threshold;
    vec scale, shift, dropped;
    bool none;
};

FNN_INLINE void drop(const bool stream, const struct alpha_settings *settings, ptrdiff_t at, ptrdiff_t n, ivec draws) {
    vec kept = vec_fma(settings->scale, load_lanes(settings->x + at, n), settings->shift);
    mask keep = settings->none ? mask_first(0) : ivec_less_equal(settings->threshold, draws);
    put_lanes(stream, settings->y + at, vec_select(keep, kept, settings->dropped), n);
}

FNN_INLINE void drop_stored(const void *settings, ptrdiff_t at, ptrdiff_t n, ivec draws) {
    drop(false, settings, at, n, draws);
}

FNN_INLINE void drop_streamed(const void *settings, ptrdiff_t at, ptrdiff_t n, ivec draws) {
    drop(true, settings, at, n, draws);
}

static void drop_range(const struct fnn_alpha_dropout_args *args, struct fnn_range range) {
    const struct philox_stream random = philox_stream(args->seed, args->layer, args->step);
    const struct alpha_settings settings = {.x = args->x,
                                            .y = args->y,
                                            .threshold = ivec_set1(keep_threshold(args->probability)),
                                            .scale = vec_set1((float)args->scale),
                                            .shift = vec_set1((float)args->shift),
                                            .dropped = vec_set1((float)args->dropped),
                                            .none = args->probability >= 1.0};
    if (streams(args->x, args->y, args->count))
        draw(&random, range, drop_streamed, &settings);
    else
        draw(&random, range, drop_stored, &settings);
    vec_fence();
}

void FNN_FUNCTION(alpha_dropout)(const struct fnn_alpha_dropout_args *args, const struct fnn_team *team) {
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->count, DRAW_BLOCK, team); fnn_take(&work, &range);)
        drop_range(args, range);
}
