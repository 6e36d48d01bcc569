/* Reads the cases, runs them on every ISA with 1 to 8 threads, compares, and says which kernels had no case.
 *
 *   fastnn_native_tests FILE...            runs the cases of all files
 *   fastnn_native_tests FILE --only NAME   runs those whose name contains NAME */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "native.h"

static const int thread_counts[] = {1, 2, 3, 5, 8};
enum { THREAD_COUNTS = sizeof thread_counts / sizeof thread_counts[0], CASE_LIMIT = 256 };

void give_up(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

/* ---- reading */

static char *trimmed(char *line) {
    line[strcspn(line, "#\n")] = '\0';
    size_t length = strlen(line);
    while (length > 0 && isspace((unsigned char)line[length - 1])) line[--length] = '\0';
    return line + strspn(line, " \t");
}

static char *joined(char *first, const char *second) {
    char *both = realloc(first, strlen(first) + strlen(second) + 2);
    if (!both || strlen(both) + strlen(second) + 2 > LINE_BYTES) give_up("a step is too long: %s", second);
    return strcat(strcat(both, " "), second);
}

static void add_line(struct test_case *test, const char *line, bool continued) {
    if (continued && test->line_count > 0) {
        test->lines[test->line_count - 1] = joined(test->lines[test->line_count - 1], line);
        return;
    }
    if (!strncmp(line, "tolerance = ", 12)) {
        test->tolerance = strtod(line + 12, NULL);
        return;
    }
    if (test->line_count == CASE_LINES) give_up("%s has too many lines", test->name);
    char *copy = malloc(strlen(line) + 1);
    if (!copy) give_up("no memory");
    test->lines[test->line_count++] = strcpy(copy, line);
    int alternatives = 1;
    for (const char *c = line; *c; c++) alternatives += *c == '|';
    if (alternatives > test->run_count) test->run_count = alternatives;
}

/* Adds the cases of a file to the `count` that are there; returns how many there are then. */
static int read_cases(const char *path, struct test_case *tests, int count) {
    FILE *file = fopen(path, "r");
    if (!file) give_up("cannot read %s", path);
    char buffer[LINE_BYTES];
    while (fgets(buffer, sizeof buffer, file)) {
        bool continued = isspace((unsigned char)buffer[0]);
        char *line = trimmed(buffer);
        if (!*line) continue;
        if (*line == '[') {
            if (count == CASE_LIMIT || strlen(line) >= NAME_BYTES) give_up("no room for case %s", line);
            tests[count] = (struct test_case){.run_count = 1};
            memcpy(tests[count].name, line + 1, strcspn(line + 1, "]"));
            ++count;
        } else if (count > 0) {
            add_line(&tests[count - 1], line, continued);
        } else {
            give_up("a line before the first case: %s", line);
        }
    }
    fclose(file);
    return count;
}

/* ---- running */

static int failures, comparisons;

static void fail(const struct trial *trial, const char *what) {
    printf("FAILED %s, run %d, %s, %d threads: %s\n", trial->test->name, trial->run, trial->isa->name, trial->threads,
           what);
    ++failures;
}

/* Compares all buffers of two trials of the same run that count at `least`. */
static void compare(const struct trial *expected, const struct trial *got, enum comparison least, double tolerance) {
    for (int i = 0; i < got->buffer_count; i++) {
        if (got->buffers[i].comparison < least) continue;
        const char *wrong = difference(&expected->buffers[i], &got->buffers[i], tolerance);
        if (wrong) fail(got, wrong);
        ++comparisons;
    }
}

static void check_written(const struct trial *trial) {
    for (int i = 0; i < trial->buffer_count; i++) {
        const bool complete = trial->buffers[i].comparison == COMPARE_ALL; /* packed panels may have gaps */
        const char *wrong = complete ? unwritten(&trial->buffers[i]) : NULL;
        if (wrong) fail(trial, wrong);
    }
}

/* One set of alternatives on every ISA and team: all teams the same bits, all ISAs the scalar one's values. */
static void run_alternatives(const struct test_case *test, int run, bool *kernels_run) {
    struct trial *scalar = run_trial(test, fnn_isa(FNN_ISA_SCALAR), 1, run, kernels_run);
    check_written(scalar);
    for (int isa = 0; isa < FNN_ISA_COUNT; isa++) {
        const struct fnn_isa_info *info = fnn_isa((enum fnn_isa)isa);
        if (!info) continue;
        struct trial *one = run_trial(test, info, 1, run, kernels_run);
        check_written(one);
        compare(scalar, one, COMPARE_ALL, test->tolerance);
        for (int i = 1; i < THREAD_COUNTS; i++) {
            struct trial *team = run_trial(test, info, thread_counts[i], run, kernels_run);
            compare(one, team, COMPARE_THREADS, SAME_BITS);
            free_trial(team);
        }
        free_trial(one);
    }
    free_trial(scalar);
}

static int count_unclaimed(const bool *kernels_run) {
    int unclaimed = 0;
    for (int id = 0; id < FNN_KERNEL_COUNT; id++) {
        if (kernels_run[id]) continue;
        printf("no case for kernel %s\n", fnn_kernel_infos[id].name);
        ++unclaimed;
    }
    return unclaimed;
}

int main(int argument_count, char **arguments) {
    static struct test_case tests[CASE_LIMIT];
    static bool kernels_run[FNN_KERNEL_COUNT];
    const char *only = argument_count == 4 && !strcmp(arguments[2], "--only") ? arguments[3] : NULL;
    if (argument_count < 2) give_up("usage: %s FILE... or FILE --only NAME", arguments[0]);
    int count = 0;
    for (int i = 1; i < (only ? 2 : argument_count); i++) count = read_cases(arguments[i], tests, count);
    fnn_team_initialize();
    printf("team: %s; ISAs:", fnn_team_backend());
    for (int isa = 0; isa < FNN_ISA_COUNT; isa++)
        if (fnn_isa((enum fnn_isa)isa)) printf(" %s", fnn_isa((enum fnn_isa)isa)->name);
    printf("\n");
    fflush(stdout);
    if (!only) failures += check_works(&comparisons);
    for (int i = 0; i < count; i++) {
        const bool wanted = !only || strstr(tests[i].name, only);
        for (int run = 0; wanted && run < tests[i].run_count; run++) run_alternatives(&tests[i], run, kernels_run);
        for (int line = 0; line < tests[i].line_count; line++) free(tests[i].lines[line]);
    }
    const int unclaimed = only ? 0 : count_unclaimed(kernels_run);
    printf("%d cases, %d comparisons, %d failures, %d kernels without a case\n", count, comparisons, failures,
           unclaimed);
    return failures > 0 || unclaimed > 0;
}
