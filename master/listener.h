/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A listener: an address that a service serves. An endpoint: the sockets through which a generation serves
 * it. In the shared tier all generations have one endpoint; in the others (steering.h) each has its own, and
 * the choice says which endpoint gets what is new.
 *
 *   listener ──┬── endpoint of generation 4   (chosen: gets what is new)
 *              ├── endpoint of generation 5   (joined: listens, gets nothing)
 *              └── endpoint of generation 3   (drains: finishes what it has)
 *
 * An endpoint has one socket for all workers of its generation, or one for each worker, or it has those that
 * the workers made themselves (capture). It is counted: each
 * generation that serves it holds a reference. With the last one its sockets are shut down, so that what
 * waits there moves to the others (ebpf), and closed; with its last endpoint the listener is gone. The open
 * files are shared with the workers: whoever must not lose what waits there looks first (endpoint_waiting).
 *
 * Runs in the master, knows no loop, blocks for nothing. The keeper holds a duplicate of each socket
 * (steering.store).
 */
#ifndef GAPLESS_MASTER_LISTENER_H
#define GAPLESS_MASTER_LISTENER_H

#include "ipc/error.h"
#include "ipc/fd.h"
#include "master/config.h"
#include "master/listener_socket.h"
#include "master/listener_spec.h"
#include "master/steering.h"
#include "master/unix_path_watch.h"

#include <stdbool.h>
#include <stdint.h>

struct waiting;

/* Whose a captured socket is. */
struct socket_owner {
    uint64_t worker; /* the id of its worker's process; 0: the socket is the master's own */
    unsigned index;  /* … and its number in the generation */
    pid_t pid;       /* the process that bound it: the worker's, or one that it forked */
    int number;      /* of the descriptor there */
    uint64_t cookie; /* SO_COOKIE */
};

struct endpoint_socket {
    uint64_t id; /* unique in the life of the main process; 0: none yet */
    int fd;      /* -1: none yet */
    bool placed; /* may be chosen */
    struct socket_owner owner;
};

struct endpoint {
    struct endpoint *next; /* of the same listener */
    struct listener *listener;
    unsigned references;
    uint64_t id;
    bool shared;     /* later generations have it, too */
    bool per_worker; /* sockets[i] is worker i's; else sockets[0] is everybody's */
    bool captured;   /* sockets are workers' own, in any order (listener_capture.h) */
    unsigned socket_count;
    struct endpoint_socket *sockets;
    unsigned row;              /* ebpf */
    struct listener_path path; /* Unix, bound at the public path; else zero */
    struct unix_path aside;    /* path tier; aside.path is empty where it isn't that */
    unsigned tag;              /* the tracker's (tracking.h); 0: not tracked */
    bool counted; /* … its connections are counted as they come and go; false: only looks tell */
};

/* As many are left over when several generations leave one after the other. */
#define LISTENER_FILLERS 4

struct listener {
    struct steering *steering;
    uint64_t id; /* unique in the life of the main process */
    struct listener_spec spec;
    char *bound; /* what it is bound to: host:port, a path, "" where that says nothing */
    struct listener_address address;
    enum steering_tier tier; /* of the group of sockets; shared: there is no group */
    char reason[512];        /* why it isn't a better tier; "": nothing had to be given up */
    unsigned cell;           /* ebpf */
    bool restored;           /* an earlier master has had it, and may have left names of a Unix socket */
    struct endpoint *endpoints;
    struct endpoint *active; /* gets what is new; NULL: nobody */
    struct endpoint *canary; /* gets `share` (of 2^32) of it, or NULL */
    uint32_t share;
    struct endpoint_socket **order; /* the group, as the kernel numbers it (bpf/classic.h) */
    unsigned order_count;
    struct endpoint_socket fillers[LISTENER_FILLERS]; /* cbpf: keep the others' numbers when one leaves */
};

struct listener_request {
    const struct listener_spec *spec;
    enum config_steering steering;
    unsigned
        per_worker; /* the most workers that there may be, each with a socket of its own; 0: one for all */
    const struct listener_source *source;
};

/* Opens an address, in the tier that was asked for, or with CONFIG_STEERING_AUTO the best one that works. Its
 * first endpoint has one reference, listens, and is chosen. Errors as listener_socket.h; where a tier was
 * asked for by name, why it can't be had. */
int listener_open(struct steering *steering, const struct listener_request *request,
    struct endpoint **ret_endpoint, struct error *error);

/* One more generation at the address: an endpoint with a reference that listens and isn't chosen, or, where
 * it asks for the shared tier and the active one is that, the same again. A change of the tier is carried
 * out. On failure the listener is as it was. */
int listener_join(struct listener *listener, const struct listener_request *request,
    struct endpoint **ret_endpoint, struct error *error);

/* From now on the active endpoint gets what is new, but for the canary's share (of 2^32; NULL and 0: none):
 * one store, one setsockopt(2) or one rename(2). Where the tier can't, nothing changes. active NULL: what is
 * new is refused where the tier can do that. 0, or why not: then nothing has changed. */
int listener_choose(struct listener *listener, struct endpoint *active, struct endpoint *canary,
    uint32_t share, struct error *error);

/* The socket of that worker, lent; made now if it has none. -errno. */
int endpoint_socket(struct endpoint *endpoint, unsigned worker, struct error *error);

/* The worker can serve: its socket may be chosen. Only for sockets of a worker's own that the master made;
 * else it may from the start, or from its listen(2) on. */
void endpoint_ready(struct endpoint *endpoint, unsigned worker);

/* The worker has been dead for too long: what waits at its own socket is given to the others, where the tier
 * can migrate and there are others. The socket listens again, and is chosen only once a worker is ready. */
void endpoint_abandon(struct endpoint *endpoint, unsigned worker);

/* Each of its sockets is a worker's own; else there is one for all. */
bool endpoint_has_own(const struct endpoint *endpoint);

/* How it is steered, for people: the tier's name. */
const char *endpoint_steering(const struct endpoint *endpoint);

/* Only the first `workers` workers' own sockets may be chosen. */
void endpoint_limit(struct endpoint *endpoint, unsigned workers);

/* Somebody has taken the path away: it is published again, unless another socket stands there. 0, or why not.
 */
int listener_path_lost(struct listener *listener, const struct unix_path_event *event, struct error *error);

/* Gives up the socket of a worker that has been scaled away. */
void endpoint_close_socket(struct endpoint *endpoint, unsigned worker);

/* What waits in the queues of its sockets: connections, or of Unix datagrams at least one. UDP has flows,
 * which are looked at otherwise: 0. What can't be known counts as one. */
unsigned endpoint_waiting(const struct endpoint *endpoint, struct waiting *waiting);
/* The same of the sockets that this worker accepts from: by its number, and the id of its process. */
unsigned endpoint_waiting_for(
    const struct endpoint *endpoint, unsigned worker, uint64_t process, struct waiting *waiting);

/* What waits at its sockets is moved to the active endpoint's; accept(2) fails at them from now on (EINVAL).
 * True where the tier can do that. Not for an endpoint that is chosen. */
bool endpoint_move_waiting(struct endpoint *endpoint);

struct endpoint *endpoint_ref(struct endpoint *endpoint);
/* NULL is allowed. */
void endpoint_unref(struct endpoint *endpoint);

/* ── a later master ── */

struct listener_kept {
    const struct listener_spec *spec;
    uint64_t id;
    enum steering_tier tier;
    const char *reason;
    unsigned cell;
};

struct endpoint_kept {
    uint64_t id;
    bool shared;
    bool per_worker;
    bool captured;
    unsigned socket_count;
    unsigned row;
    struct listener_path path;
    struct unix_path aside;
};

/* A listener without endpoints; it goes with its last one. NULL when out of memory. */
struct listener *listener_restore(struct steering *steering, const struct listener_kept *kept);
/* An endpoint without references: each generation takes one. NULL when out of memory. */
struct endpoint *endpoint_restore(struct listener *listener, const struct endpoint_kept *kept);
/* Of `kept` everything but the descriptor; *fd is taken. */
void endpoint_restore_socket(
    struct endpoint *endpoint, unsigned place, const struct endpoint_socket *kept, int *fd);
/* The group's order, by the sockets' ids; fillers are those that no endpoint has. 0, or -ENOMEM. */
int listener_restore_order(struct listener *listener, const uint64_t *ids, unsigned count);
/* Frees one that has no endpoints. */
void listener_free(struct listener *listener);

#endif
