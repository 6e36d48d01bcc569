/* A driver for kernels without Python: it runs the cases of the text files beside it on every ISA with 1 to 8 threads, under a sanitizer or
 * an emulator, and compares the results with those of the scalar ISA and of one thread.
 *
 * A case is a name in brackets, `variable = value ...` lines, and steps; see cases.txt for the grammar. */
#ifndef FASTNN_NATIVE_H
#define FASTNN_NATIVE_H

#include "../../csrc/fastnn.h"

enum { NAME_BYTES = 48, VARIABLE_LIMIT = 64, BUFFER_LIMIT = 64, STEP_LIMIT = 16, LINE_BYTES = 4096, CASE_LINES = 40 };

/* Ends the program: the cases are wrong, or memory ran out. */
_Noreturn void give_up(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- expression.c */

struct variable {
    char name[NAME_BYTES];
    ptrdiff_t value;
};

struct variables {
    struct variable list[VARIABLE_LIMIT];
    int count;
};

void set_variable(struct variables *variables, const char *name, ptrdiff_t value);
const ptrdiff_t *find_variable(const struct variables *variables, const char *name);

/* Value of sums, differences, products, quotients (rounded down) and parentheses of integers and variables, up[a,b] (a
 * rounded up to a multiple of b) and max[a,b]; moves *text past it. */
ptrdiff_t evaluate(const char **text, const struct variables *variables);

/* ---- buffers.c */

enum comparison {
    COMPARE_NOT, /* scratch: any contents */
    COMPARE_THREADS, /* depends on the ISA (packed weights), not on the threads */
    COMPARE_ALL
};

struct buffer {
    char name[NAME_BYTES];
    char type[16]; /* C element type */
    ptrdiff_t count;
    size_t bytes;
    enum comparison comparison;
    char *memory, *data; /* data may start off the alignment of memory, and ends where memory ends */
};

/* A buffer filled as `kind` says: int, real, positive, below(count,limit), value(count,number), out, packed, scratch. */
struct buffer make_buffer(const char *name, const char *type, const char *kind, ptrdiff_t count, double parameter,
                          bool off_alignment);
void free_buffer(struct buffer *buffer);

#define SAME_BITS (-1.0)

/* Null if the two hold the same: equal values, or values that differ by at most tolerance times the largest magnitude in
 * `expected`; with SAME_BITS, nothing but the same bits. Else what is wrong with `got`, in memory that the next call overwrites. */
const char *difference(const struct buffer *expected, const struct buffer *got, double tolerance);

/* Null if every element was written, else which was not. */
const char *unwritten(const struct buffer *buffer);

/* ---- trial.c: one run of one case */

struct test_case {
    char name[NAME_BYTES];
    char *lines[CASE_LINES]; /* variables and steps */
    int line_count;
    int run_count; /* the longest list of alternatives of a variable */
    double tolerance; /* between ISAs; 0: equal values */
};

struct trial {
    const struct test_case *test;
    const struct fnn_isa_info *isa;
    int threads, run; /* run: which of the alternatives */
    struct variables variables;
    struct buffer buffers[BUFFER_LIMIT];
    int buffer_count;
    struct fnn_step steps[STEP_LIMIT];
    union fnn_slot *slots[STEP_LIMIT];
    int step_count;
};

/* Makes the buffers, runs the steps; kernels_run[id] is set for every kernel that ran. */
struct trial *run_trial(const struct test_case *test, const struct fnn_isa_info *isa, int threads, int run,
                        bool *kernels_run);
void free_trial(struct trial *trial);

/* ---- works.c */

/* Returns how many checks of fnn_take failed, after a line for each; adds their number to comparisons. */
int check_works(int *comparisons);

#endif
