/* Gaussian and alpha dropout. x, y (count); y may be x. Parallel over blocks.
 *
 * gaussian_dropout: y[i] = x[i] * (1 + deviation * z[i]), z standard normal by Box and Muller. Each pair of words (2k, 2k + 1), k < 32,
 *     of 64 words of the stream of philox.h makes numbers k and k + 32 of 128; with upper and lower 16 bits of both exchanged (draws.h
 *     says why that is as good as other words) numbers k + 64 and k + 96. With u the float32 next to the odd number
 *     (first >> 1 | 1), times 2^-31, and t the second word as an int32, times 2^-31:
 *     z[k] = sqrt(-2 ln u) * cos(pi/2 t), its sign turned if the first word is odd;  z[k + 32] = sqrt(-2 ln u) * sin(pi/2 t)
 *     The backward pass is the same kernel on dy. Error: |y - exact| <= 8 eps |x| (1 + deviation * sqrt(-2 ln u)), eps = 2^-24.
 * alpha_dropout: y = scale * x + shift where kept, `dropped` where dropped, the mask as in dropout.c; one fused rounding.
 *     The backward pass is dropout with the same scale.
 * Sources: Srivastava et al., "Dropout", JMLR 2014; Klambauer et al., "Self-normalizing neural networks", NIPS 2017. */
#include "draws.h"

/* Normal numbers that share their words, and pairs of words that make them. */
enum { NORMAL_GROUP = DRAW_GROUP, NORMAL_PAIRS = NORMAL_GROUP / 4 };
_Static_assert(NORMAL_PAIRS % (2 * FNN_LANES) == 0, "a group of normal numbers is made of whole calls of philox_pairs");

/* (deviation * sqrt(-2 ln u))^2 = e * per_power + s * (c[0] + c[1] s^2 + ...), u = 2^e (1 + f), s = f / (2 + f): 2 artanh(s) is
 * log(1 + f). A minimax fit over sqrt(1/2) <= 1 + f < sqrt(2), relative error 8.1e-10. */
struct radius_terms {
    vec per_power, c[4];
};

static inline struct radius_terms radius_terms(double deviation) {
    const double scale = -2.0 * deviation * deviation;
    const double c[4] = {2.0, 0.666667763816, 0.399775415757, 0.298717277734};
    struct radius_terms terms = {.per_power = vec_set1((float)(scale * 0.69314718055994531))};
    for (int i = 0; i < 4; i++) terms.c[i] = vec_set1((float)(scale * c[i]));
    return terms;
}

/* deviation * sqrt(-2 ln u) */
FNN_INLINE vec radius_of_word(const struct radius_terms *terms, ivec word) {
    const vec one = vec_set1(1.0f);
    const ivec root = ivec_set1(0x3f3504f3u); /* bits of sqrt(1/2) */
    vec whole = vec_from_int(ivec_or(ivec_shift_right(word, 1), ivec_set1(1)));
    ivec shifted = ivec_sub(ivec_from_float_bits(whole), ivec_set1(0x3f3504f3u + (31u << 23)));
    vec power = vec_from_int(ivec_shift_right_arithmetic(shifted, 23));
    vec rest = vec_from_bits(ivec_add(ivec_and(shifted, ivec_set1(0x007fffffu)), root));
    vec s = vec_quotient(vec_sub(rest, one), vec_add(rest, one)), z = vec_mul(s, s);
    vec p = vec_fma(vec_fma(vec_fma(terms->c[3], z, terms->c[2]), z, terms->c[1]), z, terms->c[0]);
    return vec_sqrt(vec_fma(power, terms->per_power, vec_mul(p, s)));
}

/* cos(pi/2 t) and sin(pi/2 t), |t| <= 1: minimax fits, absolute errors 5.3e-8 and 3.4e-9. */
FNN_INLINE vec cosine_of_square(vec square) {
    vec p = vec_fma(vec_set1(8.59690062631e-04f), square, vec_set1(-2.08139666624e-02f));
    p = vec_fma(p, square, vec_set1(2.53653208854e-01f));
    return vec_fma(vec_fma(p, square, vec_set1(-1.23369887953f)), square, vec_set1(1.0f));
}

FNN_INLINE vec sine(vec t, vec square) {
    vec p = vec_fma(vec_set1(1.50820564457e-04f), square, vec_set1(-4.6722279233e-03f));
    p = vec_fma(p, square, vec_set1(7.96884805406e-02f));
    p = vec_fma(vec_fma(p, square, vec_set1(-6.45963359866e-01f)), square, vec_set1(1.57079629002f));
    return vec_mul(t, p);
}

/* Pairs of words whose normal numbers are to be used: pair k of a group and those after it, for the elements from x and y + k on. */
struct noise {
    const struct radius_terms *terms;
    const float *x;
    float *y;
    ivec first[2], second[2];
};

/* y = x * (1 + deviation * z) for the two normal numbers of each pair of words: elements x and NORMAL_PAIRS after them. */
FNN_INLINE void add_pairs(bool stream, const struct radius_terms *terms, const float *x, float *y, ivec first,
                          ivec second) {
    const vec one = vec_set1(1.0f);
    vec t = vec_mul(vec_from_int(second), vec_set1(0x1p-31f)), square = vec_mul(t, t);
    vec radius = radius_of_word(terms, first);
    ivec turned = ivec_xor(ivec_from_float_bits(cosine_of_square(square)), ivec_shift_left(first, 31));
    vec other = vec_mul(vec_load(x + NORMAL_PAIRS), vec_fma(radius, sine(t, square), one));
    put_lanes(stream, y, vec_mul(vec_load(x), vec_fma(radius, vec_from_bits(turned), one)), FNN_LANES);
    put_lanes(stream, y + NORMAL_PAIRS, other, FNN_LANES);
}

/* Part `part` of 4: a vector of pairs, as they are or with halves exchanged. */
FNN_INLINE void add_noise(bool stream, const struct noise *noise, int part) {
    const int v = part % 2, at = v * FNN_LANES + part / 2 * (NORMAL_GROUP / 2);
    ivec first = noise->first[v], second = noise->second[v];
    if (part >= 2) first = ivec_swap_halves(first), second = ivec_swap_halves(second);
    add_pairs(stream, noise->terms, noise->x + at, noise->y + at, first, second);
}

FNN_INLINE void add_noise_stored(const void *noise, int round) {
    if (round % 2 == 0) add_noise(false, noise, round / 2 - 1);
}

FNN_INLINE void add_noise_streamed(const void *noise, int round) {
    if (round % 2 == 0) add_noise(true, noise, round / 2 - 1);
}
_Static_assert(PHILOX_ROUNDS - 2 == 2 * 4, "in every other round from the third on a part is done");

/* As philox_pairs. Not a part of the loops that make more words: it would be there twice. */
static __attribute__((noinline)) void first_pairs(const struct philox_stream *random,
                                                  const struct philox_prefix *prefix, uint64_t first, ivec even[2],
                                                  ivec odd[2]) {
    philox_pairs(random, prefix, first, even, odd, philox_idle, NULL);
}

/* Whole groups that lie in one block of DRAW_BLOCK elements, from element `first` on: x, y. The words of each call are used while
 * the next ones are made; the last call is made for that alone. */
FNN_INLINE void noise_block(const struct philox_stream *random, const struct radius_terms *terms, const float *x,
                            float *y, ptrdiff_t first, ptrdiff_t groups, philox_meanwhile *add) {
    const struct philox_prefix prefix = philox_prefix(random, (uint64_t)first / 2);
    ivec even[2], odd[2];
    first_pairs(random, &prefix, (uint64_t)first / 2, even, odd);
    /* Copies that no store to y can change: so that loads from them may be put before it. */
    const struct philox_stream own_random = *random;
    const struct philox_prefix own_prefix = prefix;
    const struct radius_terms own_terms = *terms;
    struct noise noise = {.terms = &own_terms, .first = {even[0], even[1]}, .second = {odd[0], odd[1]}};
    for (ptrdiff_t k = 0; k < groups * NORMAL_PAIRS; k += 2 * FNN_LANES) {
        const ptrdiff_t at = k / NORMAL_PAIRS * NORMAL_GROUP + k % NORMAL_PAIRS;
        noise.x = x + at;
        noise.y = y + at;
        ivec next_even[2], next_odd[2];
        philox_pairs(&own_random, &own_prefix, (uint64_t)(first / 2 + 2 * k) + PHILOX_WORDS, next_even, next_odd, add,
                     &noise);
        for (int v = 0; v < 2; v++) noise.first[v] = next_even[v], noise.second[v] = next_odd[v];
    }
}

static __attribute__((noinline)) void noise_stored(const struct philox_stream *random, const struct radius_terms *terms,
                                                   const float *x, float *y, ptrdiff_t first, ptrdiff_t groups) {
    noise_block(random, terms, x, y, first, groups, add_noise_stored);
}

static __attribute__((noinline)) void noise_streamed(const struct philox_stream *random,
                                                     const struct radius_terms *terms, const float *x, float *y,
                                                     ptrdiff_t first, ptrdiff_t groups) {
    noise_block(random, terms, x, y, first, groups, add_noise_streamed);
}

/* Elements that lie in one block, from `first` on. A last group that is not whole is made whole aside. */
static void add_noise_to_block(const struct philox_stream *random, const struct radius_terms *terms, bool stream,
                               const float *x, float *y, ptrdiff_t first, ptrdiff_t count) {
    const ptrdiff_t groups = count / NORMAL_GROUP, whole = groups * NORMAL_GROUP;
    (stream ? noise_streamed : noise_stored)(random, terms, x, y, first, groups);
    if (whole == count) return;
    float rest[NORMAL_GROUP] = {0};
    for (ptrdiff_t i = whole; i < count; i++) rest[i - whole] = x[i];
    noise_stored(random, terms, rest, rest, first + whole, 1);
    for (ptrdiff_t i = whole; i < count; i++) y[i] = rest[i - whole];
}

void FNN_FUNCTION(gaussian_dropout)(const struct fnn_gaussian_dropout_args *args, const struct fnn_team *team) {
    struct fnn_range range;
    const struct philox_stream random = philox_stream(args->seed, args->layer, args->step);
    const struct radius_terms terms = radius_terms(args->deviation);
    const bool stream = streams(args->x, args->y, args->count);
    for (struct fnn_work work = fnn_work(args->count, DRAW_BLOCK, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin; i < range.end; i += DRAW_BLOCK)
            add_noise_to_block(&random, &terms, stream, args->x + i, args->y + i, i,
                               fnn_min(range.end - i, DRAW_BLOCK));
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
