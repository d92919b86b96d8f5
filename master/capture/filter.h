/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The seccomp filter of a captured worker: its bind(2) and listen(2) wait until the master has answered
 * (seccomp_unotify(2)). Compiled once in the master by libseccomp, installed in the child by seccomp(2)
 * itself, since libseccomp 2.5 doesn't know SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: without that flag a
 * worker with a timer signal begins the same call again and again, and no answer ever reaches it.
 *
 * It stays in force through fork(2) and execve(2), for as long as the process lives. With the last descriptor
 * of the notifications closed, each of these calls fails with ENOSYS.
 *
 * Who receives: the kernel's struct seccomp_notif may be larger than the one that this was built with, and
 * must be all zero before each receive. SECCOMP_GET_NOTIF_SIZES tells how large.
 */
#ifndef GAPLESS_MASTER_CAPTURE_FILTER_H
#define GAPLESS_MASTER_CAPTURE_FILTER_H

#include "ipc/error.h"

#include <linux/filter.h>
#include <stdbool.h>

/* Which calls wait. The instructions are the filter's own. */
struct capture_filter {
    struct sock_fprog program;
};

enum capture_calls {
    CAPTURE_SOCKETS = 1, /* bind and listen */
    CAPTURE_PATHS =
        2, /* unlink, unlinkat, rename, renameat and renameat2, as far as the architecture has them */
};

/* `calls`: bits of enum capture_calls, at least one. A call by another ABI (i386, x32) goes through. Errors:
 * EOPNOTSUPP (a kernel without notifications), ENOMEM, and what libseccomp says. */
int capture_filter_make(unsigned calls, struct capture_filter *ret_filter, struct error *error);

/* Empties it. NULL is allowed. */
void capture_filter_done(struct capture_filter *filter);

/* Installs it in the calling thread: in the child, before its user changes. Sets no_new_privs, which keeps
 * set-user-ID programs from becoming their owner, only where the kernel demands it (no CAP_SYS_ADMIN), and
 * says in *ret_no_new_privs whether it did, also on failure. Returns the descriptor of the notifications
 * (close-on-exec). Errors: EBUSY (something outside captures by a notifier already), EOPNOTSUPP (a kernel
 * without), and others. */
int capture_filter_install(const struct capture_filter *filter, bool *ret_no_new_privs, struct error *error);

#endif
