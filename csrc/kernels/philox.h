/* Philox4x32-10, FNN_LANES counters at a time: the random stream of fastnn.
 *
 * Word i of a layer's stream at a step is output word i & 3 for the counter (low32(i >> 2), high32(i >> 2), low32(step),
 * low32(layer)) and the key (low32(seed), high32(seed)): a function of (seed, layer, step, i) and nothing else, the same on
 * every ISA. Exact.
 * Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. */
#ifndef FASTNN_KERNELS_PHILOX_H
#define FASTNN_KERNELS_PHILOX_H

#include "lanes.h"

enum { PHILOX_ROUNDS = 10, PHILOX_WORDS = 4 * FNN_LANES }; /* words of one call, a multiple of 4 elements a lane */

#define PHILOX_MULTIPLIER0 0xD2511F53u
#define PHILOX_MULTIPLIER1 0xCD9E8D57u
#define PHILOX_KEY_STEP0 0x9E3779B9u
#define PHILOX_KEY_STEP1 0xBB67AE85u

struct philox_stream {
    uint32_t key_low, key_high, step, layer;
    ivec keys[PHILOX_ROUNDS][2]; /* of each round; in memory, so that no round makes vectors of numbers */
};

FNN_INLINE struct philox_stream philox_stream(uint64_t seed, uint64_t layer, uint64_t step) {
    struct philox_stream stream = {.key_low = (uint32_t)seed,
                                   .key_high = (uint32_t)(seed >> 32),
                                   .step = (uint32_t)step,
                                   .layer = (uint32_t)layer};
    for (uint32_t round = 0; round < PHILOX_ROUNDS; round++) {
        stream.keys[round][0] = ivec_set1(stream.key_low + round * PHILOX_KEY_STEP0);
        stream.keys[round][1] = ivec_set1(stream.key_high + round * PHILOX_KEY_STEP1);
    }
    return stream;
}

/* The least word that keeps an element which is dropped with the given probability (below 1). */
static inline uint32_t keep_threshold(double probability) {
    double threshold = probability * 4294967296.0;
    return threshold >= 4294967295.0 ? 0xffffffffu : (uint32_t)threshold;
}

FNN_INLINE void philox_round(const ivec keys[2], ivec *c0, ivec *c1, ivec *c2, ivec *c3) {
    ivec high0 = ivec_set1(0), high1 = ivec_set1(0);
    ivec low0 = ivec_mul_wide(*c0, ivec_set1(PHILOX_MULTIPLIER0), &high0);
    ivec low1 = ivec_mul_wide(*c2, ivec_set1(PHILOX_MULTIPLIER1), &high1);
    *c0 = ivec_xor(ivec_xor(high1, *c1), keys[0]);
    *c2 = ivec_xor(ivec_xor(high0, *c3), keys[1]);
    *c1 = low1;
    *c3 = low0;
}

/* words[w] lane l = output word w for counter first + l. Half of what the first two rounds compute is the same in every
 * lane, unless the low word of the counter overflows among them. */
FNN_INLINE void philox_counters(const struct philox_stream *stream, uint64_t first, ivec words[4]) {
    ivec base = ivec_set1((uint32_t)first), c0 = ivec_add(base, ivec_iota()), c1, c2, c3;
    if ((uint32_t)first <= 0xffffffffu - (FNN_LANES - 1)) {
        uint64_t product1 = (uint64_t)PHILOX_MULTIPLIER1 * stream->step; /* of the first round */
        uint32_t same0 = (uint32_t)(product1 >> 32) ^ (uint32_t)(first >> 32) ^ stream->key_low;
        uint64_t product0 = (uint64_t)PHILOX_MULTIPLIER0 * same0; /* of the second */
        ivec high = ivec_set1(0), low = ivec_mul_wide(c0, ivec_set1(PHILOX_MULTIPLIER0), &high);
        c2 = ivec_xor(ivec_xor(high, ivec_set1(stream->layer)), stream->keys[0][1]);
        c1 = ivec_mul_wide(c2, ivec_set1(PHILOX_MULTIPLIER1), &high);
        c0 = ivec_xor(ivec_xor(high, ivec_set1((uint32_t)product1)), stream->keys[1][0]);
        c2 = ivec_xor(ivec_xor(low, ivec_set1((uint32_t)(product0 >> 32))), stream->keys[1][1]);
        c3 = ivec_set1((uint32_t)product0);
    } else {
        ivec carry = ivec_select(ivec_less(c0, base), ivec_set1(1), ivec_set1(0));
        c1 = ivec_add(ivec_set1((uint32_t)(first >> 32)), carry);
        c2 = ivec_set1(stream->step), c3 = ivec_set1(stream->layer);
        philox_round(stream->keys[0], &c0, &c1, &c2, &c3);
        philox_round(stream->keys[1], &c0, &c1, &c2, &c3);
    }
#pragma GCC unroll 8
    for (int round = 2; round < PHILOX_ROUNDS; round++) philox_round(stream->keys[round], &c0, &c1, &c2, &c3);
    words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

/* words[v] lane l = word `first` + v * FNN_LANES + l of the stream; first is a multiple of 4. */
FNN_INLINE void philox_words(const struct philox_stream *stream, uint64_t first, ivec words[4]) {
    ivec out[4];
    philox_counters(stream, first >> 2, out);
    vec w0 = vec_from_bits(out[0]), w1 = vec_from_bits(out[1]), w2 = vec_from_bits(out[2]), w3 = vec_from_bits(out[3]);
    vec even_low = vec_interleave_low(w0, w2), odd_low = vec_interleave_low(w1, w3);
    vec even_high = vec_interleave_high(w0, w2), odd_high = vec_interleave_high(w1, w3);
    words[0] = ivec_from_float_bits(vec_interleave_low(even_low, odd_low));
    words[1] = ivec_from_float_bits(vec_interleave_high(even_low, odd_low));
    words[2] = ivec_from_float_bits(vec_interleave_low(even_high, odd_high));
    words[3] = ivec_from_float_bits(vec_interleave_high(even_high, odd_high));
}

#endif
