/* The rows of conv2d_depthwise_row.h.
 *
 * A block of outputs is made for one vector of channels after the other: the filter stays in registers while the block's
 * pixels go by, each loaded once for all outputs that see it. Filters of common widths have such a loop, for up to three rows
 * of the filter at a time (conv2d_depthwise_taps.h); any other goes tap by tap. What comes after the sums is one function.
 *
 * Channels that fill no vector come first: they are read, and where nothing else stands in between written, as whole vectors;
 * what is too much of an output is overwritten by the channels that follow. */
#include "block_moments.h"
#include "conv2d_depthwise_taps.h"

enum {
    OUTPUTS = 32, /* of a block, at most */
    ANY_OUTPUTS = 8, /* at a time, tap by tap: their sums do not wait for each other */
    STRIDED_OUTPUTS = 8, /* where their pixels are far apart: wide images come from memory a tenth faster */
    LINE = FNN_LANES < 16 ? 16 / FNN_LANES : 1, /* vectors of a cache line */
};

/* Some neighbouring outputs that are made tap by tap; the taps for which any of their pixels is inside, and all of them are. */
struct some_outputs {
    ptrdiff_t pixel; /* tap 0 of the first */
    struct fnn_range any, all;
};

/* Sums of a block's outputs for the vectors of a line; those in the margins are never looked at. */
struct block {
    ptrdiff_t begin, count; /* outputs */
    bool behind; /* behind the last pixel of each input row are the channels of others */
    bool spills; /* what a part of a vector has too much may be written: the channels that follow overwrite it */
    struct some_outputs some[OUTPUTS / ANY_OUTPUTS + 3]; /* all of them, if it goes tap by tap */
    vec sums[LINE][DEPTHWISE_MARGIN + OUTPUTS + DEPTHWISE_MARGIN];
};

typedef void add_function(const struct depthwise_row *r, const struct depthwise_outputs *o);

#define TAPS_READ(name, form, rows, taps, step, lanes, weights)                            \
    static void form##name##_##rows##_##taps##_##step(const struct depthwise_row *r,       \
                                                      const struct depthwise_outputs *o) { \
        form(r, o, lanes, weights, rows, taps, step);                                      \
    }
#define TAPS(form, rows, taps, step)                                \
    TAPS_READ(, form, rows, taps, step, FNN_LANES, FNN_LANES)       \
    TAPS_READ(_behind, form, rows, taps, step, FNN_LANES, o->lanes) \
    TAPS_READ(_part, form, rows, taps, step, o->lanes, o->lanes)
TAPS(gather, 1, 1, 1)
TAPS(gather, 2, 1, 1)
TAPS(gather, 3, 1, 1)
TAPS(gather, 1, 1, 2)
TAPS(gather, 2, 1, 2)
TAPS(gather, 3, 1, 2)
TAPS(gather, 1, 3, 1)
TAPS(gather, 2, 3, 1)
TAPS(gather, 3, 3, 1)
TAPS(gather, 1, 3, 2)
TAPS(gather, 2, 3, 2)
TAPS(gather, 3, 3, 2)
TAPS(gather, 1, 5, 1)
TAPS(gather, 1, 5, 2)
TAPS(gather, 1, 7, 1)
TAPS(scatter, 1, 2, 2)
TAPS(scatter, 1, 3, 2)
TAPS(scatter, 2, 3, 2)
TAPS(scatter, 1, 4, 2)
TAPS(scatter, 2, 4, 2)
TAPS(scatter, 1, 5, 2)

/* The loops of one width and step: of 1, 2, ... filter rows each, all with the same sums. */
struct loops {
    ptrdiff_t rows; /* of the filter at a time, at most; 0: there are none */
    add_function *add[DEPTHWISE_TAP_ROWS];
    add_function *behind[DEPTHWISE_TAP_ROWS]; /* for a part of a vector, where whole ones may be read */
    add_function *part[DEPTHWISE_TAP_ROWS]; /* where they may not */
};

#define ONE(form, taps, step)                                                                               \
    {                                                                                                       \
        1, {form##_1_##taps##_##step}, {form##_behind_1_##taps##_##step}, { form##_part_1_##taps##_##step } \
    }
#define PAIR(name, taps, step) {name##_1_##taps##_##step, name##_2_##taps##_##step}
#define TWO(form, taps, step) \
    {2, PAIR(form, taps, step), PAIR(form##_behind, taps, step), PAIR(form##_part, taps, step)}
#define TRIPLE(name, taps, step) {name##_1_##taps##_##step, name##_2_##taps##_##step, name##_3_##taps##_##step}
#define THREE(form, taps, step) \
    {3, TRIPLE(form, taps, step), TRIPLE(form##_behind, taps, step), TRIPLE(form##_part, taps, step)}

static struct loops loops_of(const struct depthwise_row *r) {
    static const struct loops gathers[3][8] = {
        [1] = {[1] = THREE(gather, 1, 1), [3] = THREE(gather, 3, 1), [5] = ONE(gather, 5, 1), [7] = ONE(gather, 7, 1)},
        [2] = {[1] = THREE(gather, 1, 2), [3] = THREE(gather, 3, 2), [5] = ONE(gather, 5, 2)},
    };
    static const struct loops scatters[6] = {
        [2] = ONE(scatter, 2, 2), [3] = TWO(scatter, 3, 2), [4] = TWO(scatter, 4, 2), [5] = ONE(scatter, 5, 2)};
    if (r->scatter) return scatters[r->taps];
    if (r->taps == 1 && r->rows > DEPTHWISE_TAP_ROWS) return (struct loops){.rows = 0}; /* a column, in one go */
    return r->position_step == 1 && r->taps < 8 && r->step < 3 ? gathers[r->step][r->taps] : (struct loops){.rows = 0};
}

/* Taps of one filter row that find all pixels of `count` outputs. x, filter: of tap 0. lanes, weights: that are read of a pixel and of the
 * filter. */
FNN_INLINE void add_all(const struct depthwise_row *r, struct fnn_range taps, const float *x, const float *filter,
                        ptrdiff_t lanes, ptrdiff_t weights, vec *sum, int count) {
    const ptrdiff_t step = r->step * r->channels, tap_step = r->position_step * r->channels;
    x += taps.begin * tap_step;
    filter += taps.begin * r->filter_step;
    for (ptrdiff_t left = taps.end - taps.begin; left > 0; left--, x += tap_step, filter += r->filter_step) {
        const vec weight = load_lanes(filter, weights);
        const float *const half = x + 4 * step;
#pragma GCC unroll 8
        for (int k = 0; k < count; k++)
            sum[k] = vec_fma(load_lanes((k < 4 ? x : half) + k % 4 * step, lanes), weight, sum[k]);
    }
}

/* Taps of one filter row that find some of them. x, filter: of tap 0, whose first pixel is `pixel`. */
FNN_INLINE void add_inside(const struct depthwise_row *r, struct fnn_range taps, ptrdiff_t pixel, const float *x,
                           const float *filter, ptrdiff_t lanes, ptrdiff_t weights, vec *sum, int count) {
    const ptrdiff_t step = r->step * r->channels;
    for (ptrdiff_t s = taps.begin; s < taps.end; s++) {
        const vec weight = load_lanes(filter + s * r->filter_step, weights);
        const float *const from = x + s * r->position_step * r->channels;
#pragma GCC unroll 8
        for (int k = 0; k < count; k++)
            if (conv2d_inside(pixel + s * r->position_step + k * r->step, r->width))
                sum[k] = vec_fma(load_lanes(from + k * step, lanes), weight, sum[k]);
    }
}

/* `count` outputs from i on, at most ANY_OUTPUTS, a constant, tap by tap, over all rows. */
FNN_INLINE void add_any_few(const struct depthwise_row *r, const struct depthwise_outputs *o, ptrdiff_t i,
                            const struct some_outputs *some, ptrdiff_t lanes, ptrdiff_t weights, int count) {
    const struct fnn_range before = {some->any.begin, some->all.begin}, after = {some->all.end, some->any.end};
    vec sum[ANY_OUTPUTS];
#pragma GCC unroll 8
    for (int k = 0; k < count; k++) sum[k] = vec_zero();
    for (ptrdiff_t t = 0; t < r->rows; t++) {
        const float *x = r->row[t] + some->pixel * r->channels + o->c, *filter = r->filter[t] + o->c;
        if (count > 1) add_inside(r, before, some->pixel, x, filter, lanes, weights, sum, count);
        add_all(r, some->all, x, filter, lanes, weights, sum, count);
        if (count > 1) add_inside(r, after, some->pixel, x, filter, lanes, weights, sum, count);
    }
    const vec end = load_lanes(o->end, weights);
#pragma GCC unroll 8
    for (int k = 0; k < count; k++)
        vec_store(o->to + (i + k) * o->to_step, gemm_activate(vec_add(sum[k], end), o->activation));
}

/* Any taps; never with scatter, but where there are no rows. */
FNN_INLINE void add_any_lanes(const struct depthwise_row *r, const struct some_outputs *some,
                              const struct depthwise_outputs *o, ptrdiff_t lanes, ptrdiff_t weights) {
    ptrdiff_t i = 0;
    for (; i + ANY_OUTPUTS <= o->count; i += ANY_OUTPUTS) add_any_few(r, o, i, some++, lanes, weights, ANY_OUTPUTS);
    if (i + 4 <= o->count) add_any_few(r, o, i, some++, lanes, weights, 4), i += 4;
    if (i + 2 <= o->count) add_any_few(r, o, i, some++, lanes, weights, 2), i += 2;
    if (i < o->count) add_any_few(r, o, i, some, lanes, weights, 1);
}

static void add_any(const struct depthwise_row *r, const struct some_outputs *some, const struct depthwise_outputs *o) {
    if (o->lanes == FNN_LANES)
        add_any_lanes(r, some, o, FNN_LANES, FNN_LANES);
    else if (o->whole)
        add_any_lanes(r, some, o, FNN_LANES, o->lanes);
    else
        add_any_lanes(r, some, o, o->lanes, o->lanes);
}

static struct some_outputs some_outputs_at(const struct depthwise_row *r, ptrdiff_t j, ptrdiff_t count) {
    struct some_outputs some = {.pixel = j * r->step + r->position};
    const ptrdiff_t end = some.pixel + (count - 1) * r->step;
    const struct fnn_range first = conv2d_steps_inside(some.pixel, r->position_step, r->width, r->taps);
    const struct fnn_range last = conv2d_steps_inside(end, r->position_step, r->width, r->taps);
    some.any = (struct fnn_range){last.begin, first.end};
    some.all = (struct fnn_range){fnn_min(first.begin, some.any.end), last.end};
    some.all.end = fnn_max(some.all.end, some.all.begin);
    return some;
}

/* As add_any goes through the block. */
static void find_some_outputs(const struct depthwise_row *r, struct block *b) {
    struct some_outputs *some = b->some;
    for (ptrdiff_t i = 0, count = ANY_OUTPUTS; i < b->count; i += count) {
        while (i + count > b->count) count /= 2;
        *some++ = some_outputs_at(r, b->begin + i, count);
    }
}

/* Sums of a block for one vector of channels, or a part of one, and the bias. */
static void add_rows(const struct depthwise_row *r, const struct loops *loops, const struct some_outputs *some,
                     struct depthwise_outputs *o) {
    const float *zeros = FNN_FUNCTION(gemm_zeros), *bias = r->bias ? r->bias + o->c : zeros;
    o->start = zeros;
    o->start_step = 0;
    o->end = bias;
    if (!loops->rows || !r->rows) {
        add_any(r, some, o);
        return;
    }
    for (o->first = 0; o->first < r->rows;) {
        const ptrdiff_t left = r->rows - o->first, rows = fnn_min(left, loops->rows);
        o->end = rows == left ? bias : zeros;
        (o->lanes == FNN_LANES ? loops->add : o->whole ? loops->behind : loops->part)[rows - 1](r, o);
        o->first += rows;
        o->start = o->to;
        o->start_step = o->to_step;
    }
}

/* Accumulation, residual and activation of a block, `vectors` vectors of channels from c on. */
FNN_INLINE void finish_sums(const struct depthwise_row *r, struct block *b, ptrdiff_t c, ptrdiff_t vectors,
                            ptrdiff_t lanes) {
    const ptrdiff_t step = r->output_step, count = b->count, at = b->begin * step + c;
    const float *y = r->accumulate ? r->y + at : NULL, *residual = r->residual ? r->residual + at : NULL;
    const enum fnn_activation activation = r->activation;
    for (ptrdiff_t v = 0; v < vectors; v++) {
        vec *sum = b->sums[v] + DEPTHWISE_MARGIN;
        for (ptrdiff_t i = 0, offset = v * FNN_LANES; i < count; i++, offset += step) {
            vec value = y ? vec_add(load_lanes(y + offset, lanes), sum[i]) : sum[i];
            if (residual) value = vec_add(value, load_lanes(residual + offset, lanes));
            sum[i] = gemm_activate(value, activation);
        }
    }
}

/* A part of a vector: whole ones are written, from left to right, as far as they end in the row. */
static void store_part(const struct depthwise_row *r, const struct block *b, ptrdiff_t c, ptrdiff_t lanes) {
    const ptrdiff_t step = r->output_step, count = b->count;
    const ptrdiff_t room = (r->outputs - b->begin) * step - c; /* floats from here on */
    const vec *sum = b->sums[0] + DEPTHWISE_MARGIN;
    float *y = r->y + b->begin * step + c;
    ptrdiff_t i = 0;
    for (; b->spills && i < count && i * step + FNN_LANES <= room; i++) vec_store(y + i * step, sum[i]);
    for (; i < count; i++) vec_store_partial(y + i * step, sum[i], lanes);
}

FNN_INLINE void store_sums(const struct depthwise_row *r, const struct block *b, ptrdiff_t c, ptrdiff_t vectors,
                           ptrdiff_t lanes, bool stream) {
    const ptrdiff_t step = r->output_step, count = b->count;
    float *y = r->y + b->begin * step + c;
    for (ptrdiff_t i = 0; i < count; i++, y += step)
        for (ptrdiff_t v = 0; v < vectors; v++)
            put_lanes(stream, y + v * FNN_LANES, b->sums[v][DEPTHWISE_MARGIN + i], lanes);
}

/* Whether nothing is added to an output's sum, that a loop could not. */
static bool is_plain(const struct depthwise_row *r) { return !r->accumulate && !r->residual; }

/* Lines are written whole, one after the other, as far as they are. */
static __attribute__((noinline)) void finish(const struct depthwise_row *r, struct block *b, ptrdiff_t c,
                                             ptrdiff_t vectors, ptrdiff_t lanes) {
    const bool whole = vectors == LINE && lanes == FNN_LANES;
    if (!is_plain(r) || r->activation != FNN_ACTIVATION_NONE) finish_sums(r, b, c, vectors, lanes);
    if (lanes < FNN_LANES)
        store_part(r, b, c, lanes);
    else if (whole && r->stream)
        store_sums(r, b, c, LINE, FNN_LANES, true);
    else if (whole)
        store_sums(r, b, c, LINE, FNN_LANES, false);
    else
        store_sums(r, b, c, vectors, FNN_LANES, r->stream);
}

/* Adds a block's outputs to the sums that are asked for. */
static __attribute__((noinline)) void take_sums(const struct depthwise_row *r, const struct block *b, ptrdiff_t c,
                                                ptrdiff_t vectors, ptrdiff_t lanes) {
    const ptrdiff_t step = r->output_step;
    for (ptrdiff_t v = 0; v < vectors; v++, c += FNN_LANES) {
        const vec *value = b->sums[v] + DEPTHWISE_MARGIN;
        if (r->moments)
            add_moments(value, b->count, r->moment_rows_seen + b->begin, r->moments + c, r->channels, lanes);
        if (r->gradient)
            add_gradient_sums(r->gradient, value, b->count, r->gradient_at + b->begin * step + c, step,
                              step * r->outputs, c, lanes, r->sums);
    }
}

/* Fetches the pixels that the next row of outputs sees first, and the places of its outputs, which are to be written. Inline,
 * for GCC drops calls of a function that does nothing else. */
FNN_INLINE void fetch_next(const struct depthwise_row *r, const struct block *b, ptrdiff_t c) {
    const ptrdiff_t step = r->output_step, outputs_end = b->begin + b->count;
    const ptrdiff_t begin = r->scatter ? b->begin / r->step : b->begin * r->step;
    const ptrdiff_t end = fnn_min(r->scatter ? outputs_end / r->step : outputs_end * r->step, r->width);
    for (int i = 0; i < 2; i++)
        for (ptrdiff_t pixel = begin; r->ahead[i] && pixel < end; pixel++)
            fetch_ahead(r->ahead[i], pixel * r->channels + c);
    for (ptrdiff_t j = b->begin; !r->stream && j < outputs_end; j++) fetch_ahead(r->y, (r->outputs + j) * step + c);
}

/* A block of outputs for `vectors` vectors of channels, or a part of one. */
static void run_vectors(const struct depthwise_row *r, const struct loops *loops, struct block *b, ptrdiff_t c,
                        ptrdiff_t vectors, ptrdiff_t lanes) {
    const bool sums = r->moments || r->gradient, whole = lanes == FNN_LANES;
    const bool direct = whole && !sums && !r->stream && is_plain(r) && r->rows <= loops->rows;
    struct depthwise_outputs o = {.j = b->begin, .count = b->count, .lanes = lanes, .whole = whole || b->behind};
    o.to_step = direct ? r->output_step : FNN_LANES;
    o.activation = direct ? r->activation : FNN_ACTIVATION_NONE;
    for (ptrdiff_t v = 0; v < vectors; v++) {
        o.c = c + v * FNN_LANES;
        o.to = direct ? r->y + b->begin * r->output_step + o.c : (float *)(b->sums[v] + DEPTHWISE_MARGIN);
        add_rows(r, loops, b->some, &o);
    }
    if (!direct) finish(r, b, c, vectors, lanes);
    if (sums) take_sums(r, b, c, vectors, lanes);
}

/* A block of outputs, first a part of a vector, if there is one, then a line of channels at a time. */
static void run_block(const struct depthwise_row *r, const struct loops *loops, struct block *b,
                      struct fnn_range channels) {
    const ptrdiff_t end = channels.end - (channels.end - channels.begin) % FNN_LANES;
    if (end < channels.end) {
        if ((end - channels.begin) % (LINE * FNN_LANES) == 0) fetch_next(r, b, end);
        run_vectors(r, loops, b, end, 1, channels.end - end);
    }
    for (ptrdiff_t c = channels.begin; c < end; c += LINE * FNN_LANES) {
        fetch_next(r, b, c);
        run_vectors(r, loops, b, c, fnn_min((end - c) / FNN_LANES, LINE), FNN_LANES);
    }
}

/* In blocks of about the same size. */
void FNN_FUNCTION(conv2d_depthwise_row)(const struct depthwise_row *r, struct fnn_range channels) {
    const struct loops loops = loops_of(r);
    const bool strided = r->step > 1 && !r->scatter;
    const ptrdiff_t blocks = fnn_ceil_div(r->outputs, strided ? STRIDED_OUTPUTS : OUTPUTS);
    struct block block = {.count = 0}; /* margins, too */
    block.spills = is_plain(r) && r->output_step == r->channels && channels.begin == 0 && channels.end == r->channels;
    block.behind = r->input_end != NULL;
    for (ptrdiff_t t = 0; t < r->rows; t++)
        block.behind = block.behind && r->input_end - r->row[t] >= r->width * r->channels + FNN_LANES;
    for (ptrdiff_t i = 0; i < blocks; i++) {
        block.begin = i * r->outputs / blocks;
        block.count = (i + 1) * r->outputs / blocks - block.begin;
        if (!loops.rows && r->rows && r->taps) find_some_outputs(r, &block);
        run_block(r, &loops, &block, channels);
    }
}
