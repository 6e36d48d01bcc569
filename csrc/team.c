/* The only place where threads start. One file, three builds: OpenMP (FNN_TEAM_OPENMP), pthreads that are
 * created and joined at every call (FNN_TEAM_PTHREAD, for ThreadSanitizer, which does not understand
 * OpenMP runtimes), and serial (neither). */
#include "fastnn.h"

#if defined(FNN_TEAM_OPENMP)
#include <omp.h>
#elif defined(FNN_TEAM_PTHREAD)
#include <pthread.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#include <sched.h>
#endif

/* ---- denormals --------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
#include <xmmintrin.h>
typedef unsigned int float_mode;
enum { FLUSH_DENORMALS = 0x8040 }; /* FTZ and DAZ */
static float_mode flush_denormals(void) {
    float_mode saved = _mm_getcsr();
    _mm_setcsr(saved | FLUSH_DENORMALS);
    return saved;
}
/* Restores the mode bits; exception flags raised meanwhile are dropped, as if the call had not computed. */
static void restore_float_mode(float_mode saved) { _mm_setcsr(saved); }
#elif defined(__aarch64__)
typedef uint64_t float_mode;
#define FLUSH_DENORMALS (UINT64_C(1) << 24) /* FPCR.FZ */
static float_mode flush_denormals(void) {
    float_mode saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    __asm__ volatile("msr fpcr, %0" : : "r"(saved | FLUSH_DENORMALS));
    return saved;
}
static void restore_float_mode(float_mode saved) { __asm__ volatile("msr fpcr, %0" : : "r"(saved)); }
#else
typedef int float_mode;
static float_mode flush_denormals(void) { return 0; }
static void restore_float_mode(float_mode saved) { (void)saved; }
#endif

/* ---- barrier ------------------------------------------------------------------------------------------ */

struct fnn_barrier {
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_int generation;
};

static void pause_briefly(int spins) {
    enum { SPINS_BEFORE_YIELD = 512 }; /* some ten microseconds: longer than most steps are uneven */
    if (spins < SPINS_BEFORE_YIELD) {
#if defined(__x86_64__)
        _mm_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    } else {
#if !defined(_WIN32)
        sched_yield();
#endif
    }
}

void fnn_barrier(const struct fnn_team *team) {
    if (team->size == 1) return;
    struct fnn_barrier *barrier = team->barrier;
    int generation = atomic_load_explicit(&barrier->generation, memory_order_relaxed);
    int before = atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel);
    if (before == team->size - 1) {
        atomic_store_explicit(&barrier->arrived, 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&barrier->generation, 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&barrier->generation, memory_order_acquire) == generation; ++spins)
        pause_briefly(spins);
}

/* ---- team ---------------------------------------------------------------------------------------------- */

/* Set in a forked child: the OpenMP pool of the parent does not exist there, and using it would hang. */
static atomic_bool in_forked_child;

static void run_alone(fnn_team_body *body, void *context) {
    struct fnn_team team = {.rank = 0, .size = 1, .barrier = NULL};
    float_mode saved = flush_denormals();
    body(context, &team);
    restore_float_mode(saved);
}

#if defined(FNN_TEAM_OPENMP)

const char *fnn_team_backend(void) { return "openmp"; }

static void run_together(int size, fnn_team_body *body, void *context) {
    struct fnn_barrier barrier = {.arrived = 0, .generation = 0};
#pragma omp parallel num_threads(size)
    {
        struct fnn_team team = {.rank = omp_get_thread_num(), .size = omp_get_num_threads(), .barrier = &barrier};
        float_mode saved = flush_denormals();
        body(context, &team);
        restore_float_mode(saved);
    }
}

#elif defined(FNN_TEAM_PTHREAD)

const char *fnn_team_backend(void) { return "pthread"; }

enum { PTHREAD_TEAM_LIMIT = 64 };

struct member {
    struct fnn_team team;
    const atomic_int *settled_size; /* 0 until all threads exist */
    fnn_team_body *body;
    void *context;
};

static void *run_member(void *argument) {
    struct member *member = argument;
    for (int spins = 0; !(member->team.size = atomic_load(member->settled_size)); ++spins) pause_briefly(spins);
    float_mode saved = flush_denormals();
    member->body(member->context, &member->team);
    restore_float_mode(saved);
    return NULL;
}

/* A member learns the size of its team only when all threads exist: those that cannot be created shrink it. */
static void run_together(int size, fnn_team_body *body, void *context) {
    struct fnn_barrier barrier = {.arrived = 0, .generation = 0};
    struct member members[PTHREAD_TEAM_LIMIT];
    pthread_t threads[PTHREAD_TEAM_LIMIT];
    if (size > PTHREAD_TEAM_LIMIT) size = PTHREAD_TEAM_LIMIT;
    atomic_int settled_size = 0;
    for (int rank = 0; rank < size; ++rank)
        members[rank] = (struct member){{rank, 0, &barrier}, &settled_size, body, context};
    int started = 1;
    while (started < size && !pthread_create(&threads[started], NULL, run_member, &members[started])) ++started;
    atomic_store(&settled_size, started);
    run_member(&members[0]);
    for (int rank = 1; rank < started; ++rank) pthread_join(threads[rank], NULL);
}

#else

const char *fnn_team_backend(void) { return "serial"; }

static void run_together(int size, fnn_team_body *body, void *context) {
    (void)size;
    run_alone(body, context);
}

#endif

void fnn_team_run(int size, fnn_team_body *body, void *context) {
    if (size <= 1 || atomic_load_explicit(&in_forked_child, memory_order_relaxed))
        run_alone(body, context);
    else
        run_together(size, body, context);
}

static void note_fork(void) { atomic_store_explicit(&in_forked_child, true, memory_order_relaxed); }

void fnn_team_initialize(void) {
#if defined(_WIN32)
    (void)note_fork;
#else
    pthread_atfork(NULL, NULL, note_fork);
#endif
}
