/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Workers with state and the master between them, all in one process: what the master has to relay is
 * relayed, and what workers say is noted. Each worker keeps its records in a store that the tests look into.
 * Failures end the test.
 */
#ifndef GAPLESS_TESTS_STATE_WORLD_H
#define GAPLESS_TESTS_STATE_WORLD_H

#include "ipc/channel.h"
#include "ipc/control.pb-c.h"
#include "worker/gapless_state.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORLD_WORKERS 8
#define WORLD_SEGMENTS 4
#define WORLD_DEADLINE_MS 20000

struct stored {
    char *key;
    size_t key_size;
    void *data; /* NULL: it isn't there (any more), or it is a blob */
    size_t size;
    int blob; /* 0: none */
    bool there;
    size_t next; /* of the bucket, + 1 */
};

struct store {
    struct state_worker *worker;
    int number; /* of the segment */
    struct stored *records;
    size_t count, capacity;
    size_t buckets[4096];
    size_t there;
    unsigned reads, puts, removes, snapshots;
    unsigned fail_put_at; /* that put fails; 0: none */
    int fail_snapshot, fail_read;
    uint32_t put_version;                     /* of the last value */
    bool keeps_no_blob;                       /* looks at it, no more */
    void (*on_snapshot)(struct store *store); /* before each call */
};

struct state_worker {
    unsigned index;
    struct channel *peer; /* the master's end */
    struct gapless *g;
    struct gapless_state *state;
    struct store stores[WORLD_SEGMENTS];
    unsigned segments;
    char hooks[256]; /* a letter each: r l i a o f R s t x(free) */
    int fail_load, fail_reloadable;
    bool freezes_later; /* the test says frozen */
    bool looped;        /* an event loop dispatches it */
    uint64_t freeze_timeout_ms;
    void (*on_take)(struct state_worker *worker, const struct gapless_connection *connection, int *fd);
    void (*on_release)(struct state_worker *worker);

    unsigned seen[64]; /* messages, by their number */
    char failed[512];
    int failed_code;
    uint64_t failed_transfer, failed_offer;
    bool sends_back;
    unsigned convert_count; /* of Accepted */
    char convert[4][256];
    char reason[512]; /* of Accepted, Reloadable or Refusal */
    bool refused;
    Gapless__Control__Imported imported;
    Gapless__Control__Progress progress;
    Gapless__Control__Describe *describe;
    struct state_worker *attach_to[WORLD_WORKERS]; /* by the importer's number */
    struct state_worker *offer_to;
    uint64_t offered; /* by offer_to's numbers */
    struct {
        uint64_t from, to;
        struct fd_list fds;
    } offers[16];
    bool hold_taken, hold_attach;
    struct {
        Gapless__Control__Control *message;
        struct fd_list fds;
    } held[64];
    unsigned held_count;
};

struct state_world {
    struct state_worker workers[WORLD_WORKERS];
    int pipe_size;       /* 0: the kernel's */
    bool takes_not;      /* workers that are opened have no hook `take` */
    unsigned full_sends; /* that many times the kernel takes no descriptors (ETOOMANYREFS) */
    void (*turn)(void);  /* a loop that turns with the rest; returns at once */
};
extern struct state_world world;

/* Frees everything. */
void world_end(void);

/* Opens worker `at`, in its generation number `index`; hooks: all. */
struct state_worker *world_open(unsigned at, unsigned index, bool successor);
/* Adds a segment that is kept in the next store; what isn't set gets the store's callbacks. */
struct store *world_segment(struct state_worker *worker, const struct gapless_segment *segment);
/* ready, which must go well. */
void world_ready(struct state_worker *worker);
/* One worker with segment "items" (version 1) that is ready. */
struct state_worker *world_simple(unsigned at, unsigned index, bool successor);

/* Changes of the server's own: they are told to the library. */
void store_set(struct store *store, const char *key, const char *value);
void store_set_data(struct store *store, const char *key, const void *data, size_t size);
void store_set_blob(struct store *store, const char *key, int blob, size_t size);
void store_delete(struct store *store, const char *key);
/* Not told. */
void store_put(struct store *store, const void *key, size_t key_size, const void *data, size_t size);
struct stored *store_find(const struct store *store, const void *key, size_t key_size);
/* The value as a string; NULL: it isn't there. */
const char *store_get(const struct store *store, const char *key);
void store_fill(struct store *store, unsigned count, size_t value_size);
void store_assert_equal(const struct store *a, const struct store *b);
uint64_t store_number(const struct store *store, const char *key);
void store_set_number(struct store *store, const char *key, uint64_t number);

/* What the master says. */
void master_send(
    struct state_worker *worker, Gapless__Control__Control *message, const int *fds, unsigned count);
void master_say(struct state_worker *worker, Gapless__Control__Control__BodyCase body, uint64_t transfer);
/* Pipes from each of the exporters to each of the importers, and the messages that carry them. The exporters
 * of a whole state hear of it once every importer has accepted; if one doesn't, they don't. */
struct link {
    struct state_worker *exporters[WORLD_WORKERS];
    struct state_worker *importers[WORLD_WORKERS];
    uint64_t transfer;
    unsigned first; /* of the pipes in the message */
    bool changes_only;
    bool serve_at_mark;
};
void master_link(const struct link *link);
void master_import(const struct link *link, struct state_worker *importer, const int *fds, unsigned count);
void master_export(const struct link *link, struct state_worker *exporter, const int *fds, unsigned count);

/* All workers do what there is to be done, once. */
void world_turn(void);
int64_t world_now_ms(void);
#define UNTIL(condition)                                                                                     \
    for (int64_t end_ = world_now_ms() + WORLD_DEADLINE_MS; !(condition); world_turn())                      \
    assert_true(world_now_ms() < end_)
/* Until nobody has anything to do. */
void world_settle(void);

#define SEEN(worker, BODY) ((worker)->seen[GAPLESS__CONTROL__CONTROL__BODY_##BODY])

void assert_says(const char *text, const char *part);

#endif
