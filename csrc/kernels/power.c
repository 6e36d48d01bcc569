/* Powers, for Lp pooling; contiguous arrays of `count` floats.
 *
 *     power_forward:   y = x^a                     power_backward:  dx = dy * a * x^(a-1)
 *
 * a = exponent, any number. A negative x has a power when a is whole, else y is NaN; 0^0 = 1. dx is 0 where x = 0 and a < 1, where the
 * slope is infinite: the root of a sum of nothing hands on nothing.
 *
 * With eps = 2^-24, relative to |y|: whole a up to 16 in size, by multiplication, (|a| + 1) eps; a = 1/2, the hardware's
 * root, eps; any other, exp(a * log|x|), (2 |a log|x|| + 8) eps. The backward pass: the error for a - 1, and 2 eps.
 * Outputs may be inputs. Parallel over blocks of BLOCK elements. */
#include "vector_math.h"

enum { BLOCK = 1024, WHOLE_MAX = 16 };

enum power_kind { POWER_WHOLE, POWER_ROOT, POWER_ANY };

struct power {
    enum power_kind kind;
    int whole;         /* |exponent|, for POWER_WHOLE */
    bool reciprocal;   /* exponent < 0, for POWER_WHOLE */
    bool is_odd, real; /* for POWER_ANY: the exponent is an odd number; it is no whole number */
    vec exponent;
};

static struct power power_of(double exponent) {
    double size = exponent < 0 ? -exponent : exponent;
    bool is_whole = size >= 0x1p53 || (double)(int64_t)size == size;
    struct power power = {.kind = POWER_ANY, .real = !is_whole, .exponent = vec_set1((float)exponent)};
    power.is_odd = is_whole && size < 0x1p53 && (int64_t)size % 2 == 1;
    if (is_whole && size <= WHOLE_MAX) {
        power.kind = POWER_WHOLE;
        power.whole = (int)size;
        power.reciprocal = exponent < 0;
    } else if (exponent == 0.5) {
        power.kind = POWER_ROOT;
    }
    return power;
}

/* By squaring: x^13 = x * x^4 * x^8. */
FNN_INLINE vec whole_power(vec x, int n) {
    vec y = vec_set1(1.0f);
    for (; n > 0; n /= 2) {
        if (n % 2) y = vec_mul(y, x);
        if (n > 1) x = vec_mul(x, x);
    }
    return y;
}

FNN_INLINE vec vec_power(const struct power *power, vec x) {
    if (power->kind == POWER_ROOT) return vec_sqrt(x);
    if (power->kind == POWER_WHOLE) {
        vec y = whole_power(x, power->whole);
        return power->reciprocal ? vec_div(vec_set1(1.0f), y) : y;
    }
    vec y = vec_exp(vec_mul(power->exponent, vec_log(vec_abs(x))));
    vec below = power->real ? vec_set1(__builtin_nanf("")) : power->is_odd ? vec_neg(y) : y;
    return vec_select(vec_less(x, vec_zero()), below, y);
}

void FNN_FUNCTION(power_forward)(const struct fnn_power_forward_args *args, const struct fnn_team *team) {
    const struct power power = power_of(args->exponent);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->count, BLOCK, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin; i < range.end; i += FNN_LANES) {
            ptrdiff_t n = lanes_left(range.end - i);
            store_lanes(args->y + i, vec_power(&power, load_lanes(args->x + i, n)), n);
        }
}

void FNN_FUNCTION(power_backward)(const struct fnn_power_backward_args *args, const struct fnn_team *team) {
    const struct power power = power_of(args->exponent - 1.0);
    const vec factor = vec_set1((float)args->exponent);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->count, BLOCK, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin; i < range.end; i += FNN_LANES) {
            ptrdiff_t n = lanes_left(range.end - i);
            vec x = load_lanes(args->x + i, n), slope = vec_mul(factor, vec_power(&power, x));
            vec dx = vec_mul(load_lanes(args->dy + i, n), slope);
            if (args->exponent < 1.0) dx = vec_select(vec_equal(x, vec_zero()), vec_zero(), dx);
            store_lanes(args->dx + i, dx, n);
        }
}
