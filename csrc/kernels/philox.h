/* Philox4x32-10, FNN_LANES counters at a time: the random stream of fastnn.
 *
 * Word i of a layer's stream at a step is output word i & 3 for the counter (low32(i >> 2), high32(i >> 2), low32(step),
 * low32(layer)) and the key (low32(seed), high32(seed)): a function of (seed, layer, step, i) and nothing else, the same on
 * every ISA. Exact.
 * Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. */
#ifndef FASTNN_KERNELS_PHILOX_H
#define FASTNN_KERNELS_PHILOX_H

#include "lanes.h"

/* Words that are made at a time, and words within whose aligned blocks the low word of the counter does not overflow. */
enum { PHILOX_ROUNDS = 10, PHILOX_WORDS = 4 * FNN_LANES, PHILOX_BLOCK = 1024 };

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

/* The state of FNN_LANES counters between two rounds. */
struct philox_state {
    wide c0, c1, c2, c3;
};

FNN_INLINE void philox_round(const ivec keys[2], struct philox_state *at) {
    wide high0, high1;
    wide low0 = wide_multiply(at->c0, ivec_set1(PHILOX_MULTIPLIER0), &high0);
    wide low1 = wide_multiply(at->c2, ivec_set1(PHILOX_MULTIPLIER1), &high1);
    at->c0 = wide_xor(high1, at->c1, keys[0]);
    at->c2 = wide_xor(high0, at->c3, keys[1]);
    at->c1 = low1;
    at->c3 = low0;
}

/* What the first two rounds compute of the high word of the counter and of the step, the same for all counters of a block. */
struct philox_prefix {
    ivec first2, second0, second2;
    wide second3;
};

/* For the block of words that `first` lies in. */
static inline struct philox_prefix philox_prefix(const struct philox_stream *stream, uint64_t first) {
    uint32_t counter_high = (uint32_t)(first >> 34);
    uint64_t product1 = (uint64_t)PHILOX_MULTIPLIER1 * stream->step; /* of the first round */
    uint32_t first0 = (uint32_t)(product1 >> 32) ^ counter_high ^ stream->key_low;
    uint64_t product0 = (uint64_t)PHILOX_MULTIPLIER0 * first0; /* of the second */
    return (struct philox_prefix){ivec_xor(ivec_set1(stream->layer), stream->keys[0][1]),
                                  ivec_xor(ivec_set1((uint32_t)product1), stream->keys[1][0]),
                                  ivec_xor(ivec_set1((uint32_t)(product0 >> 32)), stream->keys[1][1]),
                                  wide_from_ivec(ivec_set1((uint32_t)product0))};
}

/* Something to be done beside a chain of rounds, each of which waits for the one before: called ahead of each round from the third
 * on, with its number. */
typedef void philox_meanwhile(const void *context, int round);

FNN_INLINE void philox_idle(const void *context, int round) {
    (void)context;
    (void)round;
}

/* Output words c0 to c3 for the counters whose low words are given. */
FNN_INLINE struct philox_state philox_counters(const struct philox_stream *stream, const struct philox_prefix *prefix,
                                               ivec low_words, philox_meanwhile *meanwhile, const void *context) {
    struct philox_state at = {.c3 = prefix->second3};
    wide high, low = wide_multiply(wide_from_ivec(low_words), ivec_set1(PHILOX_MULTIPLIER0), &high);
    at.c1 = wide_multiply(wide_xor_each(high, prefix->first2), ivec_set1(PHILOX_MULTIPLIER1), &high);
    at.c0 = wide_xor_each(high, prefix->second0);
    at.c2 = wide_xor_each(low, prefix->second2);
#pragma GCC unroll 8
    for (int round = 2; round < PHILOX_ROUNDS; round++) {
        meanwhile(context, round);
        philox_round(stream->keys[round], &at);
    }
    return at;
}

/* even[v] lane l = word `first` + 2 * (v * FNN_LANES + l) of the stream, odd[v] the word after it. first is a multiple of PHILOX_WORDS
 * in the block whose prefix is given. */
FNN_INLINE void philox_pairs(const struct philox_stream *stream, const struct philox_prefix *prefix, uint64_t first,
                             ivec even[2], ivec odd[2], philox_meanwhile *meanwhile, const void *context) {
    ivec counters = ivec_add(ivec_set1((uint32_t)(first >> 2)), ivec_iota());
    struct philox_state out = philox_counters(stream, prefix, counters, meanwhile, context);
    wide_interleave(out.c0, out.c2, even);
    wide_interleave(out.c1, out.c3, odd);
}

/* words[v] lane l = word `first` + v * FNN_LANES + l of the stream, likewise. */
FNN_INLINE void philox_words(const struct philox_stream *stream, const struct philox_prefix *prefix, uint64_t first,
                             ivec words[4], philox_meanwhile *meanwhile, const void *context) {
    ivec even[2], odd[2];
    philox_pairs(stream, prefix, first, even, odd, meanwhile, context);
    for (int v = 0; v < 2; v++) {
        vec a = vec_from_bits(even[v]), b = vec_from_bits(odd[v]);
        words[2 * v] = ivec_from_float_bits(vec_interleave_low(a, b));
        words[2 * v + 1] = ivec_from_float_bits(vec_interleave_high(a, b));
    }
}

#endif
