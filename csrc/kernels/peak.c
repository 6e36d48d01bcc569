/* What the machine can do at most: the yardstick of `fastnn bench`. */
#include "kernel.h"

enum { PEAK_CHAINS = 12 }; /* latency 4-5 cycles times two units, and some */

/* Independent chains of fused multiply-adds in registers. Each thread does iterations * 12 * lanes of them (two
 * operations each) and leaves a number in result[rank], so that nothing is optimised away. */
void FNN_FUNCTION(fma_peak)(const struct fnn_fma_peak_args *args, const struct fnn_team *team) {
    vec accumulator[PEAK_CHAINS];
    const vec factor = vec_set1(0.999f), term = vec_set1(0.001f);
    for (int i = 0; i < PEAK_CHAINS; ++i) accumulator[i] = vec_set1((float)i);
    for (ptrdiff_t n = 0; n < args->iterations; ++n) {
#pragma GCC unroll 12
        for (int i = 0; i < PEAK_CHAINS; ++i) accumulator[i] = vec_fma(accumulator[i], factor, term);
    }
    float sum = 0;
    for (int i = 0; i < PEAK_CHAINS; ++i) sum += vec_sum(accumulator[i]);
    args->result[team->rank] = sum;
}
