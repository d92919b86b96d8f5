/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The sd_notify(3) protocol, as a worker speaks it: one datagram of NAME=VALUE lines. A pure parser.
 */
#ifndef GAPLESS_MASTER_NOTIFY_H
#define GAPLESS_MASTER_NOTIFY_H

#include "ipc/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longest datagram that is read; a longer one is refused. systemd reads 4096. */
#define NOTIFY_MESSAGE_MAX 4096

struct notify_message {
    bool ready;     /* READY=1 */
    bool stopping;  /* STOPPING=1 */
    bool reloading; /* RELOADING=1 */
    bool watchdog;  /* WATCHDOG=1 */
    bool trigger;   /* WATCHDOG=trigger */
    bool has_watchdog_usec;
    uint64_t watchdog_usec; /* WATCHDOG_USEC=, 0: none any more; what is no number isn't there */
    int errno_value;        /* ERRNO=, 0 where there is none */
    bool fdstore;           /* FDSTORE=1 */
    bool fdstoreremove;     /* FDSTOREREMOVE=1 */
    bool fdpoll_off;        /* FDPOLL=0 */
    bool has_fdname;        /* FDNAME=; the first one counts */
    char fdname[257];       /* one longer than a name may be, and cut there: too long all the same */
    char status[256];       /* STATUS=, cut to fit; "" where there is none */
};

/* Parses a datagram. Names that it doesn't know are skipped. -EBADMSG (BLAME_PEER): a NUL inside, no text at
 * all. */
int notify_parse(const char *data, size_t size, struct notify_message *ret_message, struct error *error);

#endif
