/* The index that max pooling keeps of each maximum, for backward: r*S + s of its tap, none for a window without a tap inside; one byte
 * if R*S <= 255, else (wide) a uint32. */
#ifndef FASTNN_KERNELS_MAX_POOL_INDEX_H
#define FASTNN_KERNELS_MAX_POOL_INDEX_H

#include "lanes.h"

enum { BYTE_TAPS = 255, NO_TAP_BYTE = 255 };
#define NO_TAP 0xffffffffu

FNN_INLINE ivec load_index(const bool wide, const uint8_t *index, ptrdiff_t i, ptrdiff_t n) {
    if (!wide) return n == FNN_LANES ? ivec_load_u8(index + i) : ivec_load_u8_partial(index + i, n);
    return ivec_from_float_bits(load_lanes((const float *)(const void *)index + i, n));
}

FNN_INLINE void store_index(const bool wide, uint8_t *index, ptrdiff_t i, ivec taps, ptrdiff_t n) {
    if (wide)
        store_lanes((float *)(void *)index + i, vec_from_bits(taps), n);
    else if (n == FNN_LANES)
        ivec_store_u8(index + i, taps);
    else
        ivec_store_u8_partial(index + i, taps, n);
}

#endif
