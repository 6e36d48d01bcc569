/* AArch64 Advanced SIMD (NEON): four lanes. See simd.h for the vocabulary. */
#ifndef FASTNN_SIMD_NEON_H
#define FASTNN_SIMD_NEON_H

#include <arm_neon.h>

#define FNN_LANES 4
#define FNN_GEMM_ROWS 6
#define FNN_GEMM_VECTORS 4

typedef float32x4_t vec;
typedef uint32x4_t ivec;
typedef uint32x4_t mask;

static inline ivec ivec_iota(void) { return (ivec){0, 1, 2, 3}; }

static inline mask mask_from_bits(uint32_t bits) {
    const uint32x4_t lane_bit = {1, 2, 4, 8};
    return vtstq_u32(vdupq_n_u32(bits), lane_bit);
}
static inline uint32_t mask_bits(mask m) {
    const uint32x4_t lane_bit = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(m, lane_bit));
}
static inline mask mask_first(ptrdiff_t n) { return vcltq_u32(ivec_iota(), vdupq_n_u32((uint32_t)n)); }
static inline mask mask_and(mask a, mask b) { return vandq_u32(a, b); }
static inline mask mask_or(mask a, mask b) { return vorrq_u32(a, b); }

static inline vec vec_load(const float *p) { return vld1q_f32(p); }
static inline vec vec_load_partial(const float *p, ptrdiff_t n) {
    if (n == FNN_LANES) return vld1q_f32(p);
    vec a = vdupq_n_f32(0.0f);
    if (n > 0) a = vld1q_lane_f32(p, a, 0);
    if (n > 1) a = vld1q_lane_f32(p + 1, a, 1);
    if (n > 2) a = vld1q_lane_f32(p + 2, a, 2);
    return a;
}
static inline void vec_store(float *p, vec a) { vst1q_f32(p, a); }
static inline void vec_store_partial(float *p, vec a, ptrdiff_t n) {
    if (n > 0) vst1q_lane_f32(p, a, 0);
    if (n > 1) vst1q_lane_f32(p + 1, a, 1);
    if (n > 2) vst1q_lane_f32(p + 2, a, 2);
    if (n > 3) vst1q_lane_f32(p + 3, a, 3);
}
static inline void vec_stream(float *p, vec a) { vst1q_f32(p, a); }
static inline void vec_fence(void) {}

static inline vec vec_set1(float a) { return vdupq_n_f32(a); }
static inline vec vec_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
static inline vec vec_fnma(vec a, vec b, vec c) { return vfmsq_f32(c, a, b); }
/* Not vminq/vmaxq: those return NaN if either is NaN. */
static inline vec vec_min(vec a, vec b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline vec vec_max(vec a, vec b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vec vec_sqrt(vec a) { return vsqrtq_f32(a); }

static inline mask vec_less(vec a, vec b) { return vcltq_f32(a, b); }
static inline mask vec_less_equal(vec a, vec b) { return vcleq_f32(a, b); }
static inline mask vec_equal(vec a, vec b) { return vceqq_f32(a, b); }
static inline mask vec_is_nan(vec a) { return vmvnq_u32(vceqq_f32(a, a)); }
static inline vec vec_select(mask m, vec a, vec b) { return vbslq_f32(m, a, b); }

/* Halves are added until one lane is left. */
static inline float vec_sum(vec a) {
    float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}
static inline float vec_max_across(vec a) {
    vec b = vec_max(a, vextq_f32(a, a, 2));
    return vgetq_lane_f32(vec_max(b, vextq_f32(b, b, 1)), 0);
}

/* a0 b0 a1 b1 of the lower, or the upper, halves. */
static inline vec vec_interleave_low(vec a, vec b) { return vzip1q_f32(a, b); }
static inline vec vec_interleave_high(vec a, vec b) { return vzip2q_f32(a, b); }

static inline ivec ivec_set1(uint32_t a) { return vdupq_n_u32(a); }
#define FNN_HAS_LOOK_UP
/* By bytes: those of float i stand at 4 i and after it. */
static inline vec vec_look_up(const float table[8], ivec index) {
    uint32x4_t low = vandq_u32(index, vdupq_n_u32(7));
    uint32x4_t bytes = vmlaq_u32(vdupq_n_u32(0x03020100u), low, vdupq_n_u32(0x04040404u));
    uint8x16x2_t all = {{vreinterpretq_u8_f32(vld1q_f32(table)), vreinterpretq_u8_f32(vld1q_f32(table + 4))}};
    return vreinterpretq_f32_u8(vqtbl2q_u8(all, vreinterpretq_u8_u32(bytes)));
}
static inline ivec ivec_load(const uint32_t *p) { return vld1q_u32(p); }
static inline void ivec_store(uint32_t *p, ivec a) { vst1q_u32(p, a); }
static inline mask ivec_less_equal(ivec a, ivec b) { return vcleq_u32(a, b); }
static inline mask ivec_equal(ivec a, ivec b) { return vceqq_u32(a, b); }
static inline ivec ivec_select(mask m, ivec a, ivec b) { return vbslq_u32(m, a, b); }
/* The low halves of the 64-bit products; *high receives the high halves. */
static inline ivec ivec_mul_wide(ivec a, ivec b, ivec *high) {
    uint32x4_t first = vreinterpretq_u32_u64(vmull_u32(vget_low_u32(a), vget_low_u32(b)));
    uint32x4_t second = vreinterpretq_u32_u64(vmull_high_u32(a, b));
    *high = vuzp2q_u32(first, second);
    return vuzp1q_u32(first, second);
}
static inline ivec ivec_from_vec(vec a) { return vreinterpretq_u32_s32(vcvtnq_s32_f32(a)); }

static inline ivec ivec_load_u8_partial(const uint8_t *p, ptrdiff_t n) {
    uint32_t lanes[FNN_LANES] = {0};
    for (ptrdiff_t i = 0; i < n; i++) lanes[i] = p[i];
    return vld1q_u32(lanes);
}
static inline ivec ivec_load_u8(const uint8_t *p) { return (ivec){p[0], p[1], p[2], p[3]}; }
static inline void ivec_store_u8_partial(uint8_t *p, ivec a, ptrdiff_t n) {
    uint32_t lanes[FNN_LANES];
    vst1q_u32(lanes, a);
    for (ptrdiff_t i = 0; i < n; i++) p[i] = (uint8_t)lanes[i];
}
static inline void ivec_store_u8(uint8_t *p, ivec a) { ivec_store_u8_partial(p, a, FNN_LANES); }

#endif
