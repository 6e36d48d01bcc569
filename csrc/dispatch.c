/* Which ISAs were compiled in, and which of them this CPU and operating system run. */
#include "fastnn.h"

#if defined(FNN_HAVE_AVX2) || defined(FNN_HAVE_AVX512)
#include <cpuid.h>

struct x86_features {
    bool avx2, avx512;
};

/* XCR0: the register state that the operating system saves. */
static uint64_t enabled_state(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* We ask CPUID ourselves: __builtin_cpu_supports is a stub that answers no under some toolchains. */
static struct x86_features detect(void) {
    enum { FMA = 1 << 12, OSXSAVE = 1 << 27, AVX = 1 << 28 };                    /* leaf 1, ecx */
    enum { AVX2 = 1 << 5, AVX512F = 1 << 16, AVX512DQ = 1 << 17, AVX512BW = 1 << 30 }; /* leaf 7, ebx */
    const uint32_t avx512vl = UINT32_C(1) << 31;
    const uint64_t ymm_state = 0x6, zmm_state = 0xe6;
    struct x86_features none = {false, false};
    uint32_t eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return none;
    const uint32_t first = FMA | OSXSAVE | AVX;
    if ((ecx & first) != first) return none;
    uint64_t state = enabled_state();
    if ((state & ymm_state) != ymm_state) return none;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return none;
    bool avx2 = ebx & AVX2;
    const uint32_t wide = AVX512F | AVX512DQ | AVX512BW | avx512vl;
    bool avx512 = avx2 && (ebx & wide) == wide && (state & zmm_state) == zmm_state;
#if defined(FNN_EMULATE_AVX512) /* tests only: compiled to AVX2, see tests/native/avx512_emulated.h */
    avx512 = avx2;
#endif
    return (struct x86_features){avx2, avx512};
}
#endif

extern const struct fnn_isa_info fnn_isa_info__scalar;
#if defined(FNN_HAVE_NEON)
extern const struct fnn_isa_info fnn_isa_info__neon;
#endif
#if defined(FNN_HAVE_AVX2)
extern const struct fnn_isa_info fnn_isa_info__avx2;
#endif
#if defined(FNN_HAVE_AVX512)
extern const struct fnn_isa_info fnn_isa_info__avx512;
#endif

const struct fnn_isa_info *fnn_isa(enum fnn_isa isa) {
    switch (isa) {
    case FNN_ISA_SCALAR: return &fnn_isa_info__scalar;
#if defined(FNN_HAVE_NEON)
    case FNN_ISA_NEON: return &fnn_isa_info__neon; /* part of every aarch64 */
#endif
#if defined(FNN_HAVE_AVX2)
    case FNN_ISA_AVX2: return detect().avx2 ? &fnn_isa_info__avx2 : NULL;
#endif
#if defined(FNN_HAVE_AVX512)
    case FNN_ISA_AVX512: return detect().avx512 ? &fnn_isa_info__avx512 : NULL;
#endif
    default: return NULL;
    }
}
