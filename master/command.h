/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An operator's own command: the check of a new version, a smoke test, a step of an upgrade. Runs in the
 * master's loop, which never waits for it.
 *
 * It runs as the service's workers do: their user, group, directory, umask, limits, environment (but for what
 * speaks of descriptors, which it isn't given); in a session and process group of its own, standard input is
 * /dev/null. What it prints goes line by line into the log (command_output.h); its last line is the reason
 * where it fails.
 *
 * It has ended when its process has exited and its output is at the end, or 100 ms after the exit where
 * something else still holds the output. Whatever is in its process group then gets SIGKILL, as it does when
 * the time is over and when the master dies: nothing that it forked outlives it, unless it made a session or
 * group of its own. The group's leader is a copy of the master that sees to that, and is the command's
 * parent.
 *
 * Failures: what setting it up or execve(2) gave, ETIMEDOUT, ECANCELED (command_stop()), ECHILD (it ended
 * otherwise than with 0).
 */
#ifndef GAPLESS_MASTER_COMMAND_H
#define GAPLESS_MASTER_COMMAND_H

#include "ipc/error.h"

#include <stdint.h>

struct command;
struct config_service;
struct event_base;
struct master;

struct command_request {
    struct master *master;                /* its base alone is used */
    const struct config_service *service; /* lent; must outlive the command */
    char *const *argv;                    /* NULL-terminated; argv[0] by PATH as execvp(3) does; copied */
    char *const *env;                     /* NAME=VALUE, besides the service's; NULL-terminated or NULL */
    const char *what;                     /* for the log and the reason: "check", "step before switch 1" */
    int64_t timeout_ms;
    /* Told once, from the loop; the command may be freed in it. failure NULL: it ended with 0. */
    void (*done)(void *ctx, const struct error *failure);
    void *ctx;
};

/* NULL, with the error: there is no process (BLAME_SYSTEM). That it can't be executed is told by done(). */
struct command *command_start(const struct command_request *request, struct error *error);

/* SIGKILL to it and its group; done() is told when it is dead. One that has ended is left alone. */
void command_stop(struct command *command);

/* The same where it still runs, and nothing is told. Never waits: the loop reaps what isn't dead at once.
 * NULL is allowed. */
void command_free(struct command *command);

/* Before the base is freed: forgets what it would still have reaped. (When this process ends, the keeper
 * does.) All commands are freed by then. */
void command_forget_all(struct event_base *base);

#endif
