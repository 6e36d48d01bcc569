/* How many threads to use: the least of what the CPU affinity, the container's quota and the user's
 * environment allow, and no more than a limit that threadpoolctl put on this thread's OpenMP runtime. */
#define _GNU_SOURCE
#include "fastnn.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sched.h>
#elif !defined(_WIN32)
#include <unistd.h>
#else
#include <windows.h>
#endif
#if defined(FNN_TEAM_OPENMP)
#include <omp.h>
#endif

enum { PATH_BYTES = 2048, MAX_THREADS = 1024 };

static int read_affinity(void) {
#if defined(__linux__)
    /* The kernel refuses a set smaller than its own: grow until it fits. */
    for (int cpus = 1024; cpus <= 1 << 20; cpus *= 4) {
        cpu_set_t *set = CPU_ALLOC((size_t)cpus);
        if (!set) return 1;
        size_t bytes = CPU_ALLOC_SIZE((size_t)cpus);
        int count = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (count > 0) return count;
    }
    return 1;
#elif defined(_WIN32)
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return (int)info.dwNumberOfProcessors;
#else
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (int)count : 1;
#endif
}

/* A positive integer at the start of an environment variable ("4", or "4,2" for nested levels), or 0. */
static int read_environment(const char *name) {
    const char *text = getenv(name);
    if (!text) return 0;
    char *end;
    long value = strtol(text, &end, 10);
    while (*end == ' ') ++end;
    if (end == text || (*end && *end != ',') || value < 1) return 0;
    return value > MAX_THREADS ? MAX_THREADS : (int)value;
}

/* quota/period rounded up, or 0 when there is no quota */
static int quota_threads(long long quota, long long period) {
    if (quota <= 0 || period <= 0) return 0;
    long long threads = quota / period + (quota % period > 0);
    return threads > MAX_THREADS ? MAX_THREADS : (int)threads;
}

static bool read_line(const char *path, char *line, int bytes) {
    FILE *file = fopen(path, "r");
    if (!file) return false;
    bool read = fgets(line, bytes, file) != NULL;
    fclose(file);
    return read;
}

static int least(int a, int b) { return !a ? b : !b ? a : a < b ? a : b; }

/* cgroup v2: <directory>/cpu.max holds "quota period" or "max period". */
static int read_v2_quota(const char *directory) {
    char path[PATH_BYTES + 16], line[128];
    long long quota, period;
    snprintf(path, sizeof path, "%s/cpu.max", directory);
    if (!read_line(path, line, sizeof line) || sscanf(line, "%lld %lld", &quota, &period) != 2) return 0;
    return quota_threads(quota, period);
}

/* cgroup v1: cpu.cfs_quota_us (-1: none) and cpu.cfs_period_us. */
static int read_v1_quota(const char *directory) {
    char path[PATH_BYTES + 32], quota[64], period[64];
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", directory);
    if (!read_line(path, quota, sizeof quota)) return 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", directory);
    if (!read_line(path, period, sizeof period)) return 0;
    return quota_threads(atoll(quota), atoll(period));
}

/* The least quota of the group at root + group and of all groups above it. */
static int least_quota(const char *root, const char *group, int (*read_quota)(const char *directory)) {
    char directory[PATH_BYTES];
    size_t root_length = strlen(root);
    int length = snprintf(directory, sizeof directory, "%s%s", root, group);
    if (length < 0 || (size_t)length >= sizeof directory) return 0;
    int threads = 0;
    for (;;) {
        threads = least(threads, read_quota(directory));
        char *slash = strrchr(directory, '/');
        if (!slash || (size_t)(slash - directory) < root_length) return threads;
        *slash = '\0';
    }
}

static bool lists_cpu(const char *controllers, const char *end) {
    for (const char *name = controllers; name < end;) {
        const char *comma = memchr(name, ',', (size_t)(end - name));
        const char *name_end = comma ? comma : end;
        if (name_end - name == 3 && !memcmp(name, "cpu", 3)) return true;
        name = name_end + 1;
    }
    return false;
}

/* Lines are "hierarchy:controllers:group"; hierarchy 0 with no controllers is version 2. */
static int read_cgroup(const char *root, const char *process_cgroup) {
    FILE *file = fopen(process_cgroup, "r");
    if (!file) return 0;
    char line[PATH_BYTES], v1_root[PATH_BYTES];
    int threads = 0;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        ++controllers;
        if (controllers == group) {
            threads = least(threads, least_quota(root, group + 1, read_v2_quota));
        } else if (lists_cpu(controllers, group)) {
            int length = snprintf(v1_root, sizeof v1_root, "%s/%.*s", root, (int)(group - controllers), controllers);
            if (length > 0 && (size_t)length < sizeof v1_root)
                threads = least(threads, least_quota(v1_root, group + 1, read_v1_quota));
        }
    }
    fclose(file);
    return threads;
}

struct fnn_thread_limits fnn_read_thread_limits(const char *cgroup_root, const char *process_cgroup) {
    struct fnn_thread_limits limits = {
        .affinity = read_affinity(),
        .cgroup = read_cgroup(cgroup_root, process_cgroup),
        .openmp = read_environment("OMP_NUM_THREADS"),
        .fastnn = read_environment("FASTNN_NUM_THREADS"),
    };
    limits.chosen = least(least(limits.affinity, limits.cgroup), least(limits.openmp, limits.fastnn));
    return limits;
}

static atomic_int setting = 1;

/* What the OpenMP runtime would have used when we were imported: a lower value later is somebody's limit. */
static int openmp_maximum(void) {
#if defined(FNN_TEAM_OPENMP)
    return omp_get_max_threads();
#else
    return INT_MAX;
#endif
}
static atomic_int initial_openmp_maximum = INT_MAX;

void fastnn_set_num_threads(int threads) {
    if (threads < 1) threads = 1;
    atomic_store_explicit(&setting, threads > MAX_THREADS ? MAX_THREADS : threads, memory_order_relaxed);
}

int fastnn_get_num_threads(void) {
    int threads = atomic_load_explicit(&setting, memory_order_relaxed);
    int maximum = openmp_maximum();
    bool limited = maximum < atomic_load_explicit(&initial_openmp_maximum, memory_order_relaxed);
    return limited && maximum < threads ? maximum : threads;
}

void fnn_threads_initialize(void) {
    atomic_store(&initial_openmp_maximum, openmp_maximum());
    fastnn_set_num_threads(fnn_read_thread_limits("/sys/fs/cgroup", "/proc/self/cgroup").chosen);
}
