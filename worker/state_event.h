/* SPDX-License-Identifier: BSD-2-Clause */
/* What libgapless_event needs of libgapless beside its API. Not installed; both are of one version. */
#ifndef GAPLESS_WORKER_STATE_EVENT_H
#define GAPLESS_WORKER_STATE_EVENT_H

#include "worker/gapless_state.h"

/* What belongs to the binding beside the server's hooks. Lent as long as the state lives. */
struct state_listeners {
    /* The listeners accept and connections are read, or not, from now on. */
    int (*accept)(bool on, void *arg, struct gapless_error *error);
    /* Another has the state now: the binding's connections are offered, and the listeners accept where
     * somebody here offers what comes still. Called before the server's own. */
    void (*release)(bool offers, void *arg);
    /* False: the connection isn't the binding's, and *fd is left as it was. NULL: it takes none. */
    bool (*take)(const struct gapless_connection *connection, int *fd, void *arg);
    /* The server has offered a connection: what is to be polled may be another. NULL: nobody polls. */
    void (*offered)(void *arg);
    void *arg;
};

/* The state that belongs to g; NULL: it has none, or g is NULL. */
GAPLESS_API struct gapless_state *gapless_state_of(const struct gapless *g);
GAPLESS_API void gapless_state_set_listeners(
    struct gapless_state *state, const struct state_listeners *listeners);

#endif
