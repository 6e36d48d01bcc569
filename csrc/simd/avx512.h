/* AVX-512 F, BW, DQ, VL: sixteen lanes, masks in registers of their own. See simd.h for the vocabulary. */
#ifndef FASTNN_SIMD_AVX512_H
#define FASTNN_SIMD_AVX512_H

#include <immintrin.h>

#define FNN_LANES 16
#define FNN_GEMM_ROWS 14
#define FNN_GEMM_VECTORS 2

typedef __m512 vec;
typedef uint32_t ivec __attribute__((vector_size(64)));
typedef __mmask16 mask;

static inline mask mask_from_bits(uint32_t bits) { return (mask)bits; }
static inline uint32_t mask_bits(mask m) { return m; }
static inline mask mask_first(ptrdiff_t n) { return (mask)((1u << n) - 1); }
static inline mask mask_and(mask a, mask b) { return (mask)(a & b); }
static inline mask mask_or(mask a, mask b) { return (mask)(a | b); }

static inline vec vec_load(const float *p) { return _mm512_loadu_ps(p); }
static inline vec vec_load_partial(const float *p, ptrdiff_t n) { return _mm512_maskz_loadu_ps(mask_first(n), p); }
static inline void vec_store(float *p, vec a) { _mm512_storeu_ps(p, a); }
static inline void vec_store_partial(float *p, vec a, ptrdiff_t n) { _mm512_mask_storeu_ps(p, mask_first(n), a); }
static inline void vec_stream(float *p, vec a) { _mm512_stream_ps(p, a); }
static inline void vec_fence(void) { _mm_sfence(); }

static inline vec vec_set1(float a) { return _mm512_set1_ps(a); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec vec_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); }
static inline vec vec_min(vec a, vec b) { return _mm512_min_ps(a, b); }
static inline vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec vec_sqrt(vec a) { return _mm512_sqrt_ps(a); }

#define FNN_HAS_SCALE
static inline vec vec_scale(vec a, vec n) { return _mm512_scalef_ps(a, n); }

/* An estimate of 14 bits and one step of Newton's method: a division holds its unit for 16 cycles. */
#define FNN_HAS_RECIPROCAL
static inline vec vec_reciprocal(vec a) {
    vec estimate = _mm512_rcp14_ps(a), error = _mm512_fnmadd_ps(a, estimate, _mm512_set1_ps(1.0f));
    return _mm512_fmadd_ps(estimate, error, estimate);
}
static inline vec vec_quotient(vec a, vec b) {
    vec estimate = _mm512_rcp14_ps(b), quotient = _mm512_mul_ps(a, estimate);
    return _mm512_fmadd_ps(_mm512_fnmadd_ps(quotient, b, a), estimate, quotient);
}

static inline mask vec_less(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline mask vec_less_equal(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
static inline mask vec_equal(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline mask vec_is_nan(vec a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
static inline vec vec_select(mask m, vec a, vec b) { return _mm512_mask_blend_ps(m, b, a); }

/* Halves are added until one lane is left. */
static inline float vec_sum(vec a) {
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
static inline float vec_max_across(vec a) { return _mm512_reduce_max_ps(a); }

/* a0 b0 a1 b1 ... of the lower, or the upper, halves. */
static inline vec vec_interleave_low(vec a, vec b) {
    const __m512i index = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return _mm512_permutex2var_ps(a, index, b);
}
static inline vec vec_interleave_high(vec a, vec b) {
    const __m512i index = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return _mm512_permutex2var_ps(a, index, b);
}

/* rows[i][j] <-> rows[j][i]: squares of four inside of the quarters of four rows, then quarters of vectors. */
#define FNN_HAS_TRANSPOSE
FNN_INLINE void vec_transpose(vec rows[FNN_LANES]) {
    vec quads[FNN_LANES];
#pragma GCC unroll 4
    for (int i = 0; i < FNN_LANES; i += 4) {
        const __m512d low = _mm512_castps_pd(_mm512_unpacklo_ps(rows[i], rows[i + 1]));
        const __m512d high = _mm512_castps_pd(_mm512_unpackhi_ps(rows[i], rows[i + 1]));
        const __m512d next_low = _mm512_castps_pd(_mm512_unpacklo_ps(rows[i + 2], rows[i + 3]));
        const __m512d next_high = _mm512_castps_pd(_mm512_unpackhi_ps(rows[i + 2], rows[i + 3]));
        quads[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, next_low));
        quads[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, next_low));
        quads[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high, next_high));
        quads[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high, next_high));
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const vec even = _mm512_shuffle_f32x4(quads[j], quads[j + 4], 0x88);
        const vec odd = _mm512_shuffle_f32x4(quads[j], quads[j + 4], 0xdd);
        const vec next_even = _mm512_shuffle_f32x4(quads[j + 8], quads[j + 12], 0x88);
        const vec next_odd = _mm512_shuffle_f32x4(quads[j + 8], quads[j + 12], 0xdd);
        rows[j] = _mm512_shuffle_f32x4(even, next_even, 0x88);
        rows[j + 4] = _mm512_shuffle_f32x4(odd, next_odd, 0x88);
        rows[j + 8] = _mm512_shuffle_f32x4(even, next_even, 0xdd);
        rows[j + 12] = _mm512_shuffle_f32x4(odd, next_odd, 0xdd);
    }
}

static inline ivec ivec_set1(uint32_t a) { return (ivec)_mm512_set1_epi32((int)a); }
#define FNN_HAS_LOOK_UP
/* The table twice, as sixteen entries are looked up. */
static inline vec vec_look_up(const float table[8], ivec index) {
    return _mm512_permutexvar_ps((__m512i)index, _mm512_broadcast_f32x8(_mm256_loadu_ps(table)));
}
static inline ivec ivec_iota(void) { return (ivec){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }
static inline ivec ivec_load(const uint32_t *p) { return (ivec)_mm512_loadu_si512(p); }
static inline void ivec_store(uint32_t *p, ivec a) { _mm512_storeu_si512(p, (__m512i)a); }
static inline mask ivec_less_equal(ivec a, ivec b) { return _mm512_cmple_epu32_mask((__m512i)a, (__m512i)b); }
static inline mask ivec_equal(ivec a, ivec b) { return _mm512_cmpeq_epu32_mask((__m512i)a, (__m512i)b); }
static inline ivec ivec_select(mask m, ivec a, ivec b) {
    return (ivec)_mm512_mask_blend_epi32(m, (__m512i)b, (__m512i)a);
}
/* Two vectors of 64-bit places: lanes 0 to 7 and 8 to 15. */
#define FNN_HAS_WIDE
typedef struct {
    ivec part[2];
} wide;

static inline wide wide_from_ivec(ivec a) {
    __m256i low = _mm512_castsi512_si256((__m512i)a), high = _mm512_extracti64x4_epi64((__m512i)a, 1);
    return (wide){{(ivec)_mm512_cvtepu32_epi64(low), (ivec)_mm512_cvtepu32_epi64(high)}};
}
static inline wide wide_multiply(wide a, ivec b, wide *high) {
    wide low;
    for (int i = 0; i < 2; i++) {
        __m512i product = _mm512_mul_epu32((__m512i)a.part[i], (__m512i)b);
        low.part[i] = (ivec)product;
        high->part[i] = (ivec)_mm512_shuffle_epi32(product, (_MM_PERM_ENUM)0xf5); /* not a shift: another port */
    }
    return low;
}
static inline wide wide_xor(wide high, wide low, ivec each) {
    for (int i = 0; i < 2; i++)
        high.part[i] =
            (ivec)_mm512_ternarylogic_epi32((__m512i)high.part[i], (__m512i)low.part[i], (__m512i)each, 0x96);
    return high;
}
static inline void wide_interleave(wide a, wide b, ivec out[2]) {
    for (int i = 0; i < 2; i++)
        out[i] = (ivec)_mm512_mask_shuffle_epi32((__m512i)a.part[i], 0xaaaa, (__m512i)b.part[i], (_MM_PERM_ENUM)0xa0);
}
static inline ivec ivec_from_vec(vec a) { return (ivec)_mm512_cvtps_epi32(a); }

static inline ivec ivec_load_u8(const uint8_t *p) {
    return (ivec)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline ivec ivec_load_u8_partial(const uint8_t *p, ptrdiff_t n) {
    return (ivec)_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask_first(n), p));
}
static inline void ivec_store_u8(uint8_t *p, ivec a) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8((__m512i)a));
}
static inline void ivec_store_u8_partial(uint8_t *p, ivec a, ptrdiff_t n) {
    _mm512_mask_cvtepi32_storeu_epi8(p, mask_first(n), (__m512i)a);
}

#endif
