/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The copy of the master that looks at a new version (validate.h): whatever may wait for a disk, a name
 * service or another process. First as the master (memory, what is pinned), then as the service's user.
 *
 * SEQPACKET, to the master alone: what is being looked at, before each look; what was found; at last VALID or
 * FAILED.
 */
#ifndef GAPLESS_MASTER_VALIDATE_CHECKS_H
#define GAPLESS_MASTER_VALIDATE_CHECKS_H

#include "master/validate.h"

enum validate_packet_kind {
    VALIDATE_FOUND_NOTE,
    VALIDATE_FOUND_WARNING,
    VALIDATE_LOOKING, /* what is waited for from now on: "the memory" */
    VALIDATE_VALID,
    VALIDATE_FAILED,
};

struct validate_packet {
    enum validate_packet_kind kind;
    struct error error; /* the text is its message */
};

/* The process. `fd` is lent; what isn't needed is closed. */
_Noreturn void validate_checks(const struct validate_request *request, int fd);

#endif
