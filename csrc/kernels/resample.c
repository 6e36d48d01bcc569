/* Each axis of an image by itself: padding, cropping, interpolation, and the gradients of all of them.
 *
 *     y[n,p,q,c] = sum over h of R[p,h] * sum over w of C[q,w] * x[n,h,w,c]
 *
 * x (N,H,W,channels), y (N,P,Q,channels); R (P,H) and C (Q,W) are sparse. Nearest neighbours, reflection and the like have one 1 a
 * row, linear interpolation has two weights, constant padding a row without any: there y = value. The backward pass is
 * the same kernel with R and C transposed.
 *
 * Tables rows and columns: output + 1 slots that say where the weights of each output element begin, then for each weight two
 * slots: the source element (size) and the weight (real). workspace: a row of x, W * channels floats, for each thread.
 *
 * Copies are exact. Error of a sum of a weights by b: (a + b + 2) eps * sum |R| |C| |x|, eps = 2^-24, the weights' own
 * rounding to float included. Outputs must not overlap inputs. Parallel over rows of the output. */

#include "lanes.h"

enum { KNOWN_TAPS = 4, FEW_CHANNELS = 3 };

static inline ptrdiff_t weights_begin(const union fnn_slot *taps, ptrdiff_t i) { return taps[i].size; }
static inline ptrdiff_t tap_source(const union fnn_slot *taps, ptrdiff_t out_size, ptrdiff_t k) {
    return taps[out_size + 1 + 2 * k].size;
}
static inline float tap_weight(const union fnn_slot *taps, ptrdiff_t out_size, ptrdiff_t k) {
    return (float)taps[out_size + 2 + 2 * k].real;
}

/* The only source of output element i when it is a copy of it, else -1. */
static inline ptrdiff_t copied_source(const union fnn_slot *taps, ptrdiff_t out_size, ptrdiff_t i) {
    ptrdiff_t k = weights_begin(taps, i);
    bool copy = weights_begin(taps, i + 1) == k + 1 && tap_weight(taps, out_size, k) == 1.0f;
    return copy ? tap_source(taps, out_size, k) : -1;
}

static bool is_identity(const union fnn_slot *taps, ptrdiff_t size, ptrdiff_t out_size) {
    for (ptrdiff_t i = 0; i < out_size; i++)
        if (copied_source(taps, out_size, i) != i) return false;
    return size == out_size;
}

/* Whether output elements i and i - 1 are the same sum. */
static bool is_repeated(const union fnn_slot *taps, ptrdiff_t out_size, ptrdiff_t i) {
    ptrdiff_t before = weights_begin(taps, i - 1), begin = weights_begin(taps, i), end = weights_begin(taps, i + 1);
    if (end - begin != begin - before) return false;
    for (ptrdiff_t k = begin; k < end; k++) {
        ptrdiff_t other = k - (begin - before);
        if (tap_source(taps, out_size, k) != tap_source(taps, out_size, other)) return false;
        if (tap_weight(taps, out_size, k) != tap_weight(taps, out_size, other)) return false;
    }
    return true;
}

FNN_INLINE void copy_floats(bool stream, const float *from, float *to, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(count - i);
        put_lanes(stream, to + i, load_lanes(from + i, n), n);
    }
}

static void set_floats(bool stream, float *to, ptrdiff_t count, float value) {
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) put_lanes(stream, to + i, vec_set1(value), lanes_left(count - i));
}

/* to = sum of weight * (the stretch of `count` floats at from + source * stride) for one output element with `known` weights. */
FNN_INLINE void sum_taps(const int known, const union fnn_slot *taps, ptrdiff_t out_size, ptrdiff_t i,
                         const float *from, ptrdiff_t stride, ptrdiff_t count, bool stream, float *to) {
    const float *source[KNOWN_TAPS];
    vec weight[KNOWN_TAPS];
    for (int k = 0; k < known; k++) {
        source[k] = from + tap_source(taps, out_size, weights_begin(taps, i) + k) * stride;
        weight[k] = vec_set1(tap_weight(taps, out_size, weights_begin(taps, i) + k));
    }
    for (ptrdiff_t j = 0; j < count; j += FNN_LANES) {
        const ptrdiff_t n = lanes_left(count - j);
        vec sum = vec_mul(weight[0], load_lanes(source[0] + j, n));
#pragma GCC unroll 4
        for (int k = 1; k < known; k++) sum = vec_fma(weight[k], load_lanes(source[k] + j, n), sum);
        put_lanes(stream, to + j, sum, n);
    }
}

/* The same for any number of weights. */
static void sum_many_taps(const union fnn_slot *taps, ptrdiff_t out_size, ptrdiff_t i, const float *from,
                          ptrdiff_t stride, ptrdiff_t count, bool stream, float *to) {
    const ptrdiff_t begin = weights_begin(taps, i), end = weights_begin(taps, i + 1);
    for (ptrdiff_t j = 0; j < count; j += FNN_LANES) {
        const ptrdiff_t n = lanes_left(count - j);
        vec sum = vec_zero();
        for (ptrdiff_t k = begin; k < end; k++) {
            const vec weight = vec_set1(tap_weight(taps, out_size, k));
            const vec value = load_lanes(from + tap_source(taps, out_size, k) * stride + j, n);
            sum = k == begin ? vec_mul(weight, value) : vec_fma(weight, value, sum);
        }
        put_lanes(stream, to + j, sum, n);
    }
}

static void sum_stretches(const union fnn_slot *taps, ptrdiff_t out_size, ptrdiff_t i, const float *from,
                          ptrdiff_t stride, ptrdiff_t count, bool stream, float *to) {
    switch (weights_begin(taps, i + 1) - weights_begin(taps, i)) {
    case 1: sum_taps(1, taps, out_size, i, from, stride, count, stream, to); break;
    case 2: sum_taps(2, taps, out_size, i, from, stride, count, stream, to); break;
    case 3: sum_taps(3, taps, out_size, i, from, stride, count, stream, to); break;
    case 4: sum_taps(4, taps, out_size, i, from, stride, count, stream, to); break;
    default: sum_many_taps(taps, out_size, i, from, stride, count, stream, to); break;
    }
}

/* The same for a pixel of few channels, where a vector would be mostly empty. */
FNN_INLINE void sum_pixel(const ptrdiff_t channels, const union fnn_slot *taps, ptrdiff_t out_size, ptrdiff_t i,
                          const float *row, float *to) {
    ptrdiff_t end = weights_begin(taps, i + 1);
    float sum[FEW_CHANNELS] = {0};
    for (ptrdiff_t k = weights_begin(taps, i); k < end; k++) {
        const float *source = row + tap_source(taps, out_size, k) * channels;
        float weight = tap_weight(taps, out_size, k);
        for (ptrdiff_t c = 0; c < channels; c++) sum[c] += weight * source[c];
    }
    for (ptrdiff_t c = 0; c < channels; c++) to[c] = sum[c];
}

/* One row of y from one row of pixels, whose channels are `few`, or any number when that is 0. Neighbours that are copies
 * of neighbours are copied together. */
FNN_INLINE void resample_row(const ptrdiff_t few, const struct fnn_resample_args *args, const float *row, bool stream,
                             float *y) {
    const union fnn_slot *taps = args->columns;
    ptrdiff_t channels = few ? few : args->channels, out_width = args->out_width;
    for (ptrdiff_t q = 0, next; q < out_width; q = next) {
        float *to = y + q * channels;
        next = q + 1;
        if (weights_begin(taps, q) == weights_begin(taps, next)) {
            set_floats(stream, to, channels, (float)args->value);
            continue;
        }
        ptrdiff_t source = copied_source(taps, out_width, q);
        if (source < 0) {
            if (few)
                sum_pixel(few, taps, out_width, q, row, to);
            else
                sum_stretches(taps, out_width, q, row, channels, channels, stream, to);
            continue;
        }
        while (next < out_width && copied_source(taps, out_width, next) == source + (next - q)) next++;
        copy_floats(stream, row + source * channels, to, (next - q) * channels);
    }
}

static void resample_row_of(const struct fnn_resample_args *args, const float *row, bool stream, float *y) {
    if (args->channels == 1)
        resample_row(1, args, row, false, y);
    else if (args->channels == 2)
        resample_row(2, args, row, false, y);
    else if (args->channels == 3)
        resample_row(3, args, row, false, y);
    else
        resample_row(0, args, row, stream, y);
}

void FNN_FUNCTION(resample)(const struct fnn_resample_args *args, const struct fnn_team *team) {
    const union fnn_slot *rows = args->rows;
    ptrdiff_t stride = args->width * args->channels, out_stride = args->out_width * args->channels;
    bool same_columns = is_identity(args->columns, args->width, args->out_width);
    float *buffer = args->workspace + team->rank * stride;
    const bool stream =
        args->channels % FNN_LANES == 0 && streams(args->x, args->y, args->batch * args->out_height * out_stride);
    struct fnn_range range = fnn_share(args->batch * args->out_height, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t p = i % args->out_height, source = copied_source(rows, args->out_height, p);
        const float *x = args->x + i / args->out_height * args->height * stride;
        float *y = args->y + i * out_stride;
        if (weights_begin(rows, p) == weights_begin(rows, p + 1)) {
            set_floats(stream, y, out_stride, (float)args->value);
            continue;
        }
        const bool summed = p > 0 && i > range.begin && is_repeated(rows, args->out_height, p); /* in the buffer */
        if (source < 0 && same_columns)
            sum_stretches(rows, args->out_height, p, x, stride, stride, stream, y);
        else if (source < 0 && !summed)
            sum_stretches(rows, args->out_height, p, x, stride, stride, false, buffer);
        if (source >= 0 && same_columns) copy_floats(stream, x + source * stride, y, stride);
        if (!same_columns) resample_row_of(args, source < 0 ? buffer : x + source * stride, stream, y);
    }
    vec_fence();
}
