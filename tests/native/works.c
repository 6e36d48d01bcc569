/* Works taken piece by piece: every thing once, by whatever team, and by the others where a thread does not come. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "native.h"

enum { WORKS = 3, LONGEST_WAIT = 20 /* seconds */ };

struct errand {
    ptrdiff_t count, block;
    bool backwards;
    bool waits; /* the last thread takes nothing before all else is taken */
    bool keeps; /* every thread keeps to its own part */
    atomic_uchar *taken[WORKS];
    atomic_ptrdiff_t done; /* things of the first work */
    atomic_bool late;      /* the others left something to the last thread */
    atomic_bool ragged;    /* a piece did not begin or end at a block */
};

static void wait_for_all(struct errand *errand) {
    const time_t end = time(NULL) + LONGEST_WAIT;
    while (atomic_load(&errand->done) < errand->count)
        if (time(NULL) > end) {
            atomic_store(&errand->late, true);
            return;
        }
}

/* Several works without a barrier between them. */
static void take_all(void *context, const struct fnn_team *whole) {
    struct errand *errand = context;
    struct fnn_team team = *whole;
    if (errand->keeps) team.parts = NULL;
    for (int i = 0; i < WORKS; i++) {
        struct fnn_work work = fnn_work(errand->count, errand->block, &team);
        struct fnn_range piece;
        work.backwards = errand->backwards;
        if (errand->waits && team.size > 1 && team.rank == team.size - 1 && i == 0) wait_for_all(errand);
        while (fnn_take(&work, &piece)) {
            const bool whole_blocks =
                piece.begin % errand->block == 0 && (piece.end % errand->block == 0 || piece.end == errand->count);
            if (!whole_blocks || piece.begin >= piece.end) atomic_store(&errand->ragged, true);
            for (ptrdiff_t thing = piece.begin; thing < piece.end; thing++)
                atomic_fetch_add(&errand->taken[i][thing], 1);
            if (i == 0) atomic_fetch_add(&errand->done, piece.end - piece.begin);
        }
    }
}

/* 1 and a line if something was wrong, else 0. */
static int run_errand(int threads, ptrdiff_t count, ptrdiff_t block, bool backwards, bool waits, bool keeps) {
    struct errand errand = {.count = count, .block = block, .backwards = backwards, .waits = waits, .keeps = keeps};
    for (int i = 0; i < WORKS; i++) {
        errand.taken[i] = calloc((size_t)count + 1, sizeof(atomic_uchar));
        if (!errand.taken[i]) give_up("no memory");
    }
    fnn_team_run(threads, take_all, &errand);
    const char *wrong = atomic_load(&errand.late) ? "nobody took what a thread did not come to" : NULL;
    if (atomic_load(&errand.ragged)) wrong = "a piece is not whole blocks";
    for (int i = 0; i < WORKS; i++) {
        for (ptrdiff_t thing = 0; thing < count; thing++)
            if (atomic_load(&errand.taken[i][thing]) != 1) wrong = "a thing was not taken once";
        free(errand.taken[i]);
    }
    if (wrong)
        printf("works: %s (%td things, blocks of %td, %d threads%s%s%s)\n", wrong, count, block, threads,
               backwards ? ", backwards" : "", waits ? ", the last one waits" : "", keeps ? ", own parts" : "");
    return wrong != NULL;
}

int check_works(int *comparisons) {
    static const int teams[] = {1, 2, 3, 5, 8, FNN_PARTS_LIMIT};
    static const ptrdiff_t counts[] = {0, 1, 2, 7, 64, 65, 1000, 20011}, blocks[] = {1, 3, 64, 30000};
    int failures = 0, checks = 0;
    for (size_t t = 0; t < sizeof teams / sizeof teams[0]; t++)
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++)
            for (size_t b = 0; b < sizeof blocks / sizeof blocks[0]; b++)
                for (int kind = 0; kind < 4 && !failures; kind++, checks++) /* one that waits in vain takes long */
                    failures +=
                        run_errand(teams[t], counts[c], blocks[b], kind == 1, kind == 2 && teams[t] <= 8, kind == 3);
    *comparisons += checks;
    return failures;
}
