/* Loads and stores of up to a whole vector, so that one loop body serves a row and its tail:
 * for (i = begin; i < end; i += FNN_LANES) { n = lanes_left(end - i); ... load_lanes(x + i, n) ... } */
#ifndef FASTNN_KERNELS_LANES_H
#define FASTNN_KERNELS_LANES_H

#include "kernel.h"

/* For functions whose constant arguments (a count of vectors, an operation) make them different loops. */
#define FNN_INLINE static inline __attribute__((always_inline))

FNN_INLINE ptrdiff_t lanes_left(ptrdiff_t count) { return count < FNN_LANES ? count : FNN_LANES; }
FNN_INLINE vec load_lanes(const float *p, ptrdiff_t n) { return n == FNN_LANES ? vec_load(p) : vec_load_partial(p, n); }
FNN_INLINE void store_lanes(float *p, vec a, ptrdiff_t n) {
    if (n == FNN_LANES)
        vec_store(p, a);
    else
        vec_store_partial(p, a, n);
}

#endif
