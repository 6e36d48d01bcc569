/* How the threads of a team take pieces of a work: each its own part first, then what others have not come to. */
#include "fastnn.h"

enum {
    PART_PIECES = 64, /* a part is cut into at most so many */
    TAKEN = 4,        /* of what is left of a part, its own or another's, a thread takes the fourth at a time */
    HELPED = 8,       /* others whose parts a thread looks at */
    FIELD = 16        /* bits */
};

static uint64_t pack_left(uint32_t number, uint64_t begin, uint64_t end) {
    return ((uint64_t)number << (2 * FIELD)) | (begin << FIELD) | end;
}

struct fnn_work fnn_work(ptrdiff_t count, ptrdiff_t block, const struct fnn_team *team) {
    struct fnn_work work = {.team = team, .count = count, .block = block};
    if (team->parts) work.number = ++team->parts[team->rank].begun;
    return work;
}

/* Blocks of a work that are a thread's part. */
static struct fnn_range part_of(const struct fnn_work *work, int rank) {
    const ptrdiff_t blocks = (work->count + work->block - 1) / work->block;
    const ptrdiff_t each = blocks / work->team->size, more = blocks % work->team->size;
    const ptrdiff_t begin = rank * each + (rank < more ? rank : more);
    return (struct fnn_range){begin, begin + each + (rank < more)};
}

/* The things of pieces [begin, end) of `pieces` of a part. */
static struct fnn_range things(const struct fnn_work *work, struct fnn_range part, ptrdiff_t pieces, ptrdiff_t begin,
                               ptrdiff_t end) {
    const ptrdiff_t blocks = part.end - part.begin;
    ptrdiff_t first = begin * blocks / pieces, last = end * blocks / pieces;
    if (work->backwards) {
        const ptrdiff_t mirrored = blocks - last;
        last = blocks - first;
        first = mirrored;
    }
    first = (part.begin + first) * work->block;
    last = (part.begin + last) * work->block;
    return (struct fnn_range){first, last < work->count ? last : work->count};
}

/* Relaxed: what threads compute for each other is handed over by barriers; here they only agree on who does what. */
static bool take_from(const struct fnn_work *work, int owner, struct fnn_range *piece) {
    const struct fnn_range part = part_of(work, owner);
    const ptrdiff_t blocks = part.end - part.begin, pieces = blocks < PART_PIECES ? blocks : PART_PIECES;
    const bool own = owner == work->team->rank;
    _Atomic uint64_t *left = &work->team->parts[owner].left;
    const uint64_t mask = (UINT64_C(1) << FIELD) - 1;
    uint64_t seen = atomic_load_explicit(left, memory_order_relaxed), rest;
    ptrdiff_t begin, end, taken;
    do {
        const int32_t ahead = (int32_t)((uint32_t)(seen >> (2 * FIELD)) - work->number);
        begin = ahead < 0 ? 0 : (ptrdiff_t)(seen >> FIELD & mask);
        end = ahead < 0 ? pieces : (ptrdiff_t)(seen & mask);
        if (ahead > 0 || begin >= end) return false; /* ahead: it found nothing left of this work */
        taken = (end - begin + TAKEN - 1) / TAKEN;
        rest = own ? pack_left(work->number, (uint64_t)(begin + taken), (uint64_t)end)
                   : pack_left(work->number, (uint64_t)begin, (uint64_t)(end - taken));
    } while (!atomic_compare_exchange_weak_explicit(left, &seen, rest, memory_order_relaxed, memory_order_relaxed));
    *piece = own ? things(work, part, pieces, begin, begin + taken) : things(work, part, pieces, end - taken, end);
    return true;
}

bool fnn_take(struct fnn_work *work, struct fnn_range *piece) {
    const struct fnn_team *team = work->team;
    if (!team->parts) {
        const struct fnn_range part = part_of(work, team->rank);
        if (work->passed++ || part.begin == part.end) return false;
        *piece = things(work, part, 1, 0, 1);
        return true;
    }
    const int looked_at = team->size < 1 + HELPED ? team->size : 1 + HELPED;
    for (; work->passed < looked_at; ++work->passed)
        if (take_from(work, (team->rank + work->passed) % team->size, piece)) return true;
    return false;
}

struct fnn_part *fnn_parts_begin(struct fnn_part *memory, int size) {
    if (size > FNN_PARTS_LIMIT) return NULL;
    for (int rank = 0; rank < size; ++rank) {
        atomic_init(&memory[rank].left, 0);
        memory[rank].begun = 0;
    }
    return memory;
}
