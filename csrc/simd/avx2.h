/* AVX2 and FMA: eight lanes, a mask is a vector of all-ones or all-zeros lanes. See simd.h for the vocabulary. */
#ifndef FASTNN_SIMD_AVX2_H
#define FASTNN_SIMD_AVX2_H

#include <immintrin.h>

#define FNN_LANES 8
#define FNN_GEMM_ROWS 6
#define FNN_GEMM_VECTORS 2

typedef __m256 vec;
typedef uint32_t ivec __attribute__((vector_size(32)));
typedef __m256i mask;

static inline mask mask_from_bits(uint32_t bits) {
    const __m256i lane_bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), lane_bit), lane_bit);
}
static inline uint32_t mask_bits(mask m) { return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(m)); }
static inline mask mask_first(ptrdiff_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline mask mask_and(mask a, mask b) { return _mm256_and_si256(a, b); }
static inline mask mask_or(mask a, mask b) { return _mm256_or_si256(a, b); }

static inline vec vec_load(const float *p) { return _mm256_loadu_ps(p); }
static inline vec vec_load_partial(const float *p, ptrdiff_t n) { return _mm256_maskload_ps(p, mask_first(n)); }
static inline void vec_store(float *p, vec a) { _mm256_storeu_ps(p, a); }
/* No masked store: AMD's processors take 12 cycles and more for one, even where the mask is full. */
static inline void vec_store_partial(float *p, vec a, ptrdiff_t n) {
    if (n == 8) {
        _mm256_storeu_ps(p, a);
        return;
    }
    __m128 rest = _mm256_castps256_ps128(a);
    if (n & 4) {
        _mm_storeu_ps(p, rest);
        rest = _mm256_extractf128_ps(a, 1);
        p += 4;
    }
    if (n & 2) {
        _mm_storel_pi((__m64 *)(void *)p, rest);
        rest = _mm_movehl_ps(rest, rest);
        p += 2;
    }
    if (n & 1) _mm_store_ss(p, rest);
}
static inline void vec_stream(float *p, vec a) { _mm256_stream_ps(p, a); }
static inline void vec_fence(void) { _mm_sfence(); }

static inline vec vec_set1(float a) { return _mm256_set1_ps(a); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec vec_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); }
static inline vec vec_min(vec a, vec b) { return _mm256_min_ps(a, b); }
static inline vec vec_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec vec_sqrt(vec a) { return _mm256_sqrt_ps(a); }

static inline mask vec_less(vec a, vec b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
static inline mask vec_less_equal(vec a, vec b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LE_OQ)); }
static inline mask vec_equal(vec a, vec b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)); }
static inline mask vec_is_nan(vec a) { return _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)); }
static inline vec vec_select(mask m, vec a, vec b) { return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(m)); }
#define FNN_HAS_KEEP
static inline vec vec_keep(mask m, vec a) { return _mm256_and_ps(a, _mm256_castsi256_ps(m)); }

/* Halves are added until one lane is left. */
static inline float vec_sum(vec a) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
static inline float vec_max_across(vec a) {
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

/* a0 b0 a1 b1 ... of the lower, or the upper, halves. */
static inline vec vec_interleave_low(vec a, vec b) {
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
}
static inline vec vec_interleave_high(vec a, vec b) {
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
}

/* rows[i][j] <-> rows[j][i]: squares of four inside of the halves of four rows, then halves of vectors. */
#define FNN_HAS_TRANSPOSE
FNN_INLINE void vec_transpose(vec rows[FNN_LANES]) {
    vec quads[FNN_LANES];
#pragma GCC unroll 2
    for (int i = 0; i < FNN_LANES; i += 4) {
        const __m256d low = _mm256_castps_pd(_mm256_unpacklo_ps(rows[i], rows[i + 1]));
        const __m256d high = _mm256_castps_pd(_mm256_unpackhi_ps(rows[i], rows[i + 1]));
        const __m256d next_low = _mm256_castps_pd(_mm256_unpacklo_ps(rows[i + 2], rows[i + 3]));
        const __m256d next_high = _mm256_castps_pd(_mm256_unpackhi_ps(rows[i + 2], rows[i + 3]));
        quads[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, next_low));
        quads[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, next_low));
        quads[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(high, next_high));
        quads[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(high, next_high));
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        rows[j] = _mm256_permute2f128_ps(quads[j], quads[j + 4], 0x20);
        rows[j + 4] = _mm256_permute2f128_ps(quads[j], quads[j + 4], 0x31);
    }
}

static inline ivec ivec_set1(uint32_t a) { return (ivec)_mm256_set1_epi32((int)a); }
#define FNN_HAS_LOOK_UP
static inline vec vec_look_up(const float table[8], ivec index) {
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)index);
}
static inline ivec ivec_iota(void) { return (ivec){0, 1, 2, 3, 4, 5, 6, 7}; }
static inline ivec ivec_load(const uint32_t *p) { return (ivec)_mm256_loadu_si256((const __m256i *)(const void *)p); }
static inline void ivec_store(uint32_t *p, ivec a) { _mm256_storeu_si256((__m256i *)(void *)p, (__m256i)a); }
static inline mask ivec_less_equal(ivec a, ivec b) {
    return _mm256_cmpeq_epi32(_mm256_max_epu32((__m256i)b, (__m256i)a), (__m256i)b);
}
static inline mask ivec_equal(ivec a, ivec b) { return _mm256_cmpeq_epi32((__m256i)a, (__m256i)b); }
static inline ivec ivec_select(mask m, ivec a, ivec b) { return (ivec)_mm256_blendv_epi8((__m256i)b, (__m256i)a, m); }
#define FNN_HAS_SWAP_HALVES
static inline ivec ivec_swap_halves(ivec a) {
    const __m128i order = _mm_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    return (ivec)_mm256_shuffle_epi8((__m256i)a, _mm256_broadcastsi128_si256(order));
}
/* Two vectors of 64-bit places: lanes 0 to 3 and 4 to 7. */
#define FNN_HAS_WIDE
typedef struct {
    ivec part[2];
} wide;

static inline wide wide_from_ivec(ivec a) {
    __m128i low = _mm256_castsi256_si128((__m256i)a), high = _mm256_extracti128_si256((__m256i)a, 1);
    return (wide){{(ivec)_mm256_cvtepu32_epi64(low), (ivec)_mm256_cvtepu32_epi64(high)}};
}
static inline wide wide_multiply(wide a, ivec b, wide *high) {
    wide low;
    for (int i = 0; i < 2; i++) {
        __m256i product = _mm256_mul_epu32((__m256i)a.part[i], (__m256i)b);
        low.part[i] = (ivec)product;
        high->part[i] = (ivec)_mm256_shuffle_epi32(product, 0xf5); /* not a shift: another port */
    }
    return low;
}
/* high ^ low ^ each: in 64-bit lanes, and the two that are early first; else GCC joins the chain in an order of its own. */
static inline wide wide_xor(wide high, wide low, ivec each) {
    typedef uint64_t places __attribute__((vector_size(32)));
    for (int i = 0; i < 2; i++) high.part[i] ^= (ivec)((places)low.part[i] ^ (places)each);
    return high;
}
static inline void wide_interleave(wide a, wide b, ivec out[2]) {
    for (int i = 0; i < 2; i++) {
        __m256i odd = _mm256_shuffle_epi32((__m256i)b.part[i], 0xa0);
        out[i] = (ivec)_mm256_blend_epi32((__m256i)a.part[i], odd, 0xaa);
    }
}
static inline ivec ivec_from_vec(vec a) { return (ivec)_mm256_cvtps_epi32(a); }

static inline ivec ivec_load_u8(const uint8_t *p) {
    return (ivec)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}
static inline ivec ivec_load_u8_partial(const uint8_t *p, ptrdiff_t n) {
    uint64_t bytes = 0;
    for (ptrdiff_t i = 0; i < n; i++) bytes |= (uint64_t)p[i] << (8 * i);
    return (ivec)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)bytes));
}
/* The low byte of each lane, gathered in the low 64 bits. */
static inline __m128i avx2_low_bytes(ivec a) {
    const __m256i pick = _mm256_set1_epi64x((long long)0xffffffff0c080400ull);
    __m256i quads = _mm256_shuffle_epi8((__m256i)a, pick);
    return _mm_unpacklo_epi32(_mm256_castsi256_si128(quads), _mm256_extracti128_si256(quads, 1));
}
static inline void ivec_store_u8(uint8_t *p, ivec a) { _mm_storel_epi64((__m128i *)(void *)p, avx2_low_bytes(a)); }
static inline void ivec_store_u8_partial(uint8_t *p, ivec a, ptrdiff_t n) {
    uint64_t bytes = (uint64_t)_mm_cvtsi128_si64(avx2_low_bytes(a));
    for (ptrdiff_t i = 0; i < n; i++) p[i] = (uint8_t)(bytes >> (8 * i));
}

#endif
