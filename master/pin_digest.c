/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/pin_digest.h"

#include "ipc/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define CHUNK (256 << 10)

int pin_digest_reopen(int fd)
{
    char name[32];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    return open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

/* What is read next: past the middle of a large file. */
static off_t skip(off_t at, off_t size)
{
    off_t tail = size - PIN_DIGEST_END;
    return size > PIN_DIGEST_WHOLE && at >= PIN_DIGEST_END && at < tail ? tail : at;
}

static bool read_file(int fd, off_t size, XXH3_state_t *state)
{
    static char chunk[CHUNK];
    uint64_t head = (uint64_t)size;
    XXH3_64bits_update(state, &head, sizeof head);
    for (off_t at = 0; at < size;) {
        at = skip(at, size);
        off_t left = size - at;
        ssize_t n = pread(fd, chunk, left < CHUNK ? (size_t)left : CHUNK, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) /* it has shrunk meanwhile, or can't be read */
            return false;
        XXH3_64bits_update(state, chunk, (size_t)n);
        at += n;
    }
    return true;
}

bool pin_digest_make(int directory, const char *path, struct pin_digest *ret_digest)
{
    struct stat st;
    *ret_digest = (struct pin_digest){.known = false};
    /* By O_PATH first: to open a FIFO or a device may do something. */
    CLEANUP_FD int there = *path ? openat(directory, path, O_PATH | O_CLOEXEC) : fd_dup(directory);
    if (there < 0 || fstat(there, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    CLEANUP_FD int fd = pin_digest_reopen(there);
    XXH3_state_t *state = fd < 0 ? NULL : XXH3_createState();
    if (state && XXH3_64bits_reset(state) == XXH_OK && read_file(fd, st.st_size, state))
        *ret_digest = (struct pin_digest){
            .known = true, .value = XXH3_64bits_digest(state), .identity = pin_identity_of(fd)};
    XXH3_freeState(state);
    return ret_digest->known;
}
