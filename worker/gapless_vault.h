/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vault: descriptors that gapless keeps for the service under names (memory files, connections, pipes …),
 * outside its workers. They outlive the worker that put them, however it ends, its generation, and gapless's
 * master; they go with the service, or when they are dropped. Every worker of the service sees the same
 * vault, those of an old generation too: who puts last has put.
 *
 *     gapless_vault_get(g, &(struct gapless_vault_request){"sessions", .callback = on_sessions}, &error);
 *     gapless_vault_wait(g, 1000, &error);      // at the start; later gapless_dispatch() calls it
 *
 *     on_sessions:  takes result->fds[0]; error ENOENT: there is none yet, make one and gapless_vault_put()
 * it
 *
 * Requests never wait. What became of one is told to its callback. A put or a drop is answered when it is
 * safe: whatever is killed after that, it has happened. One that fails has changed nothing, but for
 * ECONNRESET (gapless's master was restarted in between), EPIPE (the connection to it is lost) and what it
 * says that it could not save: with these it may have happened or not.
 *
 * Names have up to 255 bytes of printable ASCII without ':'. How much is kept, the operator says
 * (vault.entries, vault.bytes). A descriptor in the vault is a duplicate: a connection that is to be closed
 * is dropped there, too, or shut down. The rules of gapless.h hold: one thread at a time, 0 or a negative
 * errno value.
 */
#ifndef GAPLESS_VAULT_H
#define GAPLESS_VAULT_H

#include "gapless.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The most descriptors that a name can be given, and that can be got. */
#define GAPLESS_VAULT_DESCRIPTORS 64

struct gapless_vault_entry {
    const char *name;
    unsigned descriptors;
    uint64_t bytes; /* of the files among them */
};

/* What became of a request; lent for the time of the callback, what fds hold aside. */
struct gapless_vault_result {
    struct gapless_error error; /* code 0: done */
    const int *fds;             /* of a get: the callback's to close. They are close-on-exec */
    unsigned fd_count;
    const struct gapless_vault_entry *entries; /* of a list: one for each name; of a get: the one */
    unsigned entry_count;
};

/*
 * Called once for each request, from gapless_dispatch() or gapless_vault_wait(). It may make further
 * requests, but call neither of these, nor gapless_close(). error.code is ENOENT: nothing has the name;
 * EINVAL: a bad name; EDQUOT: a limit, whose key the message names; EMFILE: gapless or this process is out of
 * descriptors; E2BIG: the name has more than fit; or one of those above.
 */
typedef void (*gapless_vault_cb)(struct gapless *g, const struct gapless_vault_result *result, void *arg);

struct gapless_vault_request {
    const char *name;
    const int *fds; /* of a put: lent. What is kept are duplicates */
    unsigned fd_count;
    gapless_vault_cb callback; /* NULL: nobody wants to know, and what a get brings is closed */
    void *arg;
};

/* Puts 1 to GAPLESS_VAULT_DESCRIPTORS descriptors, all together, in place of what the name has; gets what it
 * has, which stays in the vault; drops it; lists all names. On failure nothing was asked for, and the
 * callback isn't called: -EPIPE, the connection is lost; -EINVAL, no name, or a wrong number of descriptors;
 * -EMFILE, -ENOBUFS, -ENOMEM. */
GAPLESS_API int gapless_vault_put(
    struct gapless *g, const struct gapless_vault_request *request, struct gapless_error *error);
GAPLESS_API int gapless_vault_get(
    struct gapless *g, const struct gapless_vault_request *request, struct gapless_error *error);
GAPLESS_API int gapless_vault_drop(
    struct gapless *g, const struct gapless_vault_request *request, struct gapless_error *error);
GAPLESS_API int gapless_vault_list(
    struct gapless *g, const struct gapless_vault_request *request, struct gapless_error *error);

/*
 * Waits until every request has been answered, at most timeout_ms: for the start, before gapless_ready() or
 * in the hooks `load` and `init` of gapless_state.h. All other messages of the master are handled after that.
 * 0, also where a request was answered with an error. -ETIMEDOUT: callbacks may come yet. -EPIPE, -EPROTO:
 * the connection is lost, and all callbacks have been told so.
 */
GAPLESS_API int gapless_vault_wait(struct gapless *g, int timeout_ms, struct gapless_error *error);

#ifdef __cplusplus
}
#endif

#endif
