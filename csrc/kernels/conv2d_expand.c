/* Small groups as depthwise convolutions: channels repeated, so that vectors lie along all channels of the result.
 *
 *   conv2d_expand:      expanded[i, g*repeats + l] = source[i, g*depth + offset],   i < pixels, g < groups, l < repeats
 *   conv2d_expand_pack: packed[j,r,s,k] = w[k,r,s,j],   j < C/G, k < K
 *     with `backward`:  packed[j,r,s,c] = w[c/(C/G)*(K/G) + j, r, s, c%(C/G)],   j < K/G, c < C
 *
 * source of conv2d_expand pixels,groups*depth   expanded pixels,groups*repeats   source of conv2d_expand_pack, w K,R,S,C/G (the weight
 * parameter)   packed R*S*K*C/G floats. Results are overwritten; no aliasing. Copies only: exact.
 *
 * A convolution is then a sum over j < C/G of depthwise ones (conv2d_depthwise.c): of x expanded with depth C/G, repeats K/G, offset j,
 * by filters packed[j]. Its gradient of the input is one over j < K/G: of dy expanded with depth K/G, repeats C/G, offset j. With C/G = 1
 * the gradient of the weight is that of the depthwise convolution of x expanded.
 *
 * Limit: memory, or a store for each group of a pixel. Parallel over pixels, or taps.
 */
#include "conv2d.h"
#include "lanes.h"

/* A value for each group, `repeats` times; whole vectors are written where they end before `limit`, in order, so that what is too much is
 * overwritten by what follows. */
FNN_INLINE void repeat_groups(const float *from, ptrdiff_t depth, ptrdiff_t groups, ptrdiff_t repeats, float *to,
                              const float *limit) {
    for (ptrdiff_t g = 0; g < groups; g++, from += depth) {
        const vec value = vec_set1(*from);
        for (ptrdiff_t l = 0; l < repeats; l += FNN_LANES) {
            if (limit - (to + l) >= FNN_LANES)
                vec_store(to + l, value);
            else
                store_lanes(to + l, value, lanes_left(repeats - l));
        }
        to += repeats;
    }
}

/* Channels side by side, twice each. */
static void repeat_twice(const float *from, ptrdiff_t groups, float *to) {
    ptrdiff_t g = 0;
    for (; g + FNN_LANES <= groups; g += FNN_LANES) {
        const vec value = vec_load(from + g);
        vec_store(to + 2 * g, vec_interleave_low(value, value));
        vec_store(to + 2 * g + FNN_LANES, vec_interleave_high(value, value));
    }
    for (; g < groups; g++) to[2 * g] = to[2 * g + 1] = from[g];
}

static void expand_pixel(const struct fnn_conv2d_expand_args *args, ptrdiff_t i, const float *limit) {
    const ptrdiff_t depth = args->depth, groups = args->groups, repeats = args->repeats;
    const float *from = args->source + i * groups * depth + args->offset;
    float *to = args->expanded + i * groups * repeats;
    if (repeats == 1)
        for (ptrdiff_t g = 0; g < groups; g++) to[g] = from[g * depth];
    else if (repeats == 2 && depth == 1)
        repeat_twice(from, groups, to);
    else if (repeats <= FNN_LANES)
        repeat_groups(from, depth, groups, fnn_min(repeats, FNN_LANES), to, limit);
    else
        repeat_groups(from, depth, groups, repeats, to, limit);
}

void FNN_FUNCTION(conv2d_expand)(const struct fnn_conv2d_expand_args *args, const struct fnn_team *team) {
    enum { BLOCK = 16 }; /* pixels: threads share no line but the last */
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->pixels, BLOCK, team); fnn_take(&work, &range);) {
        const float *limit = args->expanded + range.end * args->groups * args->repeats;
        for (ptrdiff_t i = range.begin; i < range.end; i++) expand_pixel(args, i, limit);
    }
}

void FNN_FUNCTION(conv2d_expand_pack)(const struct fnn_conv2d_expand_pack_args *args, const struct fnn_team *team) {
    const ptrdiff_t taps = args->kernel_height * args->kernel_width;
    const ptrdiff_t inputs = args->channels / args->groups, outputs = args->out_channels / args->groups;
    const ptrdiff_t depth = args->backward ? outputs : inputs,
                    count = args->backward ? args->channels : args->out_channels;
    const struct fnn_range range = fnn_share(depth * taps, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        const ptrdiff_t j = i / taps, tap = i % taps;
        float *to = args->packed + i * count;
        for (ptrdiff_t c = 0; c < count; c++) {
            const ptrdiff_t output = args->backward ? c / inputs * outputs + j : c;
            const ptrdiff_t input = args->backward ? c % inputs : j;
            to[c] = args->source[(output * taps + tap) * inputs + input];
        }
    }
}
