/* What the framework half of the C code shares: kernel arguments, the thread team, the plan.
 *
 * Vocabulary. A *kernel* is one function compiled once per ISA; every thread of a *team* calls it with the
 * same arguments and takes its share of the work (SPMD). A *step* is a kernel with its arguments; a *plan*
 * is a flat array of steps. All sizes are ptrdiff_t, counted in elements unless the name says bytes.
 * C code cannot fail: whatever can be wrong was checked by the caller.
 */
#ifndef FASTNN_H
#define FASTNN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- kernel arguments ------------------------------------------------------------------------------ */

/* One kernel argument. Every field of every argument struct is exactly one slot wide, so a plan can fill
 * any struct from kernels.def alone. */
union fnn_slot {
    const void *pointer;
    ptrdiff_t size;
    uint64_t word;
    double real;
};
_Static_assert(sizeof(union fnn_slot) == 8, "fastnn needs 64-bit pointers");

#define FNN_IN(type, name) const type *name;
#define FNN_IN_OPTIONAL(type, name) const type *name;
#define FNN_OUT(type, name) type *name;
#define FNN_OUT_OPTIONAL(type, name) type *name;
#define FNN_UPDATE(type, name) type *name;
#define FNN_SIZE(name) ptrdiff_t name;
#define FNN_WORD(name) uint64_t name;
#define FNN_REAL(name) double name;
#define FNN_TABLE(name) const union fnn_slot *name;
#define FNN_KERNEL(name, fields) \
    struct fnn_##name##_args {   \
        fields                   \
    };
#include "kernels.def"
#undef FNN_IN
#undef FNN_IN_OPTIONAL
#undef FNN_OUT
#undef FNN_OUT_OPTIONAL
#undef FNN_UPDATE
#undef FNN_SIZE
#undef FNN_WORD
#undef FNN_REAL
#undef FNN_TABLE
#undef FNN_KERNEL

enum fnn_kernel_id {
#define FNN_KERNEL(name, fields) FNN_KERNEL_##name,
#include "kernels.def"
#undef FNN_KERNEL
    FNN_KERNEL_COUNT
};

/* ---- thread team (team.c) -------------------------------------------------------------------------- */

struct fnn_barrier;
struct fnn_part;

/* One thread's view of the team: it is number `rank` of `size`. */
struct fnn_team {
    int rank;
    int size;
    struct fnn_barrier *barrier; /* unused when size is 1 */
    struct fnn_part *parts;      /* one a thread; null when size is 1 or more than FNN_PARTS_LIMIT */
};

struct fnn_range {
    ptrdiff_t begin, end;
};

typedef void fnn_team_body(void *context, const struct fnn_team *team);

/* Calls body on `size` threads at once and returns when all have returned. The calling thread is rank 0.
 * Denormals are flushed to zero inside the call; the caller's floating-point state is restored.
 * In a forked child, or with size 1, the caller alone runs body as a team of one. */
void fnn_team_run(int size, fnn_team_body *body, void *context);

/* Returns when every thread of the team has arrived; what was written before is visible after. */
void fnn_barrier(const struct fnn_team *team);

/* Makes fnn_team_run safe in children forked from now on. Called once, when the module is imported. */
void fnn_team_initialize(void);

/* Name of the threading the team was built with: "openmp", "pthread" or "serial". */
const char *fnn_team_backend(void);

/* ---- works that threads take piece by piece (work.c) ------------------------------------------------- */

/* A thread's part of the work that is being done. `left` holds the number of that work and the pieces [begin, end) that nobody
 * has taken, in one word; while the number is that of an earlier work, nobody has come to this part. */
struct fnn_part {
    _Alignas(64) _Atomic uint64_t left;
    uint32_t begun; /* works that this thread has begun; nobody else looks at it */
};

enum { FNN_PARTS_LIMIT = 64 }; /* threads of a team that take from each other */

/* The parts of a new team, in memory for FNN_PARTS_LIMIT of them; null if it is larger. */
struct fnn_part *fnn_parts_begin(struct fnn_part *memory, int size);

/* `count` things of which any split is allowed, in whole blocks of `block` but for the last, taken piece by piece: a thread takes
 * those of its own contiguous part in order (backwards: from the last block on), then what others have not come to. So a thread
 * whose core is slow, or gone for a while, holds nobody up for longer than one piece takes. Which thread takes a piece must
 * not change its bits. All threads of a team begin the same works in the same order. */
struct fnn_work {
    const struct fnn_team *team;
    ptrdiff_t count, block;
    bool backwards;
    int passed;      /* parts in which nothing was left */
    uint32_t number; /* of the works that this team has begun */
};

struct fnn_work fnn_work(ptrdiff_t count, ptrdiff_t block, const struct fnn_team *team);

/* The next piece, or false: nothing is left to take, though others may still be at what they took. */
bool fnn_take(struct fnn_work *work, struct fnn_range *piece);

/* ---- number of threads (threads.c) ----------------------------------------------------------------- */

struct fnn_thread_limits {
    int affinity;         /* CPUs this process may run on */
    int cgroup;           /* CPU quota of the container, rounded up; 0: none */
    int openmp;           /* OMP_NUM_THREADS; 0: unset */
    int fastnn;           /* FASTNN_NUM_THREADS; 0: unset */
    int chosen;           /* the least of those that are set */
};

/* Reads the limits; cgroup_root is "/sys/fs/cgroup" and process_cgroup "/proc/self/cgroup" but in tests. */
struct fnn_thread_limits fnn_read_thread_limits(const char *cgroup_root, const char *process_cgroup);

/* Visible outside the module: threadpoolctl finds them by name. */
#if defined(_WIN32)
#define FNN_EXPORT __declspec(dllexport)
#else
#define FNN_EXPORT __attribute__((visibility("default")))
#endif

/* Process-wide setting, and what a call made now would use (the setting, lowered by a limit that
 * threadpoolctl put on the OpenMP runtime of this thread). Exported by these names for threadpoolctl. */
FNN_EXPORT void fastnn_set_num_threads(int threads);
FNN_EXPORT int fastnn_get_num_threads(void);
void fnn_threads_initialize(void);

/* ---- dispatch (dispatch.c) ------------------------------------------------------------------------- */

typedef void fnn_kernel(const void *args, const struct fnn_team *team);

enum fnn_isa { FNN_ISA_SCALAR, FNN_ISA_NEON, FNN_ISA_AVX2, FNN_ISA_AVX512, FNN_ISA_COUNT };

/* Facts of one ISA's build that the Python side plans with. */
struct fnn_isa_info {
    const char *name;
    ptrdiff_t lanes;          /* floats in a vector */
    ptrdiff_t gemm_rows;      /* rows of the GEMM register tile */
    ptrdiff_t gemm_columns;   /* columns of the GEMM register tile, a multiple of lanes */
    fnn_kernel *const *kernels; /* FNN_KERNEL_COUNT functions */
};

/* Null when the ISA was not compiled in, or this CPU or operating system lacks it. */
const struct fnn_isa_info *fnn_isa(enum fnn_isa isa);

/* ---- the list of kernels, for programs (registry.c) ------------------------------------------------ */

enum fnn_field_kind {
    FNN_FIELD_IN,
    FNN_FIELD_IN_OPTIONAL,
    FNN_FIELD_OUT,
    FNN_FIELD_OUT_OPTIONAL,
    FNN_FIELD_UPDATE,
    FNN_FIELD_SIZE,
    FNN_FIELD_WORD,
    FNN_FIELD_REAL,
    FNN_FIELD_TABLE
};

struct fnn_field {
    const char *name;
    const char *type; /* the C element type of a pointer, "" for the rest */
    enum fnn_field_kind kind;
};

struct fnn_kernel_info {
    const char *name;
    ptrdiff_t field_count;
    const struct fnn_field *fields;
};

extern const struct fnn_kernel_info fnn_kernel_infos[FNN_KERNEL_COUNT];

/* ---- plan runner (plan.c) -------------------------------------------------------------------------- */

enum fnn_sharing {
    FNN_PIECEWISE, /* threads help each other (fnn_take) */
    FNN_EVENLY,    /* each keeps to its own part: of a short step, what helping costs is more than what it saves */
    FNN_ALONE      /* too small to share: rank 0 runs it as a team of one */
};

struct fnn_step {
    fnn_kernel *run;
    const union fnn_slot *args;
    enum fnn_sharing sharing;
};

/* Runs the steps in order, a barrier between any two that run on different threads. */
void fnn_plan_run(const struct fnn_step *steps, ptrdiff_t count, int threads);

/* As fnn_plan_run; seconds[i] receives the time of step i (each step is bracketed by barriers). */
void fnn_plan_profile(const struct fnn_step *steps, ptrdiff_t count, int threads, double *seconds);

/* ---- memory (memory.c) ------------------------------------------------------------------------------ */

/* Uninitialised memory aligned to 64 bytes or more, or null; of any size, 0 included. Freed with the size that it was
 * asked for; large blocks are kept for the next request until fnn_memory_release. */
void *fnn_memory_allocate(size_t bytes);
void fnn_memory_free(void *memory, size_t bytes);
void fnn_memory_release(void);

/* ---- geometry (geometry.c) ------------------------------------------------------------------------- */

/* A size that overflowed ptrdiff_t; no memory is ever formed from it. */
#define FNN_OVERFLOW PTRDIFF_MIN

/* a*b for a, b >= 0, or FNN_OVERFLOW (also when either already is FNN_OVERFLOW). */
ptrdiff_t fnn_checked_product(ptrdiff_t a, ptrdiff_t b);

/* Positions of a window of `kernel` taps `dilation` apart, sliding by `stride` over `size` elements with
 * the given zero padding on either side. With ceil_mode a last partial window counts unless it starts in
 * the trailing padding. At most 0: the kernel does not fit. FNN_OVERFLOW: the numbers are too large. */
ptrdiff_t fnn_window_positions(ptrdiff_t size, ptrdiff_t kernel, ptrdiff_t stride, ptrdiff_t dilation,
                               ptrdiff_t pad_before, ptrdiff_t pad_after, bool ceil_mode);

#endif
