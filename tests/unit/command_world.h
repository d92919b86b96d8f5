/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A loop, a service and a place for the log, for the tests of command and steps. The teardown fails if a
 * child or a descriptor is left.
 */
#ifndef GAPLESS_TESTS_UNIT_COMMAND_WORLD_H
#define GAPLESS_TESTS_UNIT_COMMAND_WORLD_H

#include "ipc/error.h"
#include "master/command.h"
#include "master/master.h"

#include <errno.h>
#include <event2/event.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_MS 20000

struct command_world {
    struct master master;
    struct config_service service;
    char directory[64];
    char file[96]; /* DIRECTORY/file, which anybody may write */
    char log[256 << 10];
    int log_fd, stderr_fd;
    unsigned fds;
    struct command *command;
    unsigned told; /* calls of done() */
    bool failed;
    struct error failure;
    unsigned turns; /* of the loop */
};

int command_world_setup(void **state);
int command_world_teardown(void **state);

/* command_request.done: keeps what is told, frees the command. */
void world_done(void *ctx, const struct error *failure);

/* Starts `sh -c SCRIPT` as "check". */
void world_start(struct command_world *world, const char *script, int64_t timeout_ms);

/* Turns the loop until *count is so many; fails behind DEADLINE_MS. */
void world_until(struct command_world *world, const unsigned *count, unsigned many);

/* Both, until it is told. */
void world_run(struct command_world *world, const char *script);

/* Turns the loop until there is something in world->file, and gives its content, the world's. */
const char *world_file(struct command_world *world);

/* What was logged so far, in world->log. */
const char *world_log(struct command_world *world);
bool world_logged(struct command_world *world, const char *text);

/* What is left behind from now on comes to this process. */
void world_adopts(struct command_world *world);

/* Waits for all of that to end, by SIGKILL. Returns how many there were. */
int world_buries(struct command_world *world);

#endif
