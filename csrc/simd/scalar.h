/* Any CPU: four lanes of plain C on GCC/Clang vector types, which the compiler maps to what the baseline has (SSE2 on
 * x86-64). No fused multiply-add: without hardware for it, it would be a library call. See simd.h for the vocabulary. */
#ifndef FASTNN_SIMD_SCALAR_H
#define FASTNN_SIMD_SCALAR_H

#include <string.h>

#define FNN_LANES 4
#define FNN_GEMM_ROWS 4
#define FNN_GEMM_VECTORS 2

typedef float vec __attribute__((vector_size(16)));
typedef uint32_t ivec __attribute__((vector_size(16)));
typedef ivec mask; /* all ones or all zeros a lane */

FNN_INLINE ivec ivec_set1(uint32_t a) { return (ivec){a, a, a, a}; }
FNN_INLINE ivec ivec_iota(void) { return (ivec){0, 1, 2, 3}; }

FNN_INLINE mask mask_from_bits(uint32_t bits) {
    const ivec lane_bit = {1, 2, 4, 8};
    return (mask)((ivec_set1(bits) & lane_bit) == lane_bit);
}
FNN_INLINE uint32_t mask_bits(mask m) { return (m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8); }
FNN_INLINE mask mask_first(ptrdiff_t n) { return (mask)(ivec_iota() < ivec_set1((uint32_t)n)); }
FNN_INLINE mask mask_and(mask a, mask b) { return a & b; }
FNN_INLINE mask mask_or(mask a, mask b) { return a | b; }

FNN_INLINE vec vec_load(const float *p) {
    vec a;
    memcpy(&a, p, sizeof a);
    return a;
}
FNN_INLINE void vec_store(float *p, vec a) { memcpy(p, &a, sizeof a); }

/* Less than a vector. Four branches, inlined wherever a row may end, were a quarter of all code. */
#define FNN_APART static __attribute__((noinline, unused))
FNN_APART vec scalar_load_few(const float *p, ptrdiff_t n) {
    return (vec){n > 0 ? p[0] : 0.0f, n > 1 ? p[1] : 0.0f, n > 2 ? p[2] : 0.0f, 0.0f};
}
FNN_APART void scalar_store_few(float *p, vec a, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) p[i] = a[i];
}
FNN_INLINE vec vec_load_partial(const float *p, ptrdiff_t n) {
    return n == FNN_LANES ? vec_load(p) : scalar_load_few(p, n);
}
FNN_INLINE void vec_store_partial(float *p, vec a, ptrdiff_t n) {
    if (n == FNN_LANES)
        vec_store(p, a);
    else
        scalar_store_few(p, a, n);
}
FNN_INLINE void vec_stream(float *p, vec a) { vec_store(p, a); }
FNN_INLINE void vec_fence(void) {}

FNN_INLINE vec vec_set1(float a) { return (vec){a, a, a, a}; }
FNN_INLINE vec vec_fma(vec a, vec b, vec c) { return a * b + c; }
FNN_INLINE vec vec_fnma(vec a, vec b, vec c) { return c - a * b; }

FNN_INLINE mask vec_less(vec a, vec b) { return (mask)(a < b); }
FNN_INLINE mask vec_less_equal(vec a, vec b) { return (mask)(a <= b); }
FNN_INLINE mask vec_equal(vec a, vec b) { return (mask)(a == b); }
FNN_INLINE mask vec_is_nan(vec a) { return (mask)(a != a); }
FNN_INLINE ivec ivec_select(mask m, ivec a, ivec b) { return (a & m) | (b & ~m); }
FNN_INLINE vec vec_select(mask m, vec a, vec b) { return (vec)ivec_select(m, (ivec)a, (ivec)b); }
FNN_INLINE vec vec_min(vec a, vec b) { return vec_select(vec_less(a, b), a, b); }
FNN_INLINE vec vec_max(vec a, vec b) { return vec_select(vec_less(b, a), a, b); }

FNN_INLINE vec vec_sqrt(vec a) {
    return (vec){__builtin_sqrtf(a[0]), __builtin_sqrtf(a[1]), __builtin_sqrtf(a[2]), __builtin_sqrtf(a[3])};
}

/* Halves are added until one lane is left. */
FNN_INLINE float vec_sum(vec a) { return (a[0] + a[2]) + (a[1] + a[3]); }
FNN_INLINE float vec_max_across(vec a) {
    vec b = vec_max(a, (vec){a[2], a[3], a[0], a[1]});
    return b[0] > b[1] ? b[0] : b[1];
}

/* a0 b0 a1 b1 of the lower, or the upper, halves. */
FNN_INLINE vec vec_interleave_low(vec a, vec b) { return (vec){a[0], b[0], a[1], b[1]}; }
FNN_INLINE vec vec_interleave_high(vec a, vec b) { return (vec){a[2], b[2], a[3], b[3]}; }

FNN_INLINE ivec ivec_load(const uint32_t *p) {
    ivec a;
    memcpy(&a, p, sizeof a);
    return a;
}
FNN_INLINE void ivec_store(uint32_t *p, ivec a) { memcpy(p, &a, sizeof a); }
FNN_INLINE mask ivec_less_equal(ivec a, ivec b) { return (mask)(a <= b); }
FNN_INLINE mask ivec_equal(ivec a, ivec b) { return (mask)(a == b); }
/* The low halves of the 64-bit products; *high receives the high halves. */
FNN_INLINE ivec ivec_mul_wide(ivec a, ivec b, ivec *high) {
    ivec low = {0};
    for (int i = 0; i < FNN_LANES; i++) {
        uint64_t product = (uint64_t)a[i] * b[i];
        low[i] = (uint32_t)product;
        (*high)[i] = (uint32_t)(product >> 32);
    }
    return low;
}
/* Adding 2^23 of the same sign leaves no room for a fraction; beyond it there is none. */
FNN_INLINE vec scalar_round(vec a) {
    const ivec sign = (ivec)a & ivec_set1(0x80000000u);
    const vec magnitude = (vec)((ivec)a ^ sign), limit = vec_set1(8388608.0f);
    vec rounded = (magnitude + limit) - limit;
    return vec_select(vec_less(magnitude, limit), (vec)((ivec)rounded | sign), a);
}
FNN_INLINE ivec ivec_from_vec(vec a) {
    typedef int32_t signed_lanes __attribute__((vector_size(16)));
    return (ivec) __builtin_convertvector(scalar_round(a), signed_lanes);
}

FNN_INLINE ivec ivec_load_u8_partial(const uint8_t *p, ptrdiff_t n) {
    ivec a = {0};
    for (ptrdiff_t i = 0; i < n; i++) a[i] = p[i];
    return a;
}
FNN_INLINE ivec ivec_load_u8(const uint8_t *p) { return (ivec){p[0], p[1], p[2], p[3]}; }
FNN_INLINE void ivec_store_u8_partial(uint8_t *p, ivec a, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) p[i] = (uint8_t)a[i];
}
FNN_INLINE void ivec_store_u8(uint8_t *p, ivec a) { ivec_store_u8_partial(p, a, FNN_LANES); }

#endif
