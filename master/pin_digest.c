/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/pin_digest.h"

#include "ipc/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define CHUNK (64 << 10)

struct pin_digester {
    int fd;
    off_t at, size;
    XXH3_state_t *state;
};

int pin_digest_reopen(int fd)
{
    char name[32];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    return open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

struct pin_digester *pin_digest_open(int directory, const char *path)
{
    struct stat st;
    /* By O_PATH first: to open a FIFO or a device may do something. */
    CLEANUP_FD int there = *path ? openat(directory, path, O_PATH | O_CLOEXEC) : fd_dup(directory);
    if (there < 0 || fstat(there, &st) < 0 || !S_ISREG(st.st_mode))
        return NULL;
    CLEANUP_FD int fd = pin_digest_reopen(there);
    struct pin_digester *digester = fd < 0 ? NULL : calloc(1, sizeof *digester);
    if (!digester)
        return NULL;
    digester->state = XXH3_createState();
    if (!digester->state || XXH3_64bits_reset(digester->state) != XXH_OK) {
        digester->fd = -1;
        pin_digest_free(digester);
        return NULL;
    }
    digester->fd = fd_take(&fd);
    digester->size = st.st_size;
    uint64_t size = (uint64_t)st.st_size;
    XXH3_64bits_update(digester->state, &size, sizeof size);
    /* More is read ahead, while the loop does something else. */
    posix_fadvise(digester->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return digester;
}

/* What is read next: past the middle of a large file. */
static off_t skip(const struct pin_digester *digester)
{
    off_t tail = digester->size - PIN_DIGEST_END;
    return digester->size > PIN_DIGEST_WHOLE && digester->at >= PIN_DIGEST_END && digester->at < tail
               ? tail
               : digester->at;
}

bool pin_digest_step(struct pin_digester *digester, size_t most, struct pin_digest *ret_digest)
{
    char chunk[CHUNK];
    for (size_t done = 0; done < most && digester->at < digester->size;) {
        digester->at = skip(digester);
        off_t left = digester->size - digester->at;
        ssize_t n = pread(digester->fd, chunk, left < CHUNK ? (size_t)left : CHUNK, digester->at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) { /* it has shrunk meanwhile, or can't be read */
            *ret_digest = (struct pin_digest){.known = false};
            return false;
        }
        XXH3_64bits_update(digester->state, chunk, (size_t)n);
        digester->at += n;
        done += (size_t)n;
    }
    if (digester->at < digester->size)
        return true;
    *ret_digest = (struct pin_digest){.known = true,
        .value = XXH3_64bits_digest(digester->state),
        .identity = pin_identity_of(digester->fd)};
    return false;
}

void pin_digest_free(struct pin_digester *digester)
{
    if (!digester)
        return;
    fd_close(&digester->fd);
    XXH3_freeState(digester->state);
    free(digester);
}
