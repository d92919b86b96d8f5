/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/capture/filter.h"

#include "ipc/fd.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux 5.19. */
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

static const int socket_calls[] = {SYS_bind, SYS_listen};

static const int path_calls[] = {
#ifdef SYS_unlink
    SYS_unlink,
#endif
#ifdef SYS_rename
    SYS_rename,
#endif
#ifdef SYS_renameat
    SYS_renameat,
#endif
    SYS_unlinkat, SYS_renameat2};

static int no_notifications(struct error *error)
{
    return error_set(error, EOPNOTSUPP, BLAME_SYSTEM,
        "this kernel has no seccomp filters with user notification (Linux 5.0, CONFIG_SECCOMP_FILTER)");
}

static int add_calls(scmp_filter_ctx context, const int *calls, size_t count)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < count; i++)
        r = seccomp_rule_add(context, SCMP_ACT_NOTIFY, calls[i], 0);
    return r;
}

/* libseccomp writes a program to a descriptor alone. */
static int export(scmp_filter_ctx context, struct capture_filter *ret_filter)
{
    CLEANUP_FD int fd = memfd_create("capture filter", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = seccomp_export_bpf(context, fd);
    if (r < 0)
        return r;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    size_t size = (size_t)st.st_size, count = size / sizeof(struct sock_filter);
    if (!count || count > BPF_MAXINSNS)
        return -EBADMSG;
    struct sock_filter *code = malloc(size);
    if (!code)
        return -ENOMEM;
    if (pread(fd, code, size, 0) != (ssize_t)size) {
        free(code);
        return -EIO;
    }
    ret_filter->program = (struct sock_fprog){.len = (unsigned short)count, .filter = code};
    return 0;
}

int capture_filter_make(unsigned calls, struct capture_filter *ret_filter, struct error *error)
{
    scmp_filter_ctx context = seccomp_init(SCMP_ACT_ALLOW);
    if (!context)
        return error_set(error, ENOMEM, BLAME_OURS, "cannot make the filter for capture: out of memory");
    /* By default a call of another ABI ends the process. */
    int r = seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ALLOW);
    bool unknown = false;
    if (r == 0) {
        r = add_calls(
            context, socket_calls, calls & CAPTURE_SOCKETS ? sizeof socket_calls / sizeof *socket_calls : 0);
        if (r == 0 && calls & CAPTURE_PATHS)
            r = add_calls(context, path_calls, sizeof path_calls / sizeof *path_calls);
        /* libseccomp has asked the kernel whether it knows the action. */
        unknown = r == -EINVAL || r == -EOPNOTSUPP;
    }
    if (r == 0)
        r = export(context, ret_filter);
    seccomp_release(context);
    if (unknown)
        return no_notifications(error);
    return r < 0 ? error_errno(error, -r, BLAME_SYSTEM, "cannot compile the filter for capture") : 0;
}

void capture_filter_done(struct capture_filter *filter)
{
    if (!filter)
        return;
    free(filter->program.filter);
    filter->program = (struct sock_fprog){0};
}

static int set_filter(const struct capture_filter *filter, unsigned long flags)
{
    long fd = syscall(
        SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER | flags, &filter->program);
    return fd < 0 ? -errno : (int)fd;
}

/* The kernel judges the flags first, then the privilege, then whether there is another notifier. */
static int set_filter_as_far_as_known(const struct capture_filter *filter)
{
    int fd = set_filter(filter, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
    return fd == -EINVAL ? set_filter(filter, 0) : fd;
}

static int refused(int code, struct error *error)
{
    if (code == EBUSY)
        return error_set(error, code, BLAME_SYSTEM,
            "calls are captured by seccomp here already, and the kernel allows that once: by a container "
            "runtime's notifier, or by another gapless that this one runs in");
    if (code == EINVAL || code == ENOSYS)
        return no_notifications(error);
    if (code == EPERM || code == EACCES)
        return error_set(error, code, BLAME_SYSTEM,
            "seccomp filters may not be installed here: a container's own filter forbids seccomp(2)");
    return error_errno(error, code, BLAME_SYSTEM, "cannot install the filter for capture");
}

int capture_filter_install(const struct capture_filter *filter, bool *ret_no_new_privs, struct error *error)
{
    *ret_no_new_privs = false;
    int fd = set_filter_as_far_as_known(filter);
    if (fd == -EACCES) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
            return error_errno(error, errno, BLAME_SYSTEM, "cannot set no_new_privs");
        *ret_no_new_privs = true;
        fd = set_filter_as_far_as_known(filter);
    }
    return fd < 0 ? refused(-fd, error) : fd;
}
