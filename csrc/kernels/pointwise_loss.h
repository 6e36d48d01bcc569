/* The elementwise losses: codes, which the Python side uses as well, and parameters a, b. x, target (count).
 *
 *   code             loss of an element                                                          d loss / d x
 *   SQUARED_ERROR    d^2, d = x - target                                                         2 d
 *   ABSOLUTE_ERROR   |d|                                                                         sign d
 *   HUBER            b * (|d| <= a ? d^2 / 2 : a * (|d| - a/2)); smooth L1: a = beta, b = 1/beta   b * min(max(d, -a), a)
 *   CROSS_ENTROPY    -(target * log x + (1 - target) * log(1 - x)), logarithms at least -100      (x - target) / max(x (1-x), 1e-12)
 *   LOGIT_ENTROPY    q * log(1 + exp(-x)) + (1 - target) * log(1 + exp x), q = pos_weight * target   (1-target) s(x) - q s(-x)
 *   DIVERGENCE       target > 0 ? target * (log target - x) : 0                                  -max(target, 0)
 *   LOG_DIVERGENCE   exp(target) * (target - x)                                                  -exp(target)
 *
 * All of it times weight (count), where given. */
#ifndef FASTNN_KERNELS_POINTWISE_LOSS_H
#define FASTNN_KERNELS_POINTWISE_LOSS_H

#include "vector_math.h"

/* Each code with the function that computes it, forward in one kernel and backward in the other. */
#define LOSSES(ONE)                     \
    ONE(SQUARED_ERROR, squared_error)   \
    ONE(ABSOLUTE_ERROR, absolute_error) \
    ONE(HUBER, huber)                   \
    ONE(CROSS_ENTROPY, cross_entropy)   \
    ONE(LOGIT_ENTROPY, logit_entropy)   \
    ONE(DIVERGENCE, divergence)         \
    ONE(LOG_DIVERGENCE, log_divergence)

#define LOSS_CODE(code, function) code,
enum loss_code { LOSSES(LOSS_CODE) };

#define LOSS_CASE(code, function) \
    case code: map(function, args, team); break;

struct loss_settings {
    vec a, b;
};

enum { LOSS_REDUCTION_NONE = 0, LOSS_BLOCK = 256 };

#endif
