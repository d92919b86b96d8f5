/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the parts of capture share: capture.c (a worker's notifications), bind.c and listen.c, look.c (which
 * socket), paths.c (names of Unix sockets). Nobody else includes it.
 */
#ifndef GAPLESS_MASTER_CAPTURE_INTERNAL_H
#define GAPLESS_MASTER_CAPTURE_INTERNAL_H

#include "ipc/error.h"
#include "master/capture/call.h"
#include "master/capture/match.h"
#include "master/listener.h"
#include "master/worker.h"

#include <event2/event.h>

/* Sockets of a worker that are bound to one of our addresses and don't listen yet. More than that are
 * forgotten, the oldest first: their listen(2) is none of ours then. */
#define CAPTURE_BOUND_MAX 1024

struct service;

struct capture_bound {
    uint64_t cookie;
    pid_t pid; /* whose descriptor `number` it is */
    int number;
    uint64_t given; /* id of the endpoint whose socket was put in its place; else 0 */
};

/* A process of the worker, not its first, that has bound a socket. */
struct capture_binder {
    struct capture_binder *next;
    struct capture *capture;
    pid_t pid;
    int pidfd;
    struct event *event; /* it has ended */
};

struct capture {
    struct worker *worker;
    struct generation *generation;         /* the worker's */
    const struct config_service *settings; /* the generation's */
    struct capture_binder *binders;
    int notify_fd;
    struct event *readable;
    struct event *quiet; /* no listen(2) for a moment */
    struct capture_bound *bound;
    size_t bound_count;
    struct event *look; /* whether the worker has its sockets still */
    uint64_t *given;    /* ids of endpoints whose socket it has been given, and listens at */
    size_t given_count;
    struct capture_inbox *inbox;
    int inbox_fd;
    bool effective;       /* the call that is being answered changes what is to be kept */
    uint64_t replayed;    /* id of the one that an earlier master received; 0: none */
    struct error failure; /* why it won't be ready; code 0: nothing is known */
};

/* A call that has been looked into. */
struct capture_socket {
    pid_t process;
    int number;
    int fd; /* a duplicate, the owner's */
    int type;
    uint64_t cookie;
    struct listener_address address; /* that it is to have, or has */
};

/* look.c */
/* 0, or the errno of a call that the kernel refuses as well, or that can't be looked into. */
int capture_look_into(const struct capture_call *call, struct capture_socket *ret_socket);
/* The errno says that it can't be; in words. */
bool capture_is_hidden(int code);
void capture_say_hidden(const struct capture_call *call, struct error *ret_error);
/* Whose address it is; NULL: nobody's. */
struct listener *capture_listener_at(const struct service *service, const struct capture_socket *socket);
/* What the generation's workers have there; NULL: nothing. */
struct endpoint *capture_endpoint_at(const struct generation *generation, const struct listener *listener);

/* bind.c, listen.c */
void capture_handle_bind(struct capture *capture, const struct capture_call *call);
void capture_handle_listen(struct capture *capture, const struct capture_call *call);
/* The socket, bound, listens from now on (or gets datagrams). 0 or -errno. */
int capture_enlist(
    struct capture *capture, const struct capture_socket *socket, int backlog, struct error *error);
/* A socket that was taken when it was bound listens from now on. */
int capture_finish(
    struct capture *capture, struct endpoint *endpoint, unsigned place, int backlog, struct error *error);
/* The endpoint has it from now on: 0 or -errno. */
int capture_take(struct capture *capture, const struct capture_socket *socket, struct endpoint *endpoint,
    unsigned *ret_place, struct error *error);
/* What the master has opened for the listener, for this generation; NULL: nothing. */
struct endpoint *capture_opened(const struct capture *capture, size_t listener);
/* Puts the endpoint's socket in the place of the worker's, and answers. */
void capture_give(struct capture *capture, const struct capture_call *call,
    const struct capture_socket *socket, struct endpoint *endpoint);

/* paths.c */
/* A Unix path listener of the service that the address is, or -1. */
int capture_path_of(
    const struct capture *capture, const struct capture_call *call, const struct listener_address *address);
void capture_handle_path_bind(struct capture *capture, const struct capture_call *call,
    const struct capture_socket *socket, size_t listener);
void capture_handle_unlink(struct capture *capture, const struct capture_call *call);
void capture_handle_rename(struct capture *capture, const struct capture_call *call);

/* capture.c */
void capture_watch_binder(struct capture *capture, pid_t pid);
/* Gives up sockets of the worker that it has closed. */
void capture_look(struct capture *capture);
/* It listens at the endpoint's socket. */
void capture_add_given(struct capture *capture, uint64_t endpoint);
/* The call changes something. */
void capture_will(struct capture *capture);
/* The answer, once what has changed is saved. `code` 0: done. */
void capture_did(struct capture *capture, const struct capture_call *call, int code);
/* The same; the worker fails with `why`, unless it is ready: then it is logged. */
void capture_refuse(
    struct capture *capture, const struct capture_call *call, int code, const struct error *why);
struct capture_bound *capture_find_bound(const struct capture *capture, uint64_t cookie);
void capture_add_bound(struct capture *capture, const struct capture_bound *bound);
void capture_remove_bound(struct capture *capture, uint64_t cookie);
/* Something listens that didn't. */
void capture_listens(struct capture *capture);

#endif
