/* AVX-512 for CPUs without it: included before everything else in the kernels of the avx512 ISA when the build has FASTNN_EMULATE_AVX512.
 * SIMDe (https://github.com/simd-everywhere/simde, MIT) gives the intrinsics that csrc/simd/avx512.h uses, in C or AVX2; this file adds those
 * that Debian's SIMDe 0.7.4 lacks or rounds otherwise than the instruction. Semantics: Intel's Software Developer's Manual, volume 2.
 *
 * The bits are those of the instructions, NaN and the denormal modes of MXCSR included, but for rcp14, of which only the error is known here.
 * Masked loads and stores go lane by lane and touch no other lane, so that AddressSanitizer sees each of them (with --param asan-stack=0,
 * or it compiles for minutes). */
#ifndef FASTNN_TESTS_AVX512_EMULATED_H
#define FASTNN_TESTS_AVX512_EMULATED_H

#include <immintrin.h> /* first: SIMDe's macros then stand for the compiler's functions */
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { EMULATED_LANES = 16 };

union emulated {
    __m512 floats;
    __m512i integers;
    __m256 float_halves[2];
    __m256i integer_halves[2];
    float f[EMULATED_LANES];
    uint32_t u[EMULATED_LANES];
};

static inline int emulated_lane(__mmask16 mask, int i) { return mask >> i & 1; }

/* ---- memory */

static inline __m512 emulated_maskz_loadu_ps(__mmask16 mask, const void *from) {
    union emulated result = {.u = {0}};
    for (int i = 0; i < EMULATED_LANES; i++)
        if (emulated_lane(mask, i)) result.f[i] = ((const float *)from)[i];
    return result.floats;
}

static inline void emulated_mask_storeu_ps(void *to, __mmask16 mask, __m512 a) {
    union emulated source = {.floats = a};
    for (int i = 0; i < EMULATED_LANES; i++)
        if (emulated_lane(mask, i)) ((float *)to)[i] = source.f[i];
}

static inline void emulated_stream_ps(void *to, __m512 a) {
    if ((uintptr_t)to % sizeof a != 0) __builtin_trap(); /* as the instruction does */
    memcpy(to, &a, sizeof a);
}

static inline __m128i emulated_maskz_loadu_epi8(__mmask16 mask, const void *from) {
    uint8_t bytes[EMULATED_LANES] = {0};
    for (int i = 0; i < EMULATED_LANES; i++)
        if (emulated_lane(mask, i)) bytes[i] = ((const uint8_t *)from)[i];
    return _mm_loadu_si128((const __m128i *)(const void *)bytes);
}

static inline void emulated_mask_cvtepi32_storeu_epi8(void *to, __mmask16 mask, __m512i a) {
    union emulated source = {.integers = a};
    for (int i = 0; i < EMULATED_LANES; i++)
        if (emulated_lane(mask, i)) ((uint8_t *)to)[i] = (uint8_t)source.u[i];
}

/* ---- moves and conversions */

static inline __m256 emulated_extractf32x8_ps(__m512 a, int half) {
    return (union emulated){.floats = a}.float_halves[half];
}

static inline __m512i emulated_mask_shuffle_epi32(__m512i otherwise, __mmask16 mask, __m512i a, int order) {
    union emulated source = {.integers = a}, result = {.integers = otherwise};
    for (int i = 0; i < EMULATED_LANES; i++)
        if (emulated_lane(mask, i)) result.u[i] = source.u[(i & ~3) | (order >> 2 * (i & 3) & 3)];
    return result.integers;
}

static inline __m512i emulated_shuffle_epi32(__m512i a, int order) {
    return emulated_mask_shuffle_epi32(a, (__mmask16)-1, a, order);
}

static inline __m512i emulated_cvtepu8_epi32(__m128i a) {
    union emulated result;
    result.integer_halves[0] = _mm256_cvtepu8_epi32(a);
    result.integer_halves[1] = _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(a, a));
    return result.integers;
}

static inline __m128i emulated_cvtepi32_epi8(__m512i a) {
    uint8_t bytes[EMULATED_LANES];
    emulated_mask_cvtepi32_storeu_epi8(bytes, 0xffff, a);
    return _mm_loadu_si128((const __m128i *)(const void *)bytes);
}

static inline __m512i emulated_cvtps_epi32(__m512 a) {
    union emulated source = {.floats = a}, result;
    for (int half = 0; half < 2; half++) result.integer_halves[half] = _mm256_cvtps_epi32(source.float_halves[half]);
    return result.integers;
}

static inline __m512i emulated_cvtepu32_epi64(__m256i a) {
    union emulated result;
    result.integer_halves[0] = _mm256_cvtepu32_epi64(_mm256_castsi256_si128(a));
    result.integer_halves[1] = _mm256_cvtepu32_epi64(_mm256_extracti128_si256(a, 1));
    return result.integers;
}

/* ---- comparisons */

static inline __mmask16 emulated_cmpeq_epu32_mask(__m512i a, __m512i b) {
    union emulated left = {.integers = a}, right = {.integers = b};
    unsigned mask = 0;
    for (int i = 0; i < EMULATED_LANES; i++) mask |= (unsigned)(left.u[i] == right.u[i]) << i;
    return (__mmask16)mask;
}

static inline __mmask16 emulated_cmple_epu32_mask(__m512i a, __m512i b) {
    union emulated left = {.integers = a}, right = {.integers = b};
    unsigned mask = 0;
    for (int i = 0; i < EMULATED_LANES; i++) mask |= (unsigned)(left.u[i] <= right.u[i]) << i;
    return (__mmask16)mask;
}

/* No instruction: the order of GCC's own sequence, which decides what becomes of NaN. */
static inline float emulated_reduce_max_ps(__m512 a) {
    union emulated source = {.floats = a};
    __m256 b = _mm256_max_ps(source.float_halves[1], source.float_halves[0]);
    __m128 c = _mm_max_ps(_mm256_extractf128_ps(b, 1), _mm256_castps256_ps128(b));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

/* ---- arithmetic */

static inline double emulated_power_of_two(int exponent) {
    const uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

/* a * 2^floor(n). In double precision the product is exact, so that the result is rounded once, and beyond 2^+-512 every finite
 * float has overflowed or underflowed. SIMDe's own overflows where only the power does. */
static inline __m512 emulated_scalef_ps(__m512 a, __m512 n) {
    union emulated source = {.floats = a}, exponent = {.floats = n}, result;
    for (int i = 0; i < EMULATED_LANES; i++) {
        const double factor = source.f[i], power = floor((double)exponent.f[i]);
        if (isnan(power))
            result.f[i] = isnan(factor) ? (float)factor : (float)power;
        else if (isinf(power) && isnan(factor))
            result.f[i] = power > 0 ? INFINITY : 0.0f;
        else if (isinf(power))
            result.f[i] = (float)(factor * (power > 0 ? HUGE_VAL : 0.0));
        else
            result.f[i] = (float)(factor * emulated_power_of_two(power > 512 ? 512 : power < -512 ? -512 : (int)power));
    }
    return result.floats;
}

/* 1 / a within 2^-14 of it, as coarse as the instruction may be: the quotient with 13 bits behind the point, rounded. Zero, infinity, NaN
 * and powers of two are exact. */
static inline __m512 emulated_rcp14_ps(__m512 a) {
    union emulated source = {.floats = a}, result;
    for (int i = 0; i < EMULATED_LANES; i++) {
        enum { DROPPED_BITS = 52 - 13 };
        double quotient = 1.0 / (double)source.f[i];
        uint64_t bits;
        memcpy(&bits, &quotient, sizeof bits);
        bits = (bits + (UINT64_C(1) << (DROPPED_BITS - 1))) >> DROPPED_BITS << DROPPED_BITS;
        if (isfinite(quotient)) memcpy(&quotient, &bits, sizeof bits);
        result.f[i] = (float)quotient;
    }
    return result.floats;
}

/* ---- under the names that the vocabulary uses */

#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_ps emulated_maskz_loadu_ps
#undef _mm512_mask_storeu_ps
#define _mm512_mask_storeu_ps emulated_mask_storeu_ps
#undef _mm512_stream_ps
#define _mm512_stream_ps emulated_stream_ps
#undef _mm_maskz_loadu_epi8
#define _mm_maskz_loadu_epi8 emulated_maskz_loadu_epi8
#undef _mm512_mask_cvtepi32_storeu_epi8
#define _mm512_mask_cvtepi32_storeu_epi8 emulated_mask_cvtepi32_storeu_epi8
#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps emulated_extractf32x8_ps
#undef _mm512_mask_shuffle_epi32
#define _mm512_mask_shuffle_epi32 emulated_mask_shuffle_epi32
#undef _mm512_shuffle_f32x4
#define _mm512_shuffle_f32x4 simde_mm512_shuffle_f32x4
#undef _mm512_shuffle_epi32
#define _mm512_shuffle_epi32 emulated_shuffle_epi32
#undef _mm512_cvtepu8_epi32
#define _mm512_cvtepu8_epi32 emulated_cvtepu8_epi32
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8 emulated_cvtepi32_epi8
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
#undef _mm512_cvtepu32_epi64
#define _mm512_cvtepu32_epi64 emulated_cvtepu32_epi64
#undef _mm512_cmpeq_epu32_mask
#define _mm512_cmpeq_epu32_mask emulated_cmpeq_epu32_mask
#undef _mm512_cmple_epu32_mask
#define _mm512_cmple_epu32_mask emulated_cmple_epu32_mask
#undef _mm512_reduce_max_ps
#define _mm512_reduce_max_ps emulated_reduce_max_ps
#undef _mm512_scalef_ps
#define _mm512_scalef_ps emulated_scalef_ps
#undef _mm512_rcp14_ps
#define _mm512_rcp14_ps emulated_rcp14_ps

#endif
