/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The process that writes the history: a copy of the master that holds a socket and the file alone. It may
 * wait for the disk for ever; the master never does.
 *
 * SEQPACKET. From the writer: first OPENED or, as its last packet, FAILED. To the writer: a record each
 * packet. From the writer, for each: WRITTEN or, as its last packet, FAILED. It ends when the other side is
 * closed and it has written everything that was sent.
 */
#ifndef GAPLESS_MASTER_HISTORY_WRITER_H
#define GAPLESS_MASTER_HISTORY_WRITER_H

#include "ipc/error.h"
#include "master/history_file.h"

#include <stdint.h>

enum history_reply_kind { HISTORY_OPENED, HISTORY_WRITTEN, HISTORY_WRITE_FAILED };

struct history_reply {
    enum history_reply_kind kind;
    uint64_t number;              /* of the last record in the file */
    struct history_repair repair; /* of OPENED */
    struct error error;           /* of FAILED */
};

struct history_packet {
    uint64_t number;
    char line[]; /* NUL-terminated */
};

/* The process. `fd` is lent; everything else is closed. */
_Noreturn void history_writer(int fd, const char *path, uint64_t limit);

#endif
