/* Loads and stores of up to a whole vector, so that one loop body serves a row and its tail:
 * for (i = begin; i < end; i += FNN_LANES) { n = lanes_left(end - i); ... load_lanes(x + i, n) ... } */
#ifndef FASTNN_KERNELS_LANES_H
#define FASTNN_KERNELS_LANES_H

#include "kernel.h"

FNN_INLINE ptrdiff_t lanes_left(ptrdiff_t count) { return count < FNN_LANES ? count : FNN_LANES; }
FNN_INLINE vec load_lanes(const float *p, ptrdiff_t n) { return n == FNN_LANES ? vec_load(p) : vec_load_partial(p, n); }
FNN_INLINE void store_lanes(float *p, vec a, ptrdiff_t n) {
    if (n == FNN_LANES)
        vec_store(p, a);
    else
        vec_store_partial(p, a, n);
}

/* Whether a result of `count` floats is to be written past the caches: when it is too large to be found there by whoever
 * reads it, a streaming store spares reading each line before it is overwritten. Never where x is overwritten by y, whose
 * lines are in the cache already. Needs y aligned, as results and arenas are. The bits are the same either way. */
enum { FNN_STREAM_FLOATS = 4 << 20 };
static inline bool streams(const float *x, const float *y, ptrdiff_t count) {
    return count >= FNN_STREAM_FLOATS && x != y && (uintptr_t)y % sizeof(vec) == 0;
}

/* store_lanes, past the caches if `stream`; the kernel calls vec_fence at its end. */
FNN_INLINE void put_lanes(bool stream, float *p, vec a, ptrdiff_t n) {
    if (n < FNN_LANES)
        vec_store_partial(p, a, n);
    else if (stream)
        vec_stream(p, a);
    else
        vec_store(p, a);
}

/* Asks for an element that is to be looked at, or written, soon; it may lie outside of its array. */
FNN_INLINE void fetch_ahead(const float *x, ptrdiff_t distance) {
    __builtin_prefetch((const void *)((uintptr_t)x + (size_t)distance * sizeof(float)), 0, 2);
}

#endif
