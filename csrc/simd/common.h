/* The part of the vocabulary that is the same text for every ISA: lane-wise operators on GCC/Clang vector types,
 * and what is made of them. Included by simd.h after the ISA's own header. */
#ifndef FASTNN_SIMD_COMMON_H
#define FASTNN_SIMD_COMMON_H

/* int32 lanes, for the signed operations. */
typedef int32_t fnn_signed_lanes __attribute__((vector_size(FNN_LANES * 4)));

/* The same number, of which the compiler is to know nothing. In a loop, what is made of it is made where it is used: multiples by 2, 4 and
 * 8 in the address of a load, instead of beforehand, in a register each. */
FNN_INLINE ptrdiff_t fnn_hidden(ptrdiff_t a) {
    __asm__("" : "+r"(a));
    return a;
}

FNN_INLINE vec vec_add(vec a, vec b) { return a + b; }
FNN_INLINE vec vec_sub(vec a, vec b) { return a - b; }
FNN_INLINE vec vec_mul(vec a, vec b) { return a * b; }
FNN_INLINE vec vec_div(vec a, vec b) { return a / b; }
FNN_INLINE vec vec_zero(void) { return vec_set1(0.0f); }

/* Bit casts. */
FNN_INLINE ivec ivec_from_float_bits(vec a) { return (ivec)a; }
FNN_INLINE vec vec_from_bits(ivec a) { return (vec)a; }

FNN_INLINE ivec ivec_add(ivec a, ivec b) { return a + b; }
FNN_INLINE ivec ivec_sub(ivec a, ivec b) { return a - b; }
FNN_INLINE ivec ivec_xor(ivec a, ivec b) { return a ^ b; }
FNN_INLINE ivec ivec_and(ivec a, ivec b) { return a & b; }
FNN_INLINE ivec ivec_or(ivec a, ivec b) { return a | b; }
/* Shifts by 0 <= n < 32, the same for every lane. */
FNN_INLINE ivec ivec_shift_left(ivec a, int n) { return a << n; }
FNN_INLINE ivec ivec_shift_right(ivec a, int n) { return a >> n; }
FNN_INLINE ivec ivec_shift_right_arithmetic(ivec a, int n) { return (ivec)((fnn_signed_lanes)a >> n); }
/* Upper and lower 16 bits exchanged. */
#if !defined(FNN_HAS_SWAP_HALVES)
FNN_INLINE ivec ivec_swap_halves(ivec a) { return a << 16 | a >> 16; }
#endif

/* wide: FNN_LANES uint32 in the form in which the ISA multiplies them to 64 bits, for chains of products. A part whose lanes
 * are 64-bit places has the number in the lower half and anything in the upper one. wide_multiply returns the lower words of
 * the products, *high receives the upper ones; wide_xor is high ^ low ^ each; wide_interleave gives a0 b0 a1 b1 ...
 * Arguments of type ivec are the same in all lanes. */
#if defined(FNN_HAS_WIDE)
enum { FNN_WIDE_PARTS = 2 };
#else
enum { FNN_WIDE_PARTS = 1 };
typedef struct {
    ivec part[FNN_WIDE_PARTS];
} wide;
FNN_INLINE wide wide_from_ivec(ivec a) { return (wide){{a}}; }
FNN_INLINE wide wide_multiply(wide a, ivec b, wide *high) {
    return (wide){{ivec_mul_wide(a.part[0], b, &high->part[0])}};
}
FNN_INLINE wide wide_xor(wide high, wide low, ivec each) { return (wide){{high.part[0] ^ (low.part[0] ^ each)}}; }
FNN_INLINE void wide_interleave(wide a, wide b, ivec out[2]) {
    vec first = vec_from_bits(a.part[0]), second = vec_from_bits(b.part[0]);
    out[0] = ivec_from_float_bits(vec_interleave_low(first, second));
    out[1] = ivec_from_float_bits(vec_interleave_high(first, second));
}
#endif
FNN_INLINE wide wide_xor_each(wide a, ivec b) {
    for (int i = 0; i < FNN_WIDE_PARTS; i++) a.part[i] ^= b;
    return a;
}

/* a where the mask is set, else 0. */
#if !defined(FNN_HAS_KEEP)
FNN_INLINE vec vec_keep(mask m, vec a) { return vec_select(m, a, vec_zero()); }
#endif

/* Signed int32 lanes to float, rounded to nearest. */
FNN_INLINE vec vec_from_int(ivec a) { return __builtin_convertvector((fnn_signed_lanes)a, vec); }

/* a * 2^n for whole n in [-250, 250], in two factors, so that only the result overflows or underflows. */
#if !defined(FNN_HAS_SCALE)
FNN_INLINE vec vec_scale(vec a, vec n) {
    ivec power = ivec_from_vec(n), half = ivec_shift_right_arithmetic(power, 1), rest = power - half;
    vec first = vec_from_bits(ivec_shift_left(half + ivec_set1(127), 23));
    return vec_mul(vec_mul(a, first), vec_from_bits(ivec_shift_left(rest + ivec_set1(127), 23)));
}
#endif

/* 1 / a and a / b within 0.57 units in the last place, faster where the ISA's own division is slow. For finite operands, the
 * divisor from 2^-126 to 2^125 (a larger one may give 0), the dividend from 2^-100 up; NaN gives NaN. */
#if !defined(FNN_HAS_RECIPROCAL)
FNN_INLINE vec vec_reciprocal(vec a) { return vec_div(vec_set1(1.0f), a); }
FNN_INLINE vec vec_quotient(vec a, vec b) { return vec_div(a, b); }
#endif

FNN_INLINE vec vec_abs(vec a) { return vec_from_bits((ivec)a & ivec_set1(0x7fffffffu)); }
FNN_INLINE vec vec_neg(vec a) { return vec_from_bits((ivec)a ^ ivec_set1(0x80000000u)); }

/* a * a - square, where square is a * a rounded: what the rounding took off, exact but for its own last place. */
FNN_INLINE vec vec_square_error(vec a, vec square) {
#if defined(FNN_ISA_SCALAR_BUILD)
    vec high = vec_from_bits((ivec)a & ivec_set1(0xfffff000u)), low = a - high; /* halves whose products are exact */
    return (((high * high - square) + (high * low + high * low)) + low * low);
#else
    return vec_fma(a, a, vec_neg(square));
#endif
}

/* rows[i][j] <-> rows[j][i]. Each round of interleaving rotates the bits of the address (i, j) by one place, so that
 * log2(FNN_LANES) rounds swap i and j. */
#if !defined(FNN_HAS_TRANSPOSE)
FNN_INLINE void vec_transpose(vec rows[FNN_LANES]) {
    for (int round = 1; round < FNN_LANES; round *= 2) {
        vec next[FNN_LANES];
#pragma GCC unroll 16
        for (int i = 0; i < FNN_LANES / 2; i++) {
            next[2 * i] = vec_interleave_low(rows[i], rows[i + FNN_LANES / 2]);
            next[2 * i + 1] = vec_interleave_high(rows[i], rows[i + FNN_LANES / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < FNN_LANES; i++) rows[i] = next[i];
    }
}
#endif

#endif
