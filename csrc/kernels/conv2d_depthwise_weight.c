/* Depthwise convolution (G = C = K) backward with respect to its weight and bias:
 *
 *   dw[c,r,s] = sum over n, p, q of dy[n,p,q,c] * x[n, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w, c]
 *   dbias[c]  = sum over n, p, q of dy[n,p,q,c]
 *
 * x N,H,W,C   dy N,P,Q,C   dw C,R,S, overwritten   dbias C, overwritten, or null. No aliasing.
 * chunks: into how many parts the N*P output rows are cut, >= 1; chosen from the shape alone, because it decides the order of
 * the sum. workspace: chunks * (R*S + 1) * C floats.
 *
 * Vectors along the channels, row by row of dy: the sums of up to three filter rows stay in registers while a row goes by, and
 * are added to the chunk's part in between. Filters of common widths load each pixel of x once for all of its taps; of others
 * some taps go by together (conv2d_depthwise_scattered.h). A tap outside of the image is left out.
 * Parallel over (chunk, block of channels), then over channels to add the chunks in order.
 * Error bound: gamma_D * sum |dy||x|, D = pixels in a chunk + chunks (first term twice on the scalar ISA).
 */
#include "conv2d_depthwise_scattered.h"

enum {
    OUTPUTS = 32, /* of a row at a time, at most: their pixels stay in a first-level cache */
    ROWS = 3, /* filter rows at a time, at most */
    TAPS = 7, /* taps of a filter row at a time, at most */
    LINE = FNN_LANES < 16 ? 16 / FNN_LANES : 1, /* vectors of a cache line */
    ANY_CHANNELS = 4 * LINE * FNN_LANES /* for which taps at any distance are found at once */
};

struct depthwise_weight {
    const struct fnn_conv2d_depthwise_backward_weight_args *args;
    struct conv2d_geometry geometry;
};

/* Outputs [q, q + count) of a row of dy against some filter rows, for `lanes` channels. */
struct piece {
    const float *dy, *x[ROWS]; /* of output q; of pixel 0 of each filter row's image row */
    ptrdiff_t count, lanes;
    ptrdiff_t pixel; /* output q's first tap */
    float *sums; /* added to: [filter row][tap], kernel_width taps to a row, `channels` apart */
};

typedef void add_function(const struct conv2d_geometry *g, const struct piece *p);

/* What the loops look at all the time. Rows, taps and step are constants in all that follows, and lanes where it is FNN_LANES: so many
 * are read of each pixel, of which p->lanes are looked at. */
struct sums {
    const float *x[ROWS];
    ptrdiff_t channels, width, count, lanes;
    vec sum[ROWS][TAPS], gradient[TAPS]; /* gradient[a]: of output i - a */
};

/* Adds `step` pixels, the first of them output i's first tap; `whole`: all outputs that see them are there. */
FNN_INLINE void add_pixels(struct sums *w, ptrdiff_t i, ptrdiff_t pixel, int rows, int taps, int step, bool whole) {
    const ptrdiff_t at = pixel * w->channels;
#pragma GCC unroll 2
    for (int k = 0; k < step; k++) {
        if (!conv2d_inside(pixel + k, w->width)) continue;
#pragma GCC unroll 4
        for (int t = 0; t < rows; t++) {
            const vec x = load_lanes(w->x[t] + at + k * w->channels, w->lanes);
#pragma GCC unroll 8
            for (int s = k; s < taps; s += step)
                if (whole || conv2d_inside(i - s / step, w->count))
                    w->sum[t][s] = vec_fma(w->gradient[s / step], x, w->sum[t][s]);
        }
    }
}

FNN_INLINE void load_sums(struct sums *w, const float *from, ptrdiff_t lanes, int rows, int taps) {
#pragma GCC unroll 4
    for (int t = 0; t < rows; t++) {
#pragma GCC unroll 8
        for (int s = 0; s < taps; s++) w->sum[t][s] = load_lanes(from + (t * taps + s) * w->channels, lanes);
    }
}

FNN_INLINE void store_sums(const struct sums *w, float *to, ptrdiff_t lanes, int rows, int taps) {
#pragma GCC unroll 4
    for (int t = 0; t < rows; t++) {
#pragma GCC unroll 8
        for (int s = 0; s < taps; s++) store_lanes(to + (t * taps + s) * w->channels, w->sum[t][s], lanes);
    }
}

/* Taps side by side: outputs and pixels go by together. */
FNN_INLINE void add_side_by_side(const struct conv2d_geometry *g, const struct piece *p, ptrdiff_t lanes, int rows,
                                 int taps, int step) {
    const int kept = (taps - 1) / step + 1;
    const float *dy = p->dy;
    struct sums w = {.channels = g->channels, .width = g->width, .count = p->count, .lanes = lanes};
    ptrdiff_t pixel = p->pixel;
#pragma GCC unroll 4
    for (int t = 0; t < rows; t++) w.x[t] = p->x[t];
    if (p->lanes == FNN_LANES)
        load_sums(&w, p->sums, FNN_LANES, rows, taps);
    else
        load_sums(&w, p->sums, p->lanes, rows, taps);
#pragma GCC unroll 8
    for (int a = 0; a < kept; a++) w.gradient[a] = vec_zero();
    for (ptrdiff_t i = 0; i < w.count + kept - 1; i++, pixel += step) {
#pragma GCC unroll 8
        for (int a = kept - 1; a > 0; a--) w.gradient[a] = w.gradient[a - 1];
        if (i < w.count) w.gradient[0] = load_lanes(dy, lanes);
        dy += w.channels;
        if (i >= kept - 1 && i < w.count)
            add_pixels(&w, i, pixel, rows, taps, step, true);
        else
            add_pixels(&w, i, pixel, rows, taps, step, false);
    }
    if (p->lanes == FNN_LANES)
        store_sums(&w, p->sums, FNN_LANES, rows, taps);
    else
        store_sums(&w, p->sums, p->lanes, rows, taps);
}

/* One function for each number of filter rows and taps, and some for parts of a vector. */
#define ADD(rows, taps, step)                                                                          \
    static void add_##rows##_##taps##_##step(const struct conv2d_geometry *g, const struct piece *p) { \
        add_side_by_side(g, p, FNN_LANES, rows, taps, step);                                           \
    }
#define PART(rows, taps, step)                                                                          \
    static void part_##rows##_##taps##_##step(const struct conv2d_geometry *g, const struct piece *p) { \
        add_side_by_side(g, p, p->lanes, rows, taps, step);                                             \
    }
ADD(1, 3, 1)
ADD(2, 3, 1)
ADD(3, 3, 1)
PART(1, 3, 1)
PART(3, 3, 1)
ADD(1, 3, 2)
ADD(2, 3, 2)
ADD(3, 3, 2)
PART(1, 3, 2)
PART(3, 3, 2)
ADD(1, 5, 1)
ADD(2, 5, 1)
PART(1, 5, 1)
ADD(1, 5, 2)
ADD(2, 5, 2)
PART(1, 5, 2)
ADD(1, 7, 1)
PART(1, 7, 1)

/* How filters of one width and stride are taken: add[rows - 1] and, for less than a vector, part[rows - 1];
 * null where there is no such function, all where it goes tap by tap. */
struct manner {
    add_function *add[ROWS], *part[ROWS];
};

static struct manner manner_of(const struct conv2d_geometry *g) {
    static const struct manner manners[3][8] = {
        [1] = {[3] = {{add_1_3_1, add_2_3_1, add_3_3_1}, {part_1_3_1, NULL, part_3_3_1}},
               [5] = {{add_1_5_1, add_2_5_1}, {part_1_5_1}},
               [7] = {{add_1_7_1}, {part_1_7_1}}},
        [2] = {[3] = {{add_1_3_2, add_2_3_2, add_3_3_2}, {part_1_3_2, NULL, part_3_3_2}},
               [5] = {{add_1_5_2, add_2_5_2}, {part_1_5_2}}},
    };
    const bool common = g->dilation_w == 1 && g->stride_w < 3 && g->kernel_width < 8;
    return common ? manners[g->stride_w][g->kernel_width] : (struct manner){.add = {NULL}};
}

/* Row i of the N*P rows of dy, whose image rows are [rows.begin, rows.end) of the filter's. */
struct dy_row {
    const float *dy, *x; /* of output 0; of pixel 0 of filter row 0's image row, which may lie outside */
    struct fnn_range rows;
    bool
        behind; /* behind the last pixel of each row are the channels of others: whole vectors may be read of a part of one */
};

static struct dy_row row_at(const struct depthwise_weight *b, ptrdiff_t i) {
    const struct conv2d_geometry *g = &b->geometry;
    const ptrdiff_t image_row = g->width * g->channels, n = i / g->out_height, p = i % g->out_height;
    const ptrdiff_t first = p * g->stride_h - g->pad_top, dilation = g->dilation_h;
    const float *image = b->args->x + n * g->height * image_row;
    struct dy_row row = {.dy = b->args->dy + i * g->out_width * g->channels, .x = image + first * image_row};
    row.rows.begin = first < 0 ? fnn_ceil_div(-first, dilation) : 0;
    row.rows.end = fnn_min(fnn_ceil_div(g->height - first, dilation), g->kernel_height);
    const ptrdiff_t below = g->batch * g->height - n * g->height - first - (row.rows.end - 1) * dilation - 1;
    row.behind =
        below * image_row >= FNN_LANES && (g->batch * g->out_height - i - 1) * g->out_width * g->channels >= FNN_LANES;
    return row;
}

/* Fetches what the next row of dy, maybe of the next image, reads first at outputs [q, q + count). Inline, for GCC drops calls
 * of a function that does nothing else. */
FNN_INLINE void fetch_next(const struct conv2d_geometry *g, const struct dy_row *row, ptrdiff_t q, ptrdiff_t count,
                           ptrdiff_t c) {
    const ptrdiff_t channels = g->channels, last = (g->kernel_height - 1) * g->dilation_h + g->stride_h;
    const ptrdiff_t near = fnn_max(LINE * FNN_LANES / channels, 1); /* pixels in a line */
    for (ptrdiff_t i = q; i < q + count; i += near) fetch_ahead(row->dy, (g->out_width + i) * channels + c);
    for (ptrdiff_t k = 0; k < fnn_min(g->stride_h, 2); k++)
        for (ptrdiff_t w = q * g->stride_w; w < fnn_min((q + count) * g->stride_w, g->width); w += near)
            fetch_ahead(row->x, ((last - k) * g->width + w) * channels + c);
}

/* All taps of a row's outputs [q, q + count), at any distance. */
static void add_any_taps(const struct conv2d_geometry *g, const struct dy_row *row, ptrdiff_t q, ptrdiff_t count,
                         struct fnn_range channels, float *part) {
    const ptrdiff_t row_step = g->dilation_h * g->width * g->channels;
    struct scattered some = {.dy = row->dy + q * g->channels,
                             .channels = g->channels,
                             .step = g->stride_w * g->channels,
                             .behind = row->behind};
    for (ptrdiff_t t = row->rows.begin; t < row->rows.end; t++)
        for (ptrdiff_t s = 0; s < g->kernel_width; s++) {
            const ptrdiff_t pixel = q * g->stride_w - g->pad_left + s * g->dilation_w;
            const struct fnn_range inside = conv2d_steps_inside(pixel, g->stride_w, g->width, count);
            if (inside.begin >= inside.end) continue;
            some.x[some.taps] = row->x + t * row_step + pixel * g->channels;
            some.inside[some.taps] = inside;
            some.sums[some.taps] = part + (t * g->kernel_width + s) * g->channels;
            if (++some.taps < SCATTERED) continue;
            add_scattered(&some, channels);
            some.taps = 0;
        }
    if (some.taps > 0) add_scattered(&some, channels);
}

/* All taps of a row's outputs [q, q + count), for one vector of channels or a part of one. */
static void add_taps(const struct conv2d_geometry *g, const struct manner *manner, const struct dy_row *row,
                     ptrdiff_t q, ptrdiff_t count, ptrdiff_t c, ptrdiff_t lanes, float *part) {
    add_function *const *adds = lanes == FNN_LANES || row->behind ? manner->add : manner->part;
    const ptrdiff_t step = g->dilation_h * g->width * g->channels;
    struct piece p = {
        .dy = row->dy + q * g->channels + c, .count = count, .lanes = lanes, .pixel = q * g->stride_w - g->pad_left};
    for (ptrdiff_t t = row->rows.begin, rows; t < row->rows.end; t += rows) {
        rows = fnn_min(row->rows.end - t, ROWS);
        while (rows > 1 && !adds[rows - 1]) rows--;
        for (ptrdiff_t k = 0; k < rows; k++) p.x[k] = row->x + (t + k) * step + c;
        p.sums = part + t * g->kernel_width * g->channels + c;
        adds[rows - 1](g, &p);
    }
}

/* Adds a row of dy to the bias gradient: four sums, so that none waits for the one before. */
static void add_bias(const struct conv2d_geometry *g, const float *dy, ptrdiff_t c, ptrdiff_t lanes, float *bias) {
    vec sum[4] = {load_lanes(bias + c, lanes), vec_zero(), vec_zero(), vec_zero()};
    ptrdiff_t q = 0;
    for (; q + 4 <= g->out_width; q += 4) {
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) sum[k] = vec_add(sum[k], load_lanes(dy + (q + k) * g->channels + c, lanes));
    }
    for (; q < g->out_width; q++) sum[0] = vec_add(sum[0], load_lanes(dy + q * g->channels + c, lanes));
    store_lanes(bias + c, vec_add(vec_add(sum[0], sum[1]), vec_add(sum[2], sum[3])), lanes);
}

/* Row i of the N*P rows of dy, added to a chunk's part, in pieces of about the same size. */
static void add_dy_row(const struct depthwise_weight *b, ptrdiff_t i, struct fnn_range channels, float *part) {
    const struct conv2d_geometry *g = &b->geometry;
    const struct manner manner = manner_of(g);
    const struct dy_row row = row_at(b, i);
    const ptrdiff_t pieces = fnn_ceil_div(g->out_width, OUTPUTS), taps = g->kernel_height * g->kernel_width;
    for (ptrdiff_t k = 0; k < pieces; k++) {
        const ptrdiff_t q = k * g->out_width / pieces, count = (k + 1) * g->out_width / pieces - q;
        for (ptrdiff_t c = channels.begin; c < channels.end; c += FNN_LANES) {
            if ((c - channels.begin) % (LINE * FNN_LANES) == 0) fetch_next(g, &row, q, count, c);
            if (manner.add[0])
                add_taps(g, &manner, &row, q, count, c, lanes_left(channels.end - c), part);
            else if ((c - channels.begin) % ANY_CHANNELS == 0)
                add_any_taps(g, &row, q, count, (struct fnn_range){c, fnn_min(c + ANY_CHANNELS, channels.end)}, part);
        }
    }
    for (ptrdiff_t c = channels.begin; b->args->dbias && c < channels.end; c += FNN_LANES)
        add_bias(g, row.dy, c, lanes_left(channels.end - c), part + taps * g->channels);
}

/* Some channels of one chunk: its part is [tap][channel], with the bias gradient behind the taps. */
static void run_unit(const struct depthwise_weight *b, ptrdiff_t chunk, struct fnn_range channels) {
    const struct conv2d_geometry *g = &b->geometry;
    const ptrdiff_t taps = g->kernel_height * g->kernel_width, all_rows = g->batch * g->out_height;
    const ptrdiff_t end = (chunk + 1) * all_rows / b->args->chunks;
    float *part = b->args->workspace + chunk * (taps + 1) * g->channels;
    for (ptrdiff_t tap = 0; tap <= taps; tap++)
        memset(part + tap * g->channels + channels.begin, 0, (size_t)(channels.end - channels.begin) * sizeof *part);
    for (ptrdiff_t i = chunk * all_rows / b->args->chunks; i < end; i++) add_dy_row(b, i, channels, part);
}

/* Adds the chunks' parts in order, for one vector of channels. */
static void combine(const struct depthwise_weight *b, ptrdiff_t c) {
    const struct fnn_conv2d_depthwise_backward_weight_args *args = b->args;
    const ptrdiff_t channels = args->channels, taps = args->kernel_height * args->kernel_width;
    const ptrdiff_t lanes = lanes_left(channels - c);
    for (ptrdiff_t tap = 0; tap < taps + (args->dbias != NULL); tap++) {
        const float *part = args->workspace + tap * channels + c;
        vec sum = vec_zero();
        for (ptrdiff_t chunk = 0; chunk < args->chunks; chunk++)
            sum = vec_add(sum, load_lanes(part + chunk * (taps + 1) * channels, lanes));
        float sums[FNN_LANES];
        vec_store(sums, sum);
        for (ptrdiff_t i = 0; i < lanes; i++)
            *(tap < taps ? args->dw + (c + i) * taps + tap : args->dbias + c + i) = sums[i];
    }
}

void FNN_FUNCTION(conv2d_depthwise_backward_weight)(const struct fnn_conv2d_depthwise_backward_weight_args *args,
                                                    const struct fnn_team *team) {
    const struct depthwise_weight b = {.args = args, .geometry = CONV2D_GEOMETRY(args)};
    const ptrdiff_t vectors = fnn_ceil_div(args->channels, FNN_LANES);
    const ptrdiff_t blocks = args->chunks >= 4 * team->size ? 1 : fnn_min(vectors, 8);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->chunks * blocks, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t unit = range.begin; unit < range.end; unit++) {
            ptrdiff_t block = unit % blocks, end = fnn_min((block + 1) * vectors / blocks * FNN_LANES, args->channels);
            run_unit(&b, unit / blocks, (struct fnn_range){block * vectors / blocks * FNN_LANES, end});
        }
    fnn_barrier(team);
    range = fnn_share(vectors, team);
    for (ptrdiff_t v = range.begin; v < range.end; v++) combine(&b, v * FNN_LANES);
}
