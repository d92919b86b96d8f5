/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The digest (XXH3, 64 bits) of a regular file: known contents, told from others; no protection against
 * somebody who looks for a collision. Larger files than PIN_DIGEST_WHOLE (pin.h) by their ends. Waits for the
 * disk: for a process of its own.
 */
#ifndef GAPLESS_MASTER_PIN_DIGEST_H
#define GAPLESS_MASTER_PIN_DIGEST_H

#include "master/pin.h"

struct pin_digest {
    bool known; /* else it is no regular file, or couldn't be read to its end */
    uint64_t value;
    struct pin_identity identity; /* of what was read, once it was */
};

/* The file that an O_PATH descriptor of a regular file names, for reading; -1. */
int pin_digest_reopen(int fd);

/* Of `path` from `directory`, or, where it is "", of what that descriptor itself names. Opens nothing but
 * regular files. False as ret_digest->known. */
bool pin_digest_make(int directory, const char *path, struct pin_digest *ret_digest);

#endif
