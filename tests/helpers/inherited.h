/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a server does that knows sockets by LISTEN_FDS and NOTIFY_SOCKET, and nothing of gapless: for the
 * servers of the tests. What can't be done ends the program.
 */
#ifndef GAPLESS_TESTS_INHERITED_H
#define GAPLESS_TESTS_INHERITED_H

#define INHERITED_FIRST 3
#define INHERITED_MAX 16

/* How many sockets were passed to this process, from INHERITED_FIRST on; none is an error. */
unsigned inherited_count(void);

/* READY=1, where there is a NOTIFY_SOCKET. */
void inherited_say_ready(void);

/* An environment variable that holds a number, such as GAPLESS_GENERATION; 0 where it isn't set. */
unsigned inherited_number(const char *variable);

#endif
