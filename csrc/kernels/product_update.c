/* The gradients of product_update.h. */
#include "gemm_pack.h"
#include "gemm_packed.h"
#include "optimizer.h"

/* A linear layer's weight gradient, and the piece of it that is made. */
struct product {
    const float *dy;
    float *panels;
    ptrdiff_t batch, outputs, channels;
    struct fnn_range rows, columns; /* columns begin at a panel */
};

static struct product product_piece(const union fnn_slot *segment, ptrdiff_t piece) {
    const ptrdiff_t batch = segment[SEGMENT_BATCH].size, channels = segment[SEGMENT_CHANNELS].size;
    const ptrdiff_t outputs = segment[SEGMENT_COUNT].size / channels, width = product_columns(batch, channels);
    const ptrdiff_t down = fnn_ceil_div(outputs, FNN_GEMM_ROWS); /* below each other first: x stays in the cache */
    const ptrdiff_t row = piece % down * FNN_GEMM_ROWS, column = piece / down * width;
    return (struct product){
        .dy = segment[SEGMENT_GRADIENT].pointer,
        .panels = slot_array(&segment[SEGMENT_PANELS], 0),
        .batch = batch,
        .outputs = outputs,
        .channels = channels,
        .rows = {row, fnn_min(row + FNN_GEMM_ROWS, outputs)},
        .columns = {column, fnn_min(column + width, channels)},
    };
}

void FNN_FUNCTION(pack_products)(const union fnn_slot *segments, ptrdiff_t segment_count, const struct fnn_team *team) {
    for (ptrdiff_t s = 0; s < segment_count; s++) {
        const union fnn_slot *segment = segments + s * SEGMENT_SLOTS;
        const float *x = segment[SEGMENT_X].pointer;
        if (!x) continue;
        const ptrdiff_t batch = segment[SEGMENT_BATCH].size, channels = segment[SEGMENT_CHANNELS].size;
        const struct fnn_range range = fnn_share(gemm_panels(channels), team);
        for (ptrdiff_t i = range.begin; i < range.end; i++) {
            const ptrdiff_t j = i * FNN_GEMM_COLUMNS, count = gemm_panel_columns(channels, i);
            gemm_pack_rows(x + j, channels, count, batch, gemm_width(count),
                           slot_array(&segment[SEGMENT_PANELS], j * batch));
        }
    }
}

/* The piece's parameters and states, array by array, asked for while its sums run. */
static void ask_for(const union fnn_slot *segment, const struct product *p, struct gemm_fetch fetch[1 + STATES]) {
    const ptrdiff_t rows = p->rows.end - p->rows.begin, columns = p->columns.end - p->columns.begin;
    const ptrdiff_t lines = fnn_ceil_div(columns * (ptrdiff_t)sizeof(float), GEMM_LINE);
    const ptrdiff_t chunks = gemm_panels(columns) * fnn_ceil_div(p->batch, GEMM_CHUNK);
    int arrays = 0;
    for (int slot = SEGMENT_PARAMETER; slot < SEGMENT_COUNT; slot++) {
        const float *array = slot_array(&segment[slot], p->rows.begin * p->channels + p->columns.begin);
        if (slot == SEGMENT_GRADIENT || !segment[slot].pointer) continue;
        fetch[arrays] = (struct gemm_fetch){
            .line = (uintptr_t)array,
            .left = lines,
            .lines = lines,
            .rows = rows,
            .skip = (size_t)p->channels * sizeof(float) - (size_t)(lines * GEMM_LINE),
        };
        if (arrays) fetch[arrays - 1].next = &fetch[arrays];
        arrays++;
    }
    for (int i = 0; i < arrays; i++) fetch[i].count = fnn_ceil_div(arrays * rows * lines, chunks);
}

/* The piece, its rows y_step apart. */
static void make_piece(const struct product *p, const float *left, float *gradient, ptrdiff_t y_step,
                       struct gemm_fetch *fetch) {
    const ptrdiff_t columns = p->columns.end - p->columns.begin, whole = columns / FNN_GEMM_COLUMNS;
    struct gemm_packed strip = {
        .a = left,
        .a_step = PRODUCT_LEFT,
        .depth = p->batch,
        .panel = p->panels + p->columns.begin * p->batch,
        .panel_next = FNN_GEMM_COLUMNS * p->batch,
        .tile_count = whole,
        .row_count = p->rows.end - p->rows.begin,
        .columns = FNN_GEMM_COLUMNS,
        .y = gradient,
        .y_step = y_step,
        .y_next = FNN_GEMM_COLUMNS,
        .activation = FNN_ACTIVATION_NONE,
        .fetch = fetch,
    };
    if (whole > 0) FNN_FUNCTION(gemm_packed)(&strip);
    strip.columns = columns % FNN_GEMM_COLUMNS;
    strip.tile_count = 1;
    strip.panel += whole * strip.panel_next;
    strip.y += whole * FNN_GEMM_COLUMNS;
    if (strip.columns > 0) FNN_FUNCTION(gemm_packed)(&strip);
}

void FNN_FUNCTION(update_product)(const union fnn_slot *segment, ptrdiff_t piece, update_block *update,
                                  const void *settings, float *workspace) {
    const struct product p = product_piece(segment, piece);
    const ptrdiff_t y_step = product_columns(p.batch, p.channels) + FNN_GEMM_COLUMNS; /* no power of two */
    float *left = workspace, *gradient = left + p.batch * PRODUCT_LEFT;
    struct gemm_fetch fetch[1 + STATES];
    ask_for(segment, &p, fetch);
    gemm_pack_rows(p.dy + p.rows.begin, p.outputs, p.rows.end - p.rows.begin, p.batch, PRODUCT_LEFT, left);
    make_piece(&p, left, gradient, y_step, fetch);
    for (ptrdiff_t row = p.rows.begin; row < p.rows.end; row++, gradient += y_step) {
        const struct parameter_block block =
            segment_block(segment, row * p.channels + p.columns.begin, p.columns.end - p.columns.begin, gradient);
        update(&block, settings);
    }
}
