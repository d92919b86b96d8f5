/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs a BPF iterator that writes nothing: what it found stands in maps.
 */
#ifndef GAPLESS_BPF_ITERATOR_H
#define GAPLESS_BPF_ITERATOR_H

#include "ipc/error.h"

/* Runs it to its end; `what` begins the message of an error. `link` is lent. */
int iterator_run(int link, const char *what, struct error *error);

#endif
