/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The digest (XXH3, 64 bits) of a regular file, made in steps: known contents, told from others; no
 * protection against somebody who looks for a collision. Larger files than PIN_DIGEST_WHOLE (pin.h) by their
 * ends.
 */
#ifndef GAPLESS_MASTER_PIN_DIGEST_H
#define GAPLESS_MASTER_PIN_DIGEST_H

#include "master/pin.h"

struct pin_digester;

struct pin_digest {
    bool known; /* else the file couldn't be read to its end */
    uint64_t value;
    struct pin_identity identity; /* of what was read, once it was */
};

/* The file that an O_PATH descriptor of a regular file names, for reading; -1. */
int pin_digest_reopen(int fd);

/* `path` from `directory`, or, where it is "", what that descriptor itself names. NULL: it is no regular file
 * that can be read. Opens nothing else. */
struct pin_digester *pin_digest_open(int directory, const char *path);

/* Reads so many bytes at most; false when it is done, and *ret_digest set. */
bool pin_digest_step(struct pin_digester *digester, size_t most, struct pin_digest *ret_digest);

/* NULL is allowed. */
void pin_digest_free(struct pin_digester *digester);

#endif
