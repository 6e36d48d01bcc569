/* The only place where threads start. One file, three builds: OpenMP (FNN_TEAM_OPENMP), pthreads that are
 * created and joined at every call (FNN_TEAM_PTHREAD, for ThreadSanitizer, which does not understand
 * OpenMP runtimes), and serial (neither). */
#define _DEFAULT_SOURCE /* syscall */
#include "fastnn.h"

#include <limits.h>
#include <time.h>

#if defined(FNN_TEAM_OPENMP)
#include <omp.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#include <sched.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
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

/* It outlives its last use: fnn_team_run returns only when every thread has come out of body, the last arriver with it. */
struct fnn_barrier {
    _Alignas(64) atomic_int arrived;
    atomic_int sleepers;
    _Alignas(64) atomic_int generation;
};

static void pause_briefly(void) {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t nanoseconds(void) {
    struct timespec time;
    timespec_get(&time, TIME_UTC);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static bool passed(struct fnn_barrier *barrier, int generation) {
    return atomic_load_explicit(&barrier->generation, memory_order_acquire) != generation;
}

/* Spins for some fifteen to thirty microseconds, longer than most steps are uneven, and says whether the others came. Longer
 * would harm a team larger than the machine, whose threads wait for each other's cores. By the clock, for a pause takes one
 * nanosecond on some CPUs and sixty on others. */
static bool passed_soon(struct fnn_barrier *barrier, int generation) {
    enum { SPINS_BETWEEN_LOOKS = 256, LONGEST = 15000 /* nanoseconds */ };
    int64_t start = 0;
    for (int spins = 1; !passed(barrier, generation); ++spins) {
        if (spins % SPINS_BETWEEN_LOOKS == 0) {
            int64_t now = nanoseconds();
            if (!start) start = now;
            if (now - start >= LONGEST) return false;
        }
        pause_briefly();
    }
    return true;
}

/* Waits without keeping the core from the threads that are waited for. Neither sched_yield nor more spinning does that when
 * other processes want the cores: a thread that yields gives the rest of its time to them, again and again. */
#if defined(__linux__)
/* Of linux/futex.h, which musl does not bring along. */
enum { FUTEX_WAIT_PRIVATE = 128, FUTEX_WAKE_PRIVATE = 129 };

/* No wake-up is lost. In the one order of all sequentially consistent operations either the last arriver reads `sleepers`
 * after it was raised here, and wakes (the kernel lets nobody sleep on a generation that has changed); or it had changed the
 * generation before, and then it is read changed here. */
static void sleep_until_passed(struct fnn_barrier *barrier, int generation) {
    atomic_fetch_add(&barrier->sleepers, 1);
    while (atomic_load(&barrier->generation) == generation)
        syscall(SYS_futex, &barrier->generation, FUTEX_WAIT_PRIVATE, generation, NULL, NULL, 0);
    atomic_fetch_sub(&barrier->sleepers, 1);
}

static void wake_sleepers(struct fnn_barrier *barrier) {
    if (atomic_load(&barrier->sleepers))
        syscall(SYS_futex, &barrier->generation, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}
#else
static void sleep_until_passed(struct fnn_barrier *barrier, int generation) {
    while (!passed(barrier, generation)) {
#if !defined(_WIN32)
        sched_yield();
#endif
    }
}

static void wake_sleepers(struct fnn_barrier *barrier) { (void)barrier; }
#endif

void fnn_barrier(const struct fnn_team *team) {
    if (team->size == 1) return;
    struct fnn_barrier *barrier = team->barrier;
    int generation = atomic_load_explicit(&barrier->generation, memory_order_relaxed);
    int before = atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel);
    if (before == team->size - 1) {
        atomic_store_explicit(&barrier->arrived, 0, memory_order_relaxed);
        atomic_store(&barrier->generation, generation + 1);
        wake_sleepers(barrier);
    } else if (!passed_soon(barrier, generation)) {
        sleep_until_passed(barrier, generation);
    }
}

/* ---- team ---------------------------------------------------------------------------------------------- */

/* Set in a forked child: the OpenMP pool of the parent does not exist there, and using it would hang. */
static atomic_bool in_forked_child;

static void run_alone(fnn_team_body *body, void *context) {
    struct fnn_team team = {.rank = 0, .size = 1};
    float_mode saved = flush_denormals();
    body(context, &team);
    restore_float_mode(saved);
}

#if defined(FNN_TEAM_OPENMP)

const char *fnn_team_backend(void) { return "openmp"; }

static void run_together(int size, fnn_team_body *body, void *context) {
    struct fnn_barrier barrier = {.arrived = 0, .sleepers = 0, .generation = 0};
    struct fnn_part memory[FNN_PARTS_LIMIT], *parts = fnn_parts_begin(memory, size);
#pragma omp parallel num_threads(size)
    {
        struct fnn_team team = {omp_get_thread_num(), omp_get_num_threads(), &barrier, parts};
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
    while (!(member->team.size = atomic_load(member->settled_size))) sched_yield();
    float_mode saved = flush_denormals();
    member->body(member->context, &member->team);
    restore_float_mode(saved);
    return NULL;
}

/* A member learns the size of its team only when all threads exist: those that cannot be created shrink it. */
static void run_together(int size, fnn_team_body *body, void *context) {
    struct fnn_barrier barrier = {.arrived = 0, .sleepers = 0, .generation = 0};
    struct member members[PTHREAD_TEAM_LIMIT];
    pthread_t threads[PTHREAD_TEAM_LIMIT];
    if (size > PTHREAD_TEAM_LIMIT) size = PTHREAD_TEAM_LIMIT;
    struct fnn_part memory[FNN_PARTS_LIMIT], *parts = fnn_parts_begin(memory, size);
    atomic_int settled_size = 0;
    for (int rank = 0; rank < size; ++rank)
        members[rank] = (struct member){{rank, 0, &barrier, parts}, &settled_size, body, context};
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
