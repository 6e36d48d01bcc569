/* The memory that plans run in: aligned for every vector, and in huge pages where the system has them, so that
 * a large arena costs few page faults and few TLB misses. */
#define _GNU_SOURCE
#include "fastnn.h"

#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(_WIN32)
#include <malloc.h>
#endif

enum { ALIGNMENT = 64, HUGE_PAGE = 1 << 21 };

void *fnn_memory_allocate(size_t bytes) {
    size_t alignment = bytes >= 2 * (size_t)HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    if (bytes == 0) bytes = 1;
    if (bytes > SIZE_MAX - alignment) return NULL;
    bytes = (bytes + alignment - 1) / alignment * alignment;
#if defined(_WIN32)
    return _aligned_malloc(bytes, alignment);
#else
    void *memory = aligned_alloc(alignment, bytes);
#if defined(__linux__)
    if (memory && alignment == HUGE_PAGE) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return memory;
#endif
}

void fnn_memory_free(void *memory) {
#if defined(_WIN32)
    _aligned_free(memory);
#else
    free(memory);
#endif
}
