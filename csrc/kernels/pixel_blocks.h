/* How weight gradients of convolutions cut the pixels that they sum over: into blocks of whole output rows, or of equal parts of one
 * row where it is long. */
#ifndef FASTNN_PIXEL_BLOCKS_H
#define FASTNN_PIXEL_BLOCKS_H

#include "kernel.h"

struct pixel_blocks {
    ptrdiff_t width; /* of an output row */
    ptrdiff_t rows; /* in a block, at most */
    ptrdiff_t pieces; /* of a row: 1 if rows > 1 */
};

/* Pixels of the longest part of a row. */
static inline ptrdiff_t pixel_blocks_longest(const struct pixel_blocks *b) { return fnn_ceil_div(b->width, b->pieces); }

/* How many blocks cut so many rows; one, without pixels, if there are none: a sum of zero. */
static inline ptrdiff_t pixel_blocks_of(const struct pixel_blocks *b, struct fnn_range rows) {
    return fnn_max(fnn_ceil_div(rows.end - rows.begin, b->rows) * b->pieces, 1);
}

/* The pixels of block `index` of the `blocks` that cut the rows. */
static inline struct fnn_range pixel_block_at(const struct pixel_blocks *b, struct fnn_range rows, ptrdiff_t index,
                                              ptrdiff_t blocks) {
    const ptrdiff_t count = rows.end - rows.begin;
    if (count * b->width == 0) return (struct fnn_range){0, 0};
    if (b->pieces > 1) {
        const ptrdiff_t first = (rows.begin + index / b->pieces) * b->width, piece = index % b->pieces;
        return (struct fnn_range){first + piece * b->width / b->pieces, first + (piece + 1) * b->width / b->pieces};
    }
    return (struct fnn_range){(rows.begin + index * count / blocks) * b->width,
                              (rows.begin + (index + 1) * count / blocks) * b->width};
}

#endif
