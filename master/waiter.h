/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Operators that wait: a request of the admin socket that is answered later, when what it waits for has
 * ended. Made and filled by requests.c; what services tell (requests.h) is told on to those whom it concerns.
 */
#ifndef GAPLESS_MASTER_WAITER_H
#define GAPLESS_MASTER_WAITER_H

#include "ipc/error.h"
#include "master/admin.h"

#include <stdbool.h>
#include <stdint.h>

struct config;
struct dry_run;
struct master;
struct service;
struct validation;

/* Exit codes of a verb. */
enum { CODE_DONE, CODE_FAILED, CODE_USAGE, CODE_REFUSED };

/* What a waiter waits for. */
enum awaits {
    AWAITS_UPGRADE,  /* to that generation */
    AWAITS_WAY_BACK, /* from it: that it doesn't succeed is what is wanted */
    AWAITS_RESTART,  /* of its workers, one by one */
};

/* … of one service. */
struct awaited {
    struct awaited *next;
    struct waiter *waiter;
    struct master *master;
    enum awaits what;
    char *service;
    uint64_t generation;
    struct dry_run *dry_run;       /* instead */
    struct validation *validation; /* before it begins */
    struct config *config;         /* a reference: of what is validated, or NULL */
};

struct waiter {
    struct waiter *next;
    struct admin_request *request; /* NULL: the client has gone */
    bool stop;                     /* waits for the end of everything */
    bool several;                  /* services are concerned: each reason names its own */
    bool held;                     /* not to be answered yet: more may have to be awaited */
    struct awaited *awaited;
    uid_t uid; /* who asks */
    pid_t pid;
    int64_t since_ms;
    int code;
    char reason[1024];
};

/* NULL when out of memory. */
struct waiter *waiter_new(struct master *master, struct admin_request *request);
void waiter_free(struct master *master, struct waiter *waiter);

/* How something of that service has ended: the worst code counts. */
void waiter_settle(struct waiter *waiter, const char *service, int code, const char *reason);

/* Answers, and frees it, where it waits for nothing more. */
void waiter_answer(struct master *master, struct waiter *waiter);

/* One thing more to wait for. NULL when out of memory: it has been settled. */
struct awaited *waiter_await(
    struct waiter *waiter, struct service *service, enum awaits what, uint64_t generation);

/* The first that is of these generations; dry runs are of none. */
struct awaited **waiter_find(
    struct waiter *waiter, const struct service *service, uint64_t first, uint64_t last);
void waiter_forget(struct awaited **link);

/* A line of progress for it alone; not where the client has gone. */
void waiter_progress(
    struct waiter *waiter, const struct service *service, const char *phase, const char *text);

#endif
