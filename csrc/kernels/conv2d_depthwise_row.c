/* The rows of conv2d_depthwise_row.h.
 *
 * A block of outputs is made for one vector of channels after the other: the filter stays in registers while the block's
 * pixels go by, each loaded once for all outputs that see it. Filters of common widths have such a loop, for up to three rows
 * of the filter at a time (conv2d_depthwise_taps.h); any other goes tap by tap. What comes after the sums is one function. */
#include "block_moments.h"
#include "conv2d_depthwise_taps.h"

enum {
    OUTPUTS = 32, /* of a block, at most */
    STRIDED_OUTPUTS = 8, /* where their pixels are far apart: wide images come from memory a tenth faster */
    LINE = FNN_LANES < 16 ? 16 / FNN_LANES : 1, /* vectors of a cache line */
};

/* Sums of a block's outputs for the vectors of a line; those in the margins are never looked at. */
struct block {
    ptrdiff_t begin, count; /* outputs */
    vec sums[LINE][DEPTHWISE_MARGIN + OUTPUTS + DEPTHWISE_MARGIN];
};

typedef void add_function(const struct depthwise_row *r, const struct depthwise_outputs *o);

#define TAPS(form, rows, taps, step)                                                                                \
    static void form##_##rows##_##taps##_##step(const struct depthwise_row *r, const struct depthwise_outputs *o) { \
        form(r, o, FNN_LANES, rows, taps, step);                                                                    \
    }
#define PART(form, taps, step)                                                                                  \
    static void form##_part_##taps##_##step(const struct depthwise_row *r, const struct depthwise_outputs *o) { \
        form(r, o, o->lanes, 1, taps, step);                                                                    \
    }
TAPS(gather, 1, 3, 1)
TAPS(gather, 2, 3, 1)
TAPS(gather, 3, 3, 1)
PART(gather, 3, 1)
TAPS(gather, 1, 3, 2)
TAPS(gather, 2, 3, 2)
TAPS(gather, 3, 3, 2)
PART(gather, 3, 2)
TAPS(gather, 1, 5, 1)
PART(gather, 5, 1)
TAPS(gather, 1, 5, 2)
PART(gather, 5, 2)
TAPS(gather, 1, 7, 1)
PART(gather, 7, 1)
TAPS(scatter, 1, 2, 2)
PART(scatter, 2, 2)
TAPS(scatter, 1, 3, 2)
TAPS(scatter, 2, 3, 2)
PART(scatter, 3, 2)
TAPS(scatter, 1, 4, 2)
TAPS(scatter, 2, 4, 2)
PART(scatter, 4, 2)
TAPS(scatter, 1, 5, 2)
PART(scatter, 5, 2)

/* The loops of one width and step. */
struct loops {
    ptrdiff_t rows;                        /* of the filter at a time, at most; 0: there are none */
    add_function *add[DEPTHWISE_TAP_ROWS]; /* 1, 2, ... of them */
    add_function *part;                    /* one, for less than a whole vector */
};

static struct loops loops_of(const struct depthwise_row *r) {
    static const struct loops gathers[3][8] = {
        [1] = {[3] = {3, {gather_1_3_1, gather_2_3_1, gather_3_3_1}, gather_part_3_1},
               [5] = {1, {gather_1_5_1}, gather_part_5_1},
               [7] = {1, {gather_1_7_1}, gather_part_7_1}},
        [2] = {[3] = {3, {gather_1_3_2, gather_2_3_2, gather_3_3_2}, gather_part_3_2},
               [5] = {1, {gather_1_5_2}, gather_part_5_2}},
    };
    static const struct loops scatters[6] = {
        [2] = {1, {scatter_1_2_2}, scatter_part_2_2},
        [3] = {2, {scatter_1_3_2, scatter_2_3_2}, scatter_part_3_2},
        [4] = {2, {scatter_1_4_2, scatter_2_4_2}, scatter_part_4_2},
        [5] = {1, {scatter_1_5_2}, scatter_part_5_2},
    };
    if (r->scatter) return scatters[r->taps];
    return r->position_step == 1 && r->taps < 8 && r->step < 3 ? gathers[r->step][r->taps] : (struct loops){.rows = 0};
}

/* `count` outputs from i on, a constant, tap by tap, over all rows. */
FNN_INLINE void add_any_few(const struct depthwise_row *r, const struct depthwise_outputs *o, ptrdiff_t i, int count) {
    vec sum[4];
#pragma GCC unroll 4
    for (int k = 0; k < count; k++) sum[k] = vec_zero();
    for (ptrdiff_t t = 0; t < r->rows; t++)
        for (ptrdiff_t s = 0; s < r->taps; s++) {
            const vec filter = load_lanes(r->filter[t] + s * r->filter_step + o->c, o->lanes);
            const ptrdiff_t first = (o->j + i) * r->step + r->position + s * r->position_step;
#pragma GCC unroll 4
            for (int k = 0; k < count; k++) {
                const ptrdiff_t pixel = first + k * r->step;
                if (!conv2d_inside(pixel, r->width)) continue;
                sum[k] = vec_fma(load_lanes(r->row[t] + pixel * r->channels + o->c, o->lanes), filter, sum[k]);
            }
        }
#pragma GCC unroll 4
    for (int k = 0; k < count; k++)
        vec_store(o->to + (i + k) * o->to_step, vec_add(sum[k], load_lanes(o->end, o->lanes)));
}

/* Any taps; never with scatter, but where there are no rows. */
static void add_any(const struct depthwise_row *r, const struct depthwise_outputs *o) {
    ptrdiff_t i = 0;
    for (; i + 4 <= o->count; i += 4) add_any_few(r, o, i, 4);
    for (; i < o->count; i++) add_any_few(r, o, i, 1);
}

/* Sums of a block for one vector of channels, or a part of one, and the bias. */
static void add_rows(const struct depthwise_row *r, const struct loops *loops, struct depthwise_outputs *o) {
    const float *zeros = FNN_FUNCTION(gemm_zeros), *bias = r->bias ? r->bias + o->c : zeros;
    const ptrdiff_t most = o->lanes == FNN_LANES ? loops->rows : 1;
    o->start = zeros;
    o->start_step = 0;
    o->end = bias;
    if (!loops->rows || !r->rows) {
        add_any(r, o);
        return;
    }
    for (o->first = 0; o->first < r->rows;) {
        const ptrdiff_t left = r->rows - o->first, rows = fnn_min(left, most);
        o->end = rows == left ? bias : zeros;
        (o->lanes == FNN_LANES ? loops->add[rows - 1] : loops->part)(r, o);
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

FNN_INLINE void store_sums(const struct depthwise_row *r, const struct block *b, ptrdiff_t c, ptrdiff_t vectors,
                           ptrdiff_t lanes, bool stream) {
    const ptrdiff_t step = r->output_step, count = b->count;
    float *y = r->y + b->begin * step + c;
    for (ptrdiff_t i = 0; i < count; i++, y += step)
        for (ptrdiff_t v = 0; v < vectors; v++)
            put_lanes(stream, y + v * FNN_LANES, b->sums[v][DEPTHWISE_MARGIN + i], lanes);
}

static bool is_plain(const struct depthwise_row *r) {
    return !r->accumulate && !r->residual && r->activation == FNN_ACTIVATION_NONE;
}

/* Lines are written whole, one after the other, as far as they are. */
static __attribute__((noinline)) void finish(const struct depthwise_row *r, struct block *b, ptrdiff_t c,
                                             ptrdiff_t vectors, ptrdiff_t lanes) {
    const bool whole = vectors == LINE && lanes == FNN_LANES;
    if (!is_plain(r)) finish_sums(r, b, c, vectors, lanes);
    if (whole && r->stream)
        store_sums(r, b, c, LINE, FNN_LANES, true);
    else if (whole)
        store_sums(r, b, c, LINE, FNN_LANES, false);
    else
        store_sums(r, b, c, vectors, lanes, r->stream);
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
            add_gradient_run(r->gradient, value, b->count, r->gradient_at + b->begin * step + c, step,
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
    struct depthwise_outputs o = {.j = b->begin, .count = b->count, .lanes = lanes};
    o.to_step = direct ? r->output_step : FNN_LANES;
    for (ptrdiff_t v = 0; v < vectors; v++) {
        o.c = c + v * FNN_LANES;
        o.to = direct ? r->y + b->begin * r->output_step + o.c : (float *)(b->sums[v] + DEPTHWISE_MARGIN);
        add_rows(r, loops, &o);
    }
    if (!direct) finish(r, b, c, vectors, lanes);
    if (sums) take_sums(r, b, c, vectors, lanes);
}

/* A block of outputs, a line of channels at a time. */
static void run_block(const struct depthwise_row *r, const struct loops *loops, struct block *b,
                      struct fnn_range channels) {
    for (ptrdiff_t c = channels.begin; c < channels.end; c += LINE * FNN_LANES) {
        const ptrdiff_t vectors = fnn_min((channels.end - c) / FNN_LANES, LINE), tail = c + vectors * FNN_LANES;
        fetch_next(r, b, c);
        if (vectors) run_vectors(r, loops, b, c, vectors, FNN_LANES);
        if (vectors < LINE && tail < channels.end) run_vectors(r, loops, b, tail, 1, channels.end - tail);
    }
}

/* In blocks of about the same size. */
void FNN_FUNCTION(conv2d_depthwise_row)(const struct depthwise_row *r, struct fnn_range channels) {
    const struct loops loops = loops_of(r);
    const bool strided = r->step > 1 && !r->scatter;
    const ptrdiff_t blocks = fnn_ceil_div(r->outputs, strided ? STRIDED_OUTPUTS : OUTPUTS);
    struct block block = {.count = 0}; /* margins, too */
    for (ptrdiff_t i = 0; i < blocks; i++) {
        block.begin = i * r->outputs / blocks;
        block.count = (i + 1) * r->outputs / blocks - block.begin;
        run_block(r, &loops, &block, channels);
    }
}
