/* Softmax cross-entropy with class indices, forward and backward.
 *
 * For row i with label t, class weights w (1 where absent), smoothing a, C classes, lse_i = log sum_c exp(x[i,c]):
 *
 *     loss_i = (1 - a) * w[t] * (lse_i - x[i,t]) + a / C * sum_c w[c] * (lse_i - x[i,c])
 *     mean: sum loss_i / sum w[t_i]        sum: sum loss_i        none: loss_i
 *     dx[i,c] = g_i * (p[i,c] * q_i - a / C * w[c] - (c == t) * (1 - a) * w[t]),  p[i,c] = exp(x[i,c] - lse_i)
 *     q_i = (1 - a) * w[t] + a / C * sum_c w[c];    g_i = dloss / sum w[t_i], dloss, or dloss[i]
 *
 * Rows whose label is ignore_index count nowhere: loss and gradient 0. (So do labels outside [0, C), which the caller
 * has refused.) logits x, dlogits (rows, classes); labels, log_sum_exp (rows); class_weight (C); loss, dloss (1), or (rows)
 * for none; total_weight (1): sum w[t_i]. reduction: 0 none, 1 mean, 2 sum. dlogits may be logits.
 * Error of a loss: (C / lanes + 12) eps * (max |x[i,:]| + log C) * q_i, of the total in addition 1 rounding (it is summed in
 * double); of a gradient: (C / lanes + 12 + 2 max |x[i,:]|) eps * q_i * |g_i|, eps = 2^-24; without smoothing
 * (2 C / lanes + 20 + 2 max_c |x[i,c] - lse_i|) eps * |dx[i,c]|: p[i,t] - 1 is taken as minus the sum of the others, divided by the
 * sum of all. The usual difference keeps no digit once a net is sure of itself, which is where training ends.
 * workspace: 2 * ceil(rows / 64) doubles. Parallel over blocks of 64 rows, combined in order. */
#include "class_loss.h"
#include "softmax.h"

enum { BLOCK = 64 };

/* sum_c x[c] */
static float row_sum(const float *x, ptrdiff_t classes) {
    vec sum = vec_zero();
    for (ptrdiff_t c = 0; c < classes; c += FNN_LANES) sum = vec_add(sum, load_lanes(x + c, lanes_left(classes - c)));
    return vec_sum(sum);
}

/* sum_c w[c] */
static float weight_sum(const float *class_weight, ptrdiff_t classes) {
    return class_weight ? row_sum(class_weight, classes) : (float)classes;
}

/* sum_c w[c] * (lse - x[c]) */
static float smooth_loss(const float *x, const float *class_weight, float log_sum_exp, ptrdiff_t classes) {
    vec sum = vec_zero();
    for (ptrdiff_t c = 0; c < classes; c += FNN_LANES) {
        ptrdiff_t n = lanes_left(classes - c);
        vec w = class_weight ? load_lanes(class_weight + c, n) : vec_set1(1.0f);
        vec term = vec_mul(w, vec_sub(vec_set1(log_sum_exp), load_lanes(x + c, n)));
        sum = vec_add(sum, n == FNN_LANES ? term : vec_select(mask_first(n), term, vec_zero()));
    }
    return vec_sum(sum);
}

static float row_loss(const struct fnn_cross_entropy_forward_args *args, ptrdiff_t row) {
    ptrdiff_t classes = args->classes;
    const float *x = args->logits + row * classes, *ahead = row + 1 < args->rows ? x + classes : x;
    int64_t label = args->labels[row];
    float maximum = row_maximum(x, classes), smoothing = (float)args->label_smoothing;
    float log_sum = scalar_log(row_exponentials(x, NULL, classes, maximum, ahead)), log_sum_exp = maximum + log_sum;
    args->log_sum_exp[row] = log_sum_exp;
    if (!is_counted(label, classes, args->ignore_index)) return 0.0f;
    float loss = (1.0f - smoothing) * class_weight_of(args->class_weight, label) * (log_sum + (maximum - x[label]));
    if (smoothing > 0) loss += smoothing / (float)classes * smooth_loss(x, args->class_weight, log_sum_exp, classes);
    return loss;
}

void FNN_FUNCTION(cross_entropy_forward)(const struct fnn_cross_entropy_forward_args *args,
                                         const struct fnn_team *team) {
    ptrdiff_t blocks = fnn_ceil_div(args->rows, BLOCK);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(blocks, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t b = range.begin; b < range.end; b++) {
            double loss = 0, weight = 0;
            for (ptrdiff_t row = b * BLOCK; row < fnn_min((b + 1) * BLOCK, args->rows); row++) {
                float one = row_loss(args, row);
                int64_t label = args->labels[row];
                if (args->reduction == REDUCTION_NONE) args->loss[row] = one;
                loss += one;
                if (is_counted(label, args->classes, args->ignore_index))
                    weight += class_weight_of(args->class_weight, label);
            }
            args->workspace[2 * b] = loss;
            args->workspace[2 * b + 1] = weight;
        }
    fnn_barrier(team);
    if (team->rank == 0) combine_blocks(args->workspace, blocks, args->reduction, args->loss, args->total_weight);
}

static void row_gradient(const struct fnn_cross_entropy_backward_args *args, ptrdiff_t row, float gradient,
                         float smooth_weight) {
    ptrdiff_t classes = args->classes;
    const float *x = args->logits + row * classes;
    float *dx = args->dlogits + row * classes, smoothing = (float)args->label_smoothing;
    int64_t label = args->labels[row];
    if (!is_counted(label, classes, args->ignore_index)) {
        clear_row(dx, classes);
        return;
    }
    float hard = (1.0f - smoothing) * class_weight_of(args->class_weight, label), soft = smoothing / (float)classes;
    const vec log_sum_exp = vec_set1(args->log_sum_exp[row]), g = vec_set1(gradient);
    for (ptrdiff_t c = 0; c < classes; c += FNN_LANES) {
        ptrdiff_t n = lanes_left(classes - c);
        store_lanes(dx + c, vec_exp_below_88(vec_sub(load_lanes(x + c, n), log_sum_exp)), n);
    }
    float at_label = dx[label];
    dx[label] = 0.0f;
    float others = row_sum(dx, classes), sum = others + at_label;
    const vec all = vec_set1((hard + smooth_weight) / sum);
    for (ptrdiff_t c = 0; c < classes; c += FNN_LANES) {
        ptrdiff_t n = lanes_left(classes - c);
        vec w = args->class_weight ? load_lanes(args->class_weight + c, n) : vec_set1(1.0f);
        vec target = vec_mul(vec_set1(soft), w);
        store_lanes(dx + c, vec_mul(g, vec_sub(vec_mul(load_lanes(dx + c, n), all), target)), n);
    }
    float smooth = at_label / sum * smooth_weight - soft * class_weight_of(args->class_weight, label);
    dx[label] = gradient * (smooth - hard * (others / sum));
}

void FNN_FUNCTION(cross_entropy_backward)(const struct fnn_cross_entropy_backward_args *args,
                                          const struct fnn_team *team) {
    float smoothing = (float)args->label_smoothing;
    float smooth_weight = smoothing / (float)args->classes * weight_sum(args->class_weight, args->classes);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->rows, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t row = range.begin; row < range.end; row++) {
            float gradient = row_dloss(args->dloss, args->total_weight, args->reduction, row);
            row_gradient(args, row, gradient, smooth_weight);
        }
}
