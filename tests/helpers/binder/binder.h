/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * binder: a server that binds its own addresses and knows nothing of gapless, in the ways that servers do
 * that are hard to capture. One thread, HTTP/1.1, static, so that nothing can be hooked in it. TERM ends it
 * at once.
 *
 *     binder [OPTIONS] ADDRESS…          HOST:PORT, [HOST]:PORT or /PATH
 *       --version-name NAME    what it answers: "NAME generation N\n", and N as X-Generation (one)
 *       --record PREFIX        a file as the exact server's (tests/helpers/exact): accepted, open, requests,
 * answers
 *       --blocking             waits in accept(), one connection after the other (else: epoll, non-blocking)
 *       --backlog N            (511)
 *
 *     how it binds:
 *       --many N               each address N times, with SO_REUSEPORT, and serves all
 *       --epoll-first          its sockets are in the epoll set before they are bound
 *       --signals US           a signal so often until it has its sockets; --restart: with SA_RESTART
 *       --uid UID              changes to that user first
 *       --undumpable           can't be read by others of its user (PR_SET_DUMPABLE 0)
 *       --reuseport, --v6only  those options of its sockets
 *       --mode OCTAL           changes the mode of its paths
 *       --unlink               removes its paths first, and when TERM comes
 *       --inherited            not at all: it takes the sockets of LISTEN_FDS, for comparison
 *       --thread               in a thread that isn't the leader
 *       --fork, --vfork        in a child; in a program that a child executes
 *       --processes N          in each of N children; one that is killed is started again
 *
 *     what it does besides:
 *       --rebind               USR1: closes its sockets and opens them anew
 *       --graceful             USR2: closes its sockets and goes on with the connections that it has
 *       --deaf                 binds and never listens
 *       --mute                 listens and accepts nothing
 *       --crash MS             ends with 3 so long after listen()
 *       --killed N             N times, children that bind in a loop are killed in the middle of it, first
 *       --calls FILE           makes calls that are none of gapless's business, or wrong, and writes how each
 * ended: the same in every run, captured or not. Its own port must be the first address's; the next five are
 * used as well
 *       --calls-only           ends then
 *       --rounds N             how often it makes each call of which there is nothing more to say (100)
 */
#ifndef GAPLESS_TESTS_BINDER_H
#define GAPLESS_TESTS_BINDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>

#define BINDER_SOCKETS_MAX 1024

struct binder_address {
    const char *text;
    struct sockaddr_storage address;
    socklen_t size;
};

struct binder_options {
    const char *version;
    const char *record;
    const char *calls;
    bool blocking, epoll_first, restart, undumpable, reuseport, v6only, unlink_path, rebind, graceful,
        inherited, deaf, mute, calls_only;
    bool in_thread, in_child, in_program;
    unsigned backlog, many, signals_us, uid, mode, processes, crash_ms, killed, rounds;
    struct binder_address *addresses;
    unsigned address_count;
};

extern struct binder_options binder;

/* ── open.c: the sockets; what can't be done ends the program ── */

struct binder_address binder_parse_address(const char *text);

/* A socket for an address, with the options and not bound yet. */
int binder_make_socket(const struct binder_address *address);

/* Makes, binds and listens, each address as often as it is asked for. `made` is called for each socket before
 * it is bound; the sockets, ret_fds, are `many` for each address. */
unsigned binder_open(int ret_fds[BINDER_SOCKETS_MAX], void (*made)(int fd));

/* Children that bind and listen at the first address are killed, at any moment of it. */
void binder_kill_children(unsigned times);

/* ── serve.c ── */

void binder_open_record(void);

void binder_start_signals(void);

/* Opens the sockets and serves them for ever. */
void binder_serve(void);

/* ── calls.c ── */

/* Before there is any socket of its own; then with them. */
void binder_call_before(FILE *report);
void binder_call_after(FILE *report);

#endif
