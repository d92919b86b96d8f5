/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Capture: a worker that binds its own addresses and knows nothing of gapless. Its bind(2) and listen(2) wait
 * for the master (filter.h), which makes the worker's own socket a member of the listener's group
 * (listener_capture.h) while the worker waits, and then says that it was done.
 *
 *   bind    the socket gets what it needs to share the address, and is bound
 *   listen  the socket's duplicate is the generation's endpoint, is tracked, listens, and may be chosen
 *   unlink, rename of the service's Unix paths are answered and not done: the name is the next generation's
 *
 * A worker is ready when it listens at each of the service's listeners. Where these aren't named, when it
 * listens at every address of the generation that serves, or has called no listen(2) for a moment.
 *
 * Where the worker's socket can't be a member (a listener in the shared tier, a second bind of a Unix path),
 * the master's socket is put in its place.
 *
 * Runs in the master's loop. Every call is answered in the turn in which it is received. It is received into
 * memory that the keeper has, too: a later master finds one that wasn't answered, and does it again, which
 * does what doing it once does. What a call has changed is saved before it is answered.
 */
#ifndef GAPLESS_MASTER_CAPTURE_CAPTURE_H
#define GAPLESS_MASTER_CAPTURE_CAPTURE_H

#include "master/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena;
struct capture;
struct generation;
struct service;
struct worker;
struct Gapless__State__Worker;

/* What the workers bind themselves is captured. */
bool capture_is_wanted(const struct config_service *settings);

/* The calls of the service's workers that wait for an answer: bits of enum capture_calls (filter.h), 0: none.
 * Those that could take a Unix path away are among them also where the sockets are passed on. */
unsigned capture_calls(const struct config_service *settings);

/* Whether the master opens that listener before a worker asks for it: not where the workers must bind it
 * themselves, or those of the generation that serves have done so. */
bool capture_opens_in_advance(
    const struct service *service, const struct config_service *settings, size_t listener);

/* The worker's filter is in force: *notify_fd is taken, kept for a later master, and answered from now on. 0
 * or -ENOMEM. */
int capture_begin(struct worker *worker, int *notify_fd);

/* The worker has exited. NULL is allowed. */
void capture_free(struct capture *capture);

/* The keeper's entry isn't needed any more. */
void capture_forget(const struct worker *worker);

/* What is known of why the worker isn't ready, or has ended before it was: words to go behind "…: ", or "".
 */
const char *capture_explain(const struct worker *worker);

/* The same of one that is alive and isn't ready: "it doesn't listen at tcp:80". */
void capture_describe_missing(const struct worker *worker, char *text, size_t size);

/* It listens somewhere, and will elsewhere. */
bool capture_is_partial(const struct worker *worker);

/* Connections may have been given to it, be it ready or not. */
bool capture_serves(const struct worker *worker);

/* It listens everywhere: as if it had said that it is ready. */
bool capture_has_listened(const struct worker *worker);

/* ── a later master ── */

void capture_save(const struct capture *capture, struct arena *arena, struct Gapless__State__Worker *ret);

/* Takes up where the last master stopped, with the descriptor from the keeper's store. */
void capture_restore(struct worker *worker, const struct Gapless__State__Worker *from);

/* Everything else is restored: what was being answered is answered. */
void capture_resume(struct worker *worker);

#endif
