/* What monitors look at while a model trains.
 *
 * fired_units: which elements of one sample of y (rows, units) were above 0 in any row so far.
 *     fired (ceil(units / 64)) words of bits, unit u being bit u & 63 of word u >> 6; bits are set, never cleared; those past
 *     the last unit stay as they are. A word whose units have all fired costs no look at y, and rows are read only until the
 *     last of its 64 units fired: few rows, unless units are dead. Exact. Parallel over words.
 * tensor_statistics: of each tensor of a list its norm (root of the sum of squares), its largest magnitude and how many of
 *     its elements are not finite: statistics (segment_count, 3). Norm and magnitude are NaN where an element is NaN.
 *     segments: for each tensor two slots: tensor (floats), count. workspace: 3 doubles a block of 4096 elements.
 *     Error of a norm: (4096 / (4 * lanes) + 8) eps; the other two are exact, but for a count above 2^24. Parallel over blocks,
 *     combined in order. */
#include "segments.h"

enum { WORD = 64, SLOTS = 2, FIGURES = 3 };

/* The bits of the `count` values at x that are above 0. */
FNN_INLINE uint64_t fired_bits(const float *x, ptrdiff_t count) {
    uint64_t bits = 0;
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES)
        bits |= (uint64_t)mask_bits(vec_less(vec_zero(), load_lanes(x + i, lanes_left(count - i)))) << i;
    return bits;
}

void FNN_FUNCTION(fired_units)(const struct fnn_fired_units_args *args, const struct fnn_team *team) {
    struct fnn_range range = fnn_share_blocks(fnn_ceil_div(args->units, WORD), 8, team);
    for (ptrdiff_t word = range.begin; word < range.end; word++) {
        ptrdiff_t first = word * WORD, count = fnn_min(WORD, args->units - first);
        uint64_t all = count == WORD ? ~(uint64_t)0 : ((uint64_t)1 << count) - 1, fired = (uint64_t)args->fired[word];
        for (ptrdiff_t row = 0; row < args->rows && (fired & all) != all; row++)
            fired |= fired_bits(args->y + row * args->units + first, count);
        args->fired[word] = (int64_t)fired;
    }
}

static double count_not_finite(const float *x, ptrdiff_t begin, ptrdiff_t end) {
    const vec one = vec_set1(1.0f);
    vec counts = vec_zero(); /* exact: at most 4096 */
    for (ptrdiff_t i = begin; i < end; i += FNN_LANES) {
        vec value = load_lanes(x + i, lanes_left(end - i));
        mask not_finite = vec_is_nan(vec_sub(value, value)); /* infinities and NaN have no difference */
        counts = vec_add(counts, vec_select(not_finite, one, vec_zero()));
    }
    return vec_sum(counts);
}

static void statistics_of_block(const struct segment_block *block, void *context) {
    double *figures = (double *)context + FIGURES * block->number;
    const float *x = segment_input(block, 0);
    figures[0] = sum_of_squares(x, block->begin, block->end);
    figures[1] = largest_magnitude(x, block->begin, block->end);
    figures[2] = count_not_finite(x, block->begin, block->end);
}

void FNN_FUNCTION(tensor_statistics)(const struct fnn_tensor_statistics_args *args, const struct fnn_team *team) {
    for_blocks(args->segments, args->segment_count, SLOTS, statistics_of_block, args->workspace, team);
    fnn_barrier(team);
    if (team->rank != 0) return;
    const double *figures = args->workspace;
    for (ptrdiff_t s = 0; s < args->segment_count; s++) {
        double squares = 0, not_finite = 0;
        float largest = 0.0f;
        ptrdiff_t blocks = segment_blocks(args->segments[s * SLOTS + 1].size);
        for (ptrdiff_t b = 0; b < blocks; b++, figures += FIGURES) {
            squares += figures[0];
            largest = largest_of(largest, (float)figures[1]);
            not_finite += figures[2];
        }
        args->statistics[FIGURES * s] = (float)__builtin_sqrt(squares);
        args->statistics[FIGURES * s + 1] = largest;
        args->statistics[FIGURES * s + 2] = (float)not_finite;
    }
}
