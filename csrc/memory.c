/* The memory that plans run in and large results lie in: aligned for every vector, in huge pages where the system has
 * them, so that it costs few page faults and few TLB misses.
 *
 * Large blocks that are freed are kept for the next request: the system clears fresh pages at about the speed at which
 * most kernels fill them. At most KEPT_BLOCKS are kept, of at most KEPT_BYTES together; the oldest go first. Whoever finds
 * the list in use by another thread does without it, so nobody waits, and a forked child cannot be left waiting. */
#define _GNU_SOURCE
#include "fastnn.h"

#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(_WIN32)
#include <malloc.h>
#endif

enum { ALIGNMENT = 64, HUGE_PAGE = 1 << 21, LARGE = 2 * HUGE_PAGE };
#if defined(__SANITIZE_ADDRESS__)
enum { KEPT_BLOCKS = 8, KEPT_BYTES = 0 }; /* so that the use of freed memory is seen */
#else
enum { KEPT_BLOCKS = 8, KEPT_BYTES = 256 << 20 };
#endif

struct block {
    void *memory;
    size_t bytes;
};

static struct {
    struct block blocks[KEPT_BLOCKS]; /* the oldest first */
    int count;
    size_t bytes;
    atomic_flag busy;
} kept = {.busy = ATOMIC_FLAG_INIT};

/* 0: too large to be rounded. */
static size_t rounded_size(size_t bytes) {
    size_t alignment = bytes >= LARGE ? HUGE_PAGE : ALIGNMENT;
    if (bytes == 0) bytes = 1;
    return bytes > SIZE_MAX - alignment ? 0 : (bytes + alignment - 1) / alignment * alignment;
}

static void *system_allocate(size_t bytes) {
    size_t alignment = bytes >= LARGE ? HUGE_PAGE : ALIGNMENT;
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

static void system_free(void *memory) {
#if defined(_WIN32)
    _aligned_free(memory);
#else
    free(memory);
#endif
}

static struct block take(int index) {
    struct block block = kept.blocks[index];
    kept.count--;
    kept.bytes -= block.bytes;
    for (int i = index; i < kept.count; i++) kept.blocks[i] = kept.blocks[i + 1];
    return block;
}

/* A kept block of exactly this size, or null. */
static void *reuse(size_t bytes) {
    void *memory = NULL;
    if (atomic_flag_test_and_set_explicit(&kept.busy, memory_order_acquire)) return NULL;
    for (int i = kept.count - 1; i >= 0 && !memory; i--)
        if (kept.blocks[i].bytes == bytes) memory = take(i).memory;
    atomic_flag_clear_explicit(&kept.busy, memory_order_release);
    return memory;
}

void *fnn_memory_allocate(size_t bytes) {
    size_t size = rounded_size(bytes);
    if (size == 0) return NULL;
    void *memory = size >= LARGE ? reuse(size) : NULL;
    if (!memory) memory = system_allocate(size);
    if (!memory) {
        fnn_memory_release();
        memory = system_allocate(size);
    }
    return memory;
}

/* Frees the oldest kept blocks until the rest has at most `count` blocks and `bytes` bytes. */
static void release_to(int count, size_t bytes) {
    while (kept.count > count || kept.bytes > bytes) system_free(take(0).memory);
}

void fnn_memory_free(void *memory, size_t bytes) {
    size_t size = rounded_size(bytes);
    if (!memory) return;
    if (size < LARGE || size > KEPT_BYTES || atomic_flag_test_and_set_explicit(&kept.busy, memory_order_acquire)) {
        system_free(memory);
        return;
    }
    release_to(KEPT_BLOCKS - 1, KEPT_BYTES - size);
    kept.blocks[kept.count++] = (struct block){memory, size};
    kept.bytes += size;
    atomic_flag_clear_explicit(&kept.busy, memory_order_release);
}

void fnn_memory_release(void) {
    if (atomic_flag_test_and_set_explicit(&kept.busy, memory_order_acquire)) return;
    release_to(0, 0);
    atomic_flag_clear_explicit(&kept.busy, memory_order_release);
}
