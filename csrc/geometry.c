/* Sizes of windows and tensors, checked for overflow before any pointer is formed from them. */
#include "fastnn.h"

ptrdiff_t fnn_checked_product(ptrdiff_t a, ptrdiff_t b) {
    ptrdiff_t product;
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product)) return FNN_OVERFLOW;
    return product;
}

/* floor or ceil of a/b for b > 0 and any a */
static ptrdiff_t floor_div(ptrdiff_t a, ptrdiff_t b) { return a / b - (a % b < 0); }
static ptrdiff_t ceil_div(ptrdiff_t a, ptrdiff_t b) { return a / b + (a % b > 0); }

ptrdiff_t fnn_window_positions(ptrdiff_t size, ptrdiff_t kernel, ptrdiff_t stride, ptrdiff_t dilation,
                               ptrdiff_t pad_before, ptrdiff_t pad_after, bool ceil_mode) {
    ptrdiff_t span, padded, slack;
    if (__builtin_mul_overflow(kernel - 1, dilation, &span)) return FNN_OVERFLOW;
    if (__builtin_add_overflow(span, 1, &span)) return FNN_OVERFLOW;
    if (__builtin_add_overflow(size, pad_before, &padded)) return FNN_OVERFLOW;
    if (__builtin_add_overflow(padded, pad_after, &padded)) return FNN_OVERFLOW;
    if (__builtin_sub_overflow(padded, span, &slack)) return FNN_OVERFLOW;
    if (!ceil_mode) return floor_div(slack, stride) + 1;
    ptrdiff_t positions = ceil_div(slack, stride) + 1;
    if (positions > 1 && (positions - 1) * stride >= size + pad_before) --positions;
    return positions;
}
