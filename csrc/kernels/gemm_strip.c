/* The register tile of gemm_strip.h, and the cut of a strip's rows into tiles. */
#include "gemm_strip.h"
#include "block_moments.h"
#include "gemm_strip_sums.h"
#include "gradient_sums.h"

/* Where six rows of a single vector would wait for their own sums, a tile may have twice as many. */
enum { MOST_ROWS = FNN_GEMM_ROWS < 8 ? 2 * FNN_GEMM_ROWS : FNN_GEMM_ROWS, QUADS = (MOST_ROWS + 3) / 4 };

/* One step. Rows are addressed in quads, at 0, 1, 2 and 3 row steps from one pointer, so that all addresses fit in registers. */
FNN_INLINE void multiply_step(const float *const quad[QUADS], ptrdiff_t row_step, ptrdiff_t three_steps, const float *b,
                              vec sum[MOST_ROWS][FNN_GEMM_VECTORS], int rows, int vectors) {
    vec column[FNN_GEMM_VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) column[v] = vec_load(b + v * FNN_LANES);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        vec row = vec_set1(quad[i / 4][i % 4 == 3 ? three_steps : i % 4 * row_step]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[i][v] = vec_fma(row, column[v], sum[i][v]);
    }
}

/* Steps side by side. */
FNN_INLINE void multiply_run(const struct gemm_strip *strip, const float *x, bool fetching,
                             vec sum[MOST_ROWS][FNN_GEMM_VECTORS], int rows, int vectors) {
    const ptrdiff_t row_step = strip->row_step, three_steps = 3 * row_step, depth = strip->depth;
    const float *b = strip->panel, *quad[QUADS];
    uintptr_t fetch = strip->fetch + (size_t)(x - strip->x) * sizeof(float);
#pragma GCC unroll 4
    for (int i = 0; i < (rows + 3) / 4; i++) quad[i] = x + 4 * i * row_step;
    for (ptrdiff_t d = 0; d < depth; d++, b += vectors * FNN_LANES) {
        if (fetching) {
            __builtin_prefetch((const void *)fetch, 0, 2);
            fetch += rows * sizeof(float);
        }
        multiply_step(quad, row_step, three_steps, b, sum, rows, vectors);
#pragma GCC unroll 4
        for (int i = 0; i < (rows + 3) / 4; i++) quad[i]++;
    }
}

/* Steps at their offsets; two an iteration, since the end of a shorter loop is foreseen more often. */
FNN_INLINE void multiply_listed(const struct gemm_strip *strip, const float *x, vec sum[MOST_ROWS][FNN_GEMM_VECTORS],
                                int rows, int vectors) {
    const ptrdiff_t row_step = strip->row_step, three_steps = 3 * row_step, depth = strip->depth;
    const int32_t *offsets = strip->offsets;
    const float *b = strip->panel, *quad[QUADS];
#pragma GCC unroll 2
    for (ptrdiff_t d = 0; d < depth; d++, b += vectors * FNN_LANES) {
#pragma GCC unroll 4
        for (int i = 0; i < (rows + 3) / 4; i++) quad[i] = x + offsets[d] + 4 * i * row_step;
        multiply_step(quad, row_step, three_steps, b, sum, rows, vectors);
    }
}

/* How many lanes of vector v exist. */
FNN_INLINE ptrdiff_t lanes_of(const struct gemm_strip *strip, int v, int vectors) {
    return v == vectors - 1 ? strip->columns - (vectors - 1) * FNN_LANES : FNN_LANES;
}

/* Asks for a row of a tile, to be written: for the last element in each line. Where panels share a line, the one before had it. */
FNN_INLINE void fetch_row(const float *y, int columns) {
#pragma GCC unroll 4
    for (int end = FNN_LINE; end < columns + FNN_LINE; end += FNN_LINE)
        __builtin_prefetch(y + (end < columns ? end : columns) - 1, 1);
}

/* What y holds, or zeros; y is asked for meanwhile, unless it is only written, past the caches. */
FNN_INLINE void start_sums(const struct gemm_strip *strip, const float *y, vec sum[MOST_ROWS][FNN_GEMM_VECTORS],
                           int rows, int vectors) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        if (!strip->stream) fetch_row(y + i * strip->y_step, vectors * FNN_LANES);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[i][v] = vec_zero();
    }
    if (!strip->accumulate) return;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[i][v] = vec_load_partial(y + i * strip->y_step + v * FNN_LANES, lanes_of(strip, v, vectors));
    }
}

/* Bias, residual and activation. */
FNN_INLINE void finish_sums(const struct gemm_strip *strip, const float *residual, vec sum[MOST_ROWS][FNN_GEMM_VECTORS],
                            int rows, int vectors) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        const ptrdiff_t lanes = lanes_of(strip, v, vectors);
        if (strip->bias) {
            const vec bias = load_lanes(strip->bias + v * FNN_LANES, lanes);
#pragma GCC unroll 16
            for (int i = 0; i < rows; i++) sum[i][v] = vec_add(sum[i][v], bias);
        }
        if (residual) {
#pragma GCC unroll 16
            for (int i = 0; i < rows; i++)
                sum[i][v] = vec_add(sum[i][v], vec_load_partial(residual + i * strip->y_step + v * FNN_LANES, lanes));
        }
    }
    if (strip->activation == FNN_ACTIVATION_NONE) return;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[i][v] = gemm_activate(sum[i][v], strip->activation);
    }
}

enum store { STORE_WHOLE, STORE_STREAM, STORE_PARTIAL };

FNN_INLINE void store_as(enum store how, const struct gemm_strip *strip, float *y, vec sum[MOST_ROWS][FNN_GEMM_VECTORS],
                         int rows, int vectors) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            float *to = y + i * strip->y_step + v * FNN_LANES;
            if (how == STORE_STREAM)
                vec_stream(to, sum[i][v]);
            else if (how == STORE_WHOLE || v < vectors - 1)
                vec_store(to, sum[i][v]);
            else
                vec_store_partial(to, sum[i][v], lanes_of(strip, v, vectors));
        }
    }
}

/* Rows of less than a vector, one behind the other: whole vectors, as long as later rows overwrite what is too much. */
FNN_INLINE void store_overlapping(const struct gemm_strip *strip, float *y, vec sum[MOST_ROWS][FNN_GEMM_VECTORS],
                                  int rows) {
    const ptrdiff_t columns = strip->columns;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
        if ((rows - i) * columns >= FNN_LANES)
            vec_store(y + i * columns, sum[i][0]);
        else
            vec_store_partial(y + i * columns, sum[i][0], columns);
}

FNN_INLINE void store_sums(const struct gemm_strip *strip, float *y, vec sum[MOST_ROWS][FNN_GEMM_VECTORS], int rows,
                           int vectors) {
    if (strip->stream)
        store_as(STORE_STREAM, strip, y, sum, rows, vectors);
    else if (strip->columns == vectors * FNN_LANES)
        store_as(STORE_WHOLE, strip, y, sum, rows, vectors);
    else if (vectors == 1 && strip->y_step == strip->columns)
        store_overlapping(strip, y, sum, rows);
    else
        store_as(STORE_PARTIAL, strip, y, sum, rows, vectors);
}

/* What is taken of the sums besides y, through memory: in each of the tiles it would be most of the code. */
FNN_INLINE void pass_sums(const struct gemm_strip *strip, vec sum[MOST_ROWS][FNN_GEMM_VECTORS], ptrdiff_t seen,
                          int rows, int vectors) {
    vec value[FNN_GEMM_VECTORS * MOST_ROWS];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) value[v * rows + i] = sum[i][v];
    }
    FNN_FUNCTION(gemm_strip_sums)(strip, value, rows, seen);
}

/* The same for one vector of the largest tile, from registers. */
FNN_INLINE void take_sums(const struct gemm_strip *strip, vec sum[MOST_ROWS][FNN_GEMM_VECTORS], ptrdiff_t seen, int v) {
    const ptrdiff_t at = v * FNN_LANES, rows = FNN_GEMM_ROWS;
    vec value[FNN_GEMM_ROWS];
#pragma GCC unroll 16
    for (int i = 0; i < FNN_GEMM_ROWS; i++) value[i] = sum[i][v];
    if (strip->moments)
        more_moments(value, rows, strip->moment_rows_seen + seen, strip->moments + at, strip->y_step, FNN_LANES);
    else
        add_gradient_sums(strip->gradient, value, rows, strip->gradient_at + seen * strip->y_step + at, strip->y_step,
                          strip->gradient_ahead, strip->gradient_channel + at, FNN_LANES, strip->sums);
}

FNN_INLINE void tell_sums(const struct gemm_strip *strip, vec sum[MOST_ROWS][FNN_GEMM_VECTORS], ptrdiff_t seen,
                          int rows, int vectors) {
    const bool first = strip->moments && strip->moment_rows_seen + seen == 0;
    if (rows != FNN_GEMM_ROWS || vectors != FNN_GEMM_VECTORS || strip->columns != FNN_GEMM_COLUMNS || first) {
        pass_sums(strip, sum, seen, rows, vectors);
        return;
    }
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) take_sums(strip, sum, seen, v);
}

/* All tiles of a strip whose row_count is a multiple of `rows`. */
FNN_INLINE void run_tiles(const struct gemm_strip *strip, int rows, int vectors) {
    const float *x = strip->x, *residual = strip->residual;
    float *y = strip->y;
    for (ptrdiff_t left = strip->row_count; left > 0; left -= rows) {
        vec sum[MOST_ROWS][FNN_GEMM_VECTORS];
        start_sums(strip, y, sum, rows, vectors);
        if (strip->offsets)
            multiply_listed(strip, x, sum, rows, vectors);
        else if (strip->fetch)
            multiply_run(strip, x, true, sum, rows, vectors);
        else
            multiply_run(strip, x, false, sum, rows, vectors);
        finish_sums(strip, residual, sum, rows, vectors);
        store_sums(strip, y, sum, rows, vectors);
        if (strip->moments || strip->gradient) tell_sums(strip, sum, strip->row_count - left, rows, vectors);
        x += rows * strip->row_step;
        y += rows * strip->y_step;
        if (residual) residual += rows * strip->y_step;
    }
}

#define RUN_TILE run_tiles
#define TILE_STRUCT gemm_strip
#include "gemm_tiles.h"

/* Tiles of one vector that are higher than the others may be: tall_tiles[rows - FNN_GEMM_ROWS - 1]. */
#if FNN_GEMM_ROWS == 6
#define TALL_ROWS_EACH(each) each(7) each(8) each(9) each(10) each(11) each(12)
#elif FNN_GEMM_ROWS == 4
#define TALL_ROWS_EACH(each) each(5) each(6) each(7) each(8)
#else
#define TALL_ROWS_EACH(each)
#endif
#define TALL_TILE(rows) \
    static void tall_##rows(const struct gemm_strip *strip) { run_tiles(strip, rows, 1); }
#define TALL_ENTRY(rows) tall_##rows,

TALL_ROWS_EACH(TALL_TILE)

static void (*const tall_tiles[])(const struct gemm_strip *) = {TALL_ROWS_EACH(TALL_ENTRY) NULL};

static void run_rows(const struct gemm_strip *strip, ptrdiff_t rows) {
    if (rows > FNN_GEMM_ROWS)
        tall_tiles[rows - FNN_GEMM_ROWS - 1](strip);
    else
        tiles[rows - 1][fnn_ceil_div(strip->columns, FNN_LANES) - 1](strip);
}

/* Tiles are as even as they come: low ones wait for their own sums. */
void FNN_FUNCTION(gemm_strip)(const struct gemm_strip *strip) {
    const ptrdiff_t most = strip->columns <= FNN_LANES ? MOST_ROWS : FNN_GEMM_ROWS;
    if (strip->row_count <= most) {
        run_rows(strip, strip->row_count);
        return;
    }
    const ptrdiff_t count = fnn_ceil_div(strip->row_count, most);
    const ptrdiff_t rows = strip->row_count / count, higher = strip->row_count % count;
    struct gemm_strip part = *strip;
    part.row_count = higher * (rows + 1);
    if (higher > 0) run_rows(&part, rows + 1);
    part.x += part.row_count * part.row_step;
    part.y += part.row_count * part.y_step;
    if (part.residual) part.residual += part.row_count * part.y_step;
    part.moment_rows_seen += part.row_count;
    part.gradient_at += part.row_count * part.y_step;
    if (part.fetch) part.fetch += (size_t)(part.row_count * part.row_step) * sizeof(float);
    part.row_count = (count - higher) * rows;
    run_rows(&part, rows);
}
