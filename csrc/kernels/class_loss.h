/* What the losses of class indices share: the rows that count, the weight of a label, a row's share of the gradient, and the
 * totals of blocks, combined in order.
 *
 * Rows whose label is ignore_index count nowhere. (So do labels outside [0, classes), which the caller has refused.)
 * reduction: 0 none, 1 mean, 2 sum. */
#ifndef FASTNN_KERNELS_CLASS_LOSS_H
#define FASTNN_KERNELS_CLASS_LOSS_H

#include "lanes.h"

enum { REDUCTION_NONE = 0, REDUCTION_MEAN = 1 };

static inline bool is_counted(int64_t label, ptrdiff_t classes, ptrdiff_t ignore_index) {
    return label != ignore_index && label >= 0 && label < classes;
}

static inline float class_weight_of(const float *class_weight, int64_t label) {
    return class_weight ? class_weight[label] : 1.0f;
}

/* sums (blocks, 2): of each block's losses and of its labels' weights. loss stays as it is where no reduction is wanted. */
static inline void combine_blocks(const double *sums, ptrdiff_t blocks, ptrdiff_t reduction, float *loss,
                                  float *total_weight) {
    double losses = 0, weights = 0;
    for (ptrdiff_t b = 0; b < blocks; b++) {
        losses += sums[2 * b];
        weights += sums[2 * b + 1];
    }
    total_weight[0] = (float)weights;
    if (reduction == REDUCTION_NONE) return;
    loss[0] = (float)(reduction == REDUCTION_MEAN ? losses / weights : losses);
}

/* d loss / d loss_i of a row: dloss[i], dloss / total_weight, or dloss. */
static inline float row_dloss(const float *dloss, const float *total_weight, ptrdiff_t reduction, ptrdiff_t row) {
    float gradient = dloss[reduction == REDUCTION_NONE ? row : 0];
    return reduction == REDUCTION_MEAN ? gradient / total_weight[0] : gradient;
}

static inline void clear_row(float *row, ptrdiff_t classes) {
    for (ptrdiff_t c = 0; c < classes; c += FNN_LANES) store_lanes(row + c, vec_zero(), lanes_left(classes - c));
}

#endif
