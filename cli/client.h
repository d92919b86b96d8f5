/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A connection to a master: one request, and the replies to it (ipc/admin.proto). Runs in the process of a
 * verb, and waits: for the master, up to a time, and for Ctrl-C.
 */
#ifndef GAPLESS_CLI_CLIENT_H
#define GAPLESS_CLI_CLIENT_H

#include "ipc/admin.pb-c.h"
#include "ipc/error.h"

/* Largest reply, in bytes: a status of some hundred thousand workers. */
#define CLIENT_REPLY_MAX (64u << 20)

struct client;

/* Which master is meant; both may be NULL. */
struct client_target {
    const char *admin; /* --admin */
    const char *name;  /* --name */
};

/* Connects to the master that is meant: by --admin, by --name, by GAPLESS_ADMIN, or the only one that runs.
 * Errors: -ENOENT (none is there), -EACCES (it is another user's), -ENOTUNIQ (several are running; the
 * message lists them in lines of their own), -EINVAL and -ENAMETOOLONG (what was given is not a path or a
 * name), and others. */
int client_open(const struct client_target *target, struct client **ret_client, struct error *error);

/* NULL is allowed. */
void client_free(struct client *client);

/* The exit code of a verb whose connection failed with this (negative) error. */
int client_exit_code(int r);

/* From here on Ctrl-C (INT), TERM and HUP end a client_receive() with -EINTR instead of the process. */
int client_catch_signals(struct client *client, struct error *error);

/* Sends the request. 0 also where the master has already hung up: its reason is then the reply. */
int client_send(struct client *client, const Gapless__Admin__Request *request, struct error *error);

/* The next reply, which is the caller's (free_unpacked). timeout_ms: -1 waits for as long as it takes.
 * Errors: -EPIPE (the connection ended), -ETIMEDOUT, -EINTR, -EBADMSG and -EMSGSIZE (that is no master). */
int client_receive(
    struct client *client, int timeout_ms, Gapless__Admin__Reply **ret_reply, struct error *error);

#endif
