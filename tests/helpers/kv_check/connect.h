/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef GAPLESS_TESTS_KV_CHECK_CONNECT_H
#define GAPLESS_TESTS_KV_CHECK_CONNECT_H

/* A connection to HOST:PORT (numbers) or unix:PATH. -1: it was refused; why is said on standard error. An
 * address that is none ends the program with 64. */
int connect_to(const char *address);

#endif
