/* Runs a plan: one team enters, every step runs on all of it or on rank 0 alone, barriers separate them. */
#include "fastnn.h"

#include <time.h>

struct run {
    const struct fnn_step *steps;
    ptrdiff_t count;
    double *seconds; /* null: not profiled */
};

static struct timespec now(void) {
    struct timespec time = {0};
    timespec_get(&time, TIME_UTC);
    return time;
}

/* Of the differences: as one number, the time since 1970 is rounded to a quarter of a microsecond. */
static double seconds_since(struct timespec start) {
    const struct timespec time = now();
    return (double)(time.tv_sec - start.tv_sec) + 1e-9 * (double)(time.tv_nsec - start.tv_nsec);
}

/* A serial step after a serial step needs no barrier: rank 0 runs both. */
static void run_steps(void *context, const struct fnn_team *team) {
    const struct run *run = context;
    const struct fnn_team alone = {.rank = 0, .size = 1};
    const struct fnn_team even = {.rank = team->rank, .size = team->size, .barrier = team->barrier};
    for (ptrdiff_t i = 0; i < run->count; ++i) {
        const struct fnn_step *step = &run->steps[i];
        const struct timespec start = run->seconds ? now() : (struct timespec){0};
        if (step->sharing != FNN_ALONE)
            step->run(step->args, step->sharing == FNN_EVENLY ? &even : team);
        else if (team->rank == 0)
            step->run(step->args, &alone);
        bool last = i + 1 == run->count;
        if (run->seconds || (!last && !(step->sharing == FNN_ALONE && step[1].sharing == FNN_ALONE))) fnn_barrier(team);
        if (run->seconds && team->rank == 0) run->seconds[i] = seconds_since(start);
    }
}

static int threads_needed(const struct fnn_step *steps, ptrdiff_t count, int threads) {
    for (ptrdiff_t i = 0; i < count; ++i)
        if (steps[i].sharing != FNN_ALONE) return threads;
    return 1;
}

void fnn_plan_run(const struct fnn_step *steps, ptrdiff_t count, int threads) {
    struct run run = {.steps = steps, .count = count, .seconds = NULL};
    fnn_team_run(threads_needed(steps, count, threads), run_steps, &run);
}

void fnn_plan_profile(const struct fnn_step *steps, ptrdiff_t count, int threads, double *seconds) {
    struct run run = {.steps = steps, .count = count, .seconds = seconds};
    fnn_team_run(threads_needed(steps, count, threads), run_steps, &run);
}
