/* The weight gradient of a convolution of few channels, see conv2d_weight_taps.c. */
#ifndef FASTNN_CONV2D_WEIGHT_TAPS_H
#define FASTNN_CONV2D_WEIGHT_TAPS_H

#include "kernel.h"

/* The kernel conv2d_backward_weight with `transposed`. */
void FNN_FUNCTION(conv2d_weight_taps)(const struct fnn_conv2d_backward_weight_args *args, const struct fnn_team *team);

#endif
