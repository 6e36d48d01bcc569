/* The SIMD vocabulary: the only place where intrinsics live. Kernels are written once against it and
 * compiled once per ISA; the build defines FNN_ISA_<NAME>_BUILD for the one wanted.
 *
 * Types: vec (FNN_LANES floats), ivec (FNN_LANES uint32), mask (one truth value a lane). Constants: FNN_LANES, and
 * the register tile of the matrix product, FNN_GEMM_ROWS rows of FNN_GEMM_VECTORS vectors.
 *
 * Pointers need the alignment of their element type, no more (vec_stream: of a whole vector). Nothing touches memory
 * past the lanes asked for; the partial forms take n in [0, FNN_LANES], read the missing lanes as zero and leave them
 * unwritten. Arithmetic is IEEE single precision; vec_fma rounds once but on the scalar ISA, where it rounds
 * twice. vec_max and vec_min return their second argument if either is NaN, on every ISA. vec_look_up, where an ISA
 * has it (FNN_HAS_LOOK_UP), gives each lane the entry of a table of eight that the lowest three bits of its index name.
 *
 * Idea: the XNNPACK / Highway families of portable vectors, cut to what two kernels or more need.
 */
#ifndef FASTNN_SIMD_H
#define FASTNN_SIMD_H

#include <stddef.h>
#include <stdint.h>

/* For functions of the vocabulary, which are part of the loop they stand in whatever the build optimises for, and for functions whose
 * constant arguments (a count of vectors, an operation) make them different loops. */
#define FNN_INLINE static inline __attribute__((always_inline))

enum { FNN_LINE = 16 }; /* floats of a cache line */

#if defined(FNN_ISA_AVX512_BUILD)
#include "avx512.h"
#elif defined(FNN_ISA_AVX2_BUILD)
#include "avx2.h"
#elif defined(FNN_ISA_NEON_BUILD)
#include "neon.h"
#elif defined(FNN_ISA_SCALAR_BUILD)
#include "scalar.h"
#else
#error "define FNN_ISA_SCALAR_BUILD, FNN_ISA_NEON_BUILD, FNN_ISA_AVX2_BUILD or FNN_ISA_AVX512_BUILD"
#endif
#include "common.h"

#define FNN_GEMM_COLUMNS (FNN_GEMM_VECTORS * FNN_LANES)

#endif
