/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a worker hands over to the next version beside its listening sockets: its state, record by record, and
 * its open connections. A part of libgapless; docs/state.md tells it with an example.
 *
 * A server says once, between gapless_open() and gapless_ready(), what its state consists of (segments of
 * records: a key and a value each) and what is to be called. From then on it says which keys have changed.
 * Everything else is asked of it by callbacks, from gapless_dispatch() and gapless_state_dispatch():
 *
 *     the old version                                     the new version
 *     reloadable    may it be replaced?
 *     snapshot…     a few records at a time        ───►   put…
 *                   (it serves on; what changes            load, init   all of the snapshot is there
 *                   meanwhile follows by itself)           accept       only tests come
 *     freeze        begin nothing that writes
 *     read…         the last changes               ───►   put…, remove…
 *     release       the others have it now                 own          serve
 *                   offer the connections          ───►   take…
 *                   put…, remove…                  ◄───   read…        each change, before it is answered
 *     free          (at the end)
 *
 * If the new version is rolled back, the old one gets `own` (and `take` for each connection) and the new one
 * freeze and release. If something fails before the switch, the old one gets `own` again after `freeze`.
 * A worker that has no predecessor gets load, init, accept and own within gapless_ready().
 *
 * Nothing here waits: what a pipe doesn't take waits in a set of changed keys, and is read when there is
 * room. All callbacks come from the thread that dispatches; none may call gapless_close() or
 * gapless_dispatch(). A callback that can fail returns 0 or a negative errno value and may describe it with
 * gapless_fail(): the operator reads it, and the upgrade ends there. Strings and memory that are passed to a
 * callback are lent until it returns.
 */
#ifndef GAPLESS_STATE_H
#define GAPLESS_STATE_H

#include "gapless.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gapless_state;
struct gapless_connection;

/* For a callback that fails: fills *error and returns -code. */
GAPLESS_API int gapless_fail(struct gapless_error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A value on its way. */
struct gapless_value {
    const void *data; /* NULL where it is a blob */
    size_t size;      /* in bytes; a key and a value may have 8 MiB - 64 bytes together, else use a blob */
    uint32_t version; /* of the schema that it is in; 0 (from the server): the segment's */
    int blob;         /* a memory file that has the value (gapless_blob_new()), lent; 0 or -1: none */
};

/*
 * How deltas of requests that still run in the old version, when the new one has the state already, go into
 * it; and how the values of one key that several workers of the old version have become one. SUM, MAX, MIN:
 * the library does it, by `read` and `put`; values are 8 bytes, unsigned, lowest byte first. OWN: one of the
 * values is put, the others are merged like deltas. Where there are several exporters, the importer remembers
 * what each has of a merging segment's keys, until all of it has come. Such values can't be blobs.
 */
enum gapless_merge {
    GAPLESS_MERGE_NONE,
    GAPLESS_MERGE_SUM,
    GAPLESS_MERGE_MAX,
    GAPLESS_MERGE_MIN,
    GAPLESS_MERGE_OWN, /* by the segment's `merge` */
};

/* What a version that doesn't know the segment does with its records. */
enum gapless_unknown {
    GAPLESS_UNKNOWN_REFUSE, /* the upgrade is refused, by the segment's name */
    GAPLESS_UNKNOWN_KEEP,   /* the library keeps them, and passes them on to the next version, or back */
    GAPLESS_UNKNOWN_DROP,
};

enum gapless_segment_flags {
    GAPLESS_SEGMENT_REPLICATED = 1, /* each worker of the next version gets every record */
    GAPLESS_SEGMENT_READ_ONLY = 2,  /* serving doesn't change it: a canary is possible */
};

/* Copied, but for `name` and `arg`, which must live as long as the gapless_state. */
struct gapless_segment {
    const char *name;
    uint32_t version; /* of the schema in which records are written, from 1 */
    unsigned flags;   /* enum gapless_segment_flags */
    enum gapless_merge merge;
    enum gapless_unknown unknown;

    /*
     * Passes some records on, by gapless_state_emit(), from *cursor (0 at first; the server's to count) on:
     * a few, some KiB, not all (a blob takes a descriptor until it is sent). 1: there are more; 0: these were
     * the last. Between two calls records may change, come and go: each that is there from the begin to the
     * end must have been passed at least once, as it was at that moment.
     */
    int (*snapshot)(struct gapless_state *state, uint64_t *cursor, void *arg, struct gapless_error *error);

    /* The value that the key has now, lent until the next call: 1; 0: it isn't there (any more). */
    int (*read)(const void *key, size_t key_size, struct gapless_value *ret_value, void *arg,
        struct gapless_error *error);

    /* Takes a record, in the segment's own version; in place of what the key had. A blob is lent, sealed, and
     * exactly value->size bytes long. */
    int (*put)(const void *key, size_t key_size, const struct gapless_value *value, void *arg,
        struct gapless_error *error);

    /* The key isn't there any more, if it was. */
    int (*remove)(const void *key, size_t key_size, void *arg, struct gapless_error *error);

    /* GAPLESS_MERGE_OWN only: a delta, in the segment's own version. */
    int (*merge_delta)(const void *key, size_t key_size, const struct gapless_value *delta, void *arg,
        struct gapless_error *error);

    /* About how many there are, for the operator's progress; NULL: not known. */
    void (*size)(uint64_t *ret_records, uint64_t *ret_bytes, void *arg);

    void *arg;
};

/* Any may be NULL: then there is nothing to do. */
struct gapless_state_hooks {
    /* An upgrade is about to begin. Not 0: it is refused, with the reason. */
    int (*reloadable)(void *arg, struct gapless_error *error);
    /* Every record of the snapshot is there (or there is nobody to send one). Changes of the old version
     * still come after that. */
    int (*load)(void *arg, struct gapless_error *error);
    /* The last before serving: what only needs to be there. */
    int (*init)(void *arg, struct gapless_error *error);
    /* Begin to accept, if that isn't done yet; the state is still another's: what comes are tests, which only
     * read. Clients come from the switch on, which is a moment before `own` is heard: a request that would
     * change the state waits for that. */
    void (*accept)(void *arg);
    /* The state is this worker's: serve, and go on with what was parked, if it was frozen. */
    void (*own)(void *arg);
    /* Begin no request that changes the state; leave unread, or keep, what comes: it is parked and goes over
     * with its connection. When none is running that may change something, gapless_state_frozen(), at the
     * latest after timeout_ms: else it was in vain, and `own` follows. */
    void (*freeze)(void *arg, uint64_t timeout_ms);
    /* Another has the state now. Nothing is begun any more; offer every connection that owes no answer, now
     * or when it doesn't any more. Where a request still runs, its changes can only be deltas. */
    void (*release)(void *arg);
    /* What gapless_state_settle() was asked for. */
    void (*settled)(void *arg);
    /* A connection that another version had. *fd is given: it is taken, or closed. The library counts
     * nothing: gapless_connection_opened() is the server's to call. NULL: this server neither takes nor
     * offers connections. */
    void (*take)(const struct gapless_connection *connection, int *fd, void *arg);
    /* gapless_close() is about to end it all. */
    void (*free)(void *arg);
};

/* ── what there is ── */

/* Between gapless_open() and gapless_ready(); once. g, and what arg points to, must live until
 * gapless_close(g), which frees it. NULL: out of memory, or too late, or twice (errno EINVAL). g may be NULL
 * (not started by gapless): then everything below works, and nothing is ever transferred;
 * gapless_state_free() is the caller's to call, and gapless_state_start() in place of gapless_ready(). */
GAPLESS_API struct gapless_state *gapless_state_new(
    struct gapless *g, const struct gapless_state_hooks *hooks, void *arg);
GAPLESS_API void gapless_state_free(struct gapless_state *state);
GAPLESS_API int gapless_state_start(struct gapless_state *state, struct gapless_error *error);

/* Adds a segment: its number, from 0, or -EINVAL (version 0, a name twice or longer than 255 bytes, a
 * callback missing), -E2BIG (256 are there), -ENOMEM. */
GAPLESS_API int gapless_state_segment(
    struct gapless_state *state, const struct gapless_segment *segment, struct gapless_error *error);

/* Makes a value of version `from` one of version `to`, by gapless_convert(). 0, or not: the transfer ends
 * there. `from` may be what `read` has just lent: don't write into the same memory. */
struct gapless_conversion;
typedef int (*gapless_convert_cb)(
    const struct gapless_value *from, struct gapless_conversion *to, void *arg, struct gapless_error *error);

/*
 * Registers a converter of a segment. They are chained: with 1→2 and 2→3 a record of version 1 can be read by
 * version 3; the shortest chain is taken. `to` above `from` is for upgrades, below for the way back. Both
 * belong to the newer version. A version that nobody can convert refuses the upgrade before anything is sent.
 * -EEXIST, -EINVAL, -ENOMEM.
 */
GAPLESS_API int gapless_state_converter(struct gapless_state *state, int segment, uint32_t from, uint32_t to,
    gapless_convert_cb convert, void *arg, struct gapless_error *error);
/* The converter's answer: copied. Once. */
GAPLESS_API int gapless_convert(struct gapless_conversion *to, const void *data, size_t size);
/* … of a blob: lent for the call, kept by a duplicate. */
GAPLESS_API int gapless_convert_blob(struct gapless_conversion *to, int blob, size_t size);

/* ── while it serves ── */

/* In a `snapshot` callback: one record. 0; an error is the callback's to return. */
GAPLESS_API int gapless_state_emit(struct gapless_state *state, const void *key, size_t key_size,
    const struct gapless_value *value, struct gapless_error *error);

/* The record of that key has changed, came or went. Cheap where nothing is being transferred. Whatever fails
 * ends the transfer, not the server. */
GAPLESS_API void gapless_state_changed(
    struct gapless_state *state, int segment, const void *key, size_t key_size);

/* To be called before a request that has changed something, or after the release has said a delta, is
 * answered. True: answer it (always so while the other side needn't know). False: the other side must get it
 * first; `settled` is called then, and every answer that waits may go. */
GAPLESS_API bool gapless_state_settle(struct gapless_state *state);

/* After `freeze`: nothing that may change the state is running. */
GAPLESS_API void gapless_state_frozen(struct gapless_state *state);

/* After `release`, for a segment that merges. -EPERM: not now, or not this segment; -EPIPE: the importer has
 * gone. */
GAPLESS_API int gapless_state_delta(struct gapless_state *state, int segment, const void *key,
    size_t key_size, const struct gapless_value *delta, struct gapless_error *error);

/* True while the state is this worker's: it may write. */
GAPLESS_API bool gapless_state_owned(const struct gapless_state *state);

/* The descriptor to poll for reading beside gapless_fd(): -1 where nothing is transferred, so ask again after
 * each gapless_dispatch(), gapless_state_dispatch() and gapless_offer(); and gapless_wants_write(), too. It
 * is an epoll instance; what it has inside changes. (gapless_event.h polls it by itself.) */
GAPLESS_API int gapless_state_fd(const struct gapless_state *state);
/* Does a part of what is to be done: some 256 KiB, or a millisecond. */
GAPLESS_API void gapless_state_dispatch(struct gapless_state *state);

/* ── large values ── */

/* A memory file for a value: write or map it, then seal it. -errno. */
GAPLESS_API int gapless_blob_new(const char *name, struct gapless_error *error);
/* Nobody can change it any more; what is mapped for writing must be unmapped before (-EBUSY). */
GAPLESS_API int gapless_blob_seal(int blob, struct gapless_error *error);

/* ── connections ── */

/* An open connection on its way. */
struct gapless_connection {
    const char *listener; /* the name of the one that it came by; NULL or "": not known */
    const void *input;    /* what was read and not answered */
    size_t input_size;
    const void *state; /* what the server wants to say of it to the next version: its own format */
    size_t state_size; /* input and state may have 16 MiB together */
};

/* After `release`: hands over the connection. *fd is given (-1), also on failure: the library holds it until
 * it is taken, so nothing may be done with it any more: take it out of the loop before, and don't shut it
 * down. If the state comes back before it was sent, or it is this worker's again without a master, it comes
 * back by `take`. -EPERM: nobody is there to take it, and *fd is left as it was; -EMSGSIZE (the same);
 * -ENOMEM: it was closed. */
GAPLESS_API int gapless_offer(struct gapless_state *state, int *fd,
    const struct gapless_connection *connection, struct gapless_error *error);

/* Connections that were offered and that nobody has taken yet. A worker isn't done before there is none. */
GAPLESS_API size_t gapless_offers(const struct gapless_state *state);

#ifdef __cplusplus
}
#endif

#endif
