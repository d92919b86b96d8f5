/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A keeper as a process of its own with fake masters under it, driven line by line. Every wait ends with the
 * failure of the test after WORLD_DEADLINE_MS.
 */
#ifndef GAPLESS_TESTS_KEEPER_WORLD_H
#define GAPLESS_TESTS_KEEPER_WORLD_H

#include <stdbool.h>
#include <sys/types.h>

#define WORLD_DEADLINE_MS 15000

struct world {
    pid_t keeper;  /* the process that was started; 0: none, or reaped */
    int listener;  /* where masters connect */
    int master_fd; /* the connection to the present one */
    pid_t master;  /* its pid, as it says itself */
    pid_t parent;  /* its parent's */
    unsigned came; /* descriptors that came through its exec */
    char line[512];
};

/* cmocka's set-up and tear-down: *state is a struct world. */
int world_set_up(void **state);
int world_tear_down(void **state);

/* Starts `prefix… THIS-BINARY keeper ARGUMENTS…` (both NULL-terminated, NULL for none). `prepare` runs in the
 * child before it is executed (NULL: nothing). */
void world_start(struct world *world, const char *const *prefix, const char *const *arguments,
    void (*prepare)(void *), void *argument);

/* Waits for the next master and its first line. */
void world_accept(struct world *world);

/* Waits for the next line and checks that it is the one, a printf format. */
void world_expect(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Waits for the next line, whatever it is. */
const char *world_next(struct world *world);

/* Sends a command; world_ask() returns the number of the answer. */
void world_tell(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
long world_ask(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* world_start() without anything, the first master, its empty store, Serving. */
void world_begin(struct world *world);

/* Waits for the keeper's end; its wait status. */
int world_end(struct world *world);

/* Waits until `condition` holds. */
void world_until(bool (*condition)(long), long argument, const char *what);

/* No process of that pid is left, not even a zombie. */
bool world_is_gone(long pid);
bool world_is_zombie(long pid);
bool world_is_stopped(long pid);

pid_t world_parent(long pid);

unsigned world_count_fds(pid_t pid);
/* The keeper comes to have so many: what it closes it may be about to. */
void world_expect_fds(const struct world *world, unsigned count);

/* What main() does when it is called as the keeper or the master; -1: it isn't. */
int world_main(int argc, char *argv[]);

#endif
