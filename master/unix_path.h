/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The steering tier "path": each generation of a service has a Unix socket of its own, at the same public
 * path. Not for abstract names. Runs in the master, of any user who may write to the path's directory.
 *
 *   unix_path_clean     once, before the first bind: what a crash left behind
 *   unix_path_bind      the socket gets a file beside the public path, with a private name (the "keep" link)
 *   unix_path_publish   the public path is this socket: one link(2) or rename(2), the way back too
 *   unix_path_watch     somebody took the public name away: publish again (unix_path_watch.h)
 *   unix_path_withdraw  both names go, the public one only if it still is this socket
 *
 * A switch is one rename(2) over the public name: a client finds the old file or the new one, and both
 * sockets are open, so connect(2) fails neither with ENOENT nor with ECONNREFUSED. What is connected, or
 * waits to be accepted, stays with its generation, and so does a datagram socket that is connected.
 *
 * Two sockets can have the same name for getsockname(2), which servers compare with their configuration: the
 * kernel records the text given to bind(2). So the socket is bound to the text of the public path in a child
 * whose root is a private directory. That takes CAP_SYS_CHROOT, or user namespaces (the child makes one).
 * Where neither is to be had the socket is bound to the private name, and `named_public` is false.
 *
 * Names beside the public path /DIRECTORY/NAME, NAME cut to 40 bytes:
 *   .NAME.gapless-PID.ID        the private name
 *   .NAME.gapless-PID.ID.new    the same, for the moment of a switch
 *   .NAME.gapless-PID-ID        the private directory, while a socket is bound
 *
 * A struct unix_path is plain data without pointers. A later master that has kept the descriptors fills one
 * from what it saved and goes on with unix_path_mend(). The device and the inode are this socket's as long as
 * the socket is open: withdraw before the last descriptor is closed.
 */
#ifndef GAPLESS_MASTER_UNIX_PATH_H
#define GAPLESS_MASTER_UNIX_PATH_H

#include "ipc/error.h"
#include "master/listener_spec.h"
#include "master/unix_file.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define UNIX_PATH_KEEP_MAX 88

struct unix_path {
    char path[UNIX_FILE_PATH_MAX]; /* the public path */
    char keep[UNIX_PATH_KEEP_MAX]; /* the private name, a file in the same directory */
    dev_t device;
    ino_t inode;
    bool named_public; /* getsockname(2) says the public path; false: the private one */
};

/* What publishing may replace, besides a socket file that nobody has the socket of any more. */
struct unix_path_over {
    const struct unix_path *const *ours; /* the sockets of these: the generations of the same service */
    unsigned count;
    bool strangers; /* whoever's socket is there: to restore what was published (unix_path_watch.h) */
};

/* Removes what an earlier instance of the program left beside the path: private names whose socket nobody
 * has, and private directories that nobody works in, of our user or of the owner in `spec`. What anybody
 * still has (a keeper, another instance) stays, whether it listens or not. Returns how many, or -errno where
 * the directory can't be read; then nothing has been removed, and nothing else is the worse for it. */
int unix_path_clean(const struct listener_spec *spec, struct error *error);

/* Binds the socket `fd` (of spec->type, not bound) aside: it has a private name, mode and owner are as in
 * `spec`, and the public path is as it was. `id` is unique among the sockets of this process. It doesn't
 * listen; the caller sees to that before publishing. On failure no name is left; the socket may be bound all
 * the same and is of no further use. Errors name the listener: EACCES, EROFS (the directory isn't writable),
 * EPERM (no hard links there, or none of a file of another owner), EEXIST (the private name is taken), ENOENT
 * (directory, user) … */
int unix_path_bind(
    int fd, const struct listener_spec *spec, uint64_t id, struct unix_path *ret_path, struct error *error);

/* Makes the public path this socket. `over` says what may be replaced; NULL, as for a first generation:
 * nothing that is alive. Publishing what is published is allowed and does nothing. Any failure leaves the
 * public path as it was: EADDRINUSE (a live socket that is none of `over`), EEXIST (no socket), ENOENT or
 * ESTALE (the private name is gone or is another file's), EACCES … */
int unix_path_publish(const struct unix_path *path, const struct unix_path_over *over, struct error *error);

/* Sees to it that the private name is there, by way of the public one if that is this socket: something may
 * have tidied up. 0; -ENOENT: neither is; -ESTALE: the private name is another file's; -EINVAL: `keep` is no
 * private name of that path. */
int unix_path_mend(const struct unix_path *path, struct error *error);

/* Removes the private name, and the public one if it still is this socket. What can't be removed stays, for a
 * later unix_path_clean(). */
void unix_path_withdraw(const struct unix_path *path);

#endif
