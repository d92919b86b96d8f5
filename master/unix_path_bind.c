/* SPDX-License-Identifier: BSD-2-Clause */
/* How a socket gets a file beside its public path, and the public path as its name all the same. */
#include "master/unix_path.h"

#include "ipc/fd.h"
#include "master/unix_path_aside.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A socket that is being bound. */
struct binding {
    int fd;
    const struct listener_spec *spec;
    struct sockaddr_un address;     /* the public one */
    int directory;                  /* of the public path */
    int aside_fd;                   /* the private directory */
    char aside[UNIX_PATH_KEEP_MAX]; /* its name, and that of the socket in it */
    char trial[UNIX_PATH_KEEP_MAX];
    struct unix_path path; /* what comes of it */
};

/* Makes every directory of the path but not its file. `..` doesn't lead out of the root directory. */
static int make_parents(char *path)
{
    for (char *p = path; (p = strchr(p + 1, '/'));) {
        *p = '\0';
        int code = mkdir(path, 0700) < 0 ? errno : 0;
        *p = '/';
        if (code && code != EEXIST)
            return -code;
    }
    return 0;
}

static int bind_in_root(struct binding *binding)
{
    if (fchdir(binding->aside_fd) < 0)
        return -errno;
    /* In a user namespace of its own a process has every capability; as no user is mapped into it, files are
     * still its own user's. */
    if (chroot(".") < 0 && (unshare(CLONE_NEWUSER) < 0 || chroot(".") < 0))
        return -errno;
    mode_t old = umask(077);
    int r = make_parents(binding->address.sun_path);
    umask(old);
    if (r == 0)
        r = unix_file_bind(
            binding->fd, (const struct sockaddr *)&binding->address, sizeof binding->address, binding->spec);
    /* To where the parent finds it, whatever the path looks like; the root is the working directory. */
    if (r == 0 && rename(binding->address.sun_path, binding->aside) < 0)
        r = -errno;
    return r;
}

/* Binds in a child whose root is the private directory. 0 or -errno; -EPERM: this process may not. */
static int bind_in_child(struct binding *binding)
{
    sigset_t all, old;
    sigfillset(&all);
    /* The handlers of this process, which write to pipes that both have, must not run in the child. */
    sigprocmask(SIG_BLOCK, &all, &old);
    /* fork(2) without an exit signal: the child can be waited for even where SIGCHLD is ignored, and nobody
     * else waits for it by accident. */
    long pid = syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
    if (pid == 0)
        _exit(-bind_in_root(binding));
    int code = pid < 0 ? errno : 0, status = 0;
    sigprocmask(SIG_SETMASK, &old, NULL);
    if (code)
        return -code;
    while (waitpid((pid_t)pid, &status, __WALL) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
}

static int no_private_name(int code, const struct listener_spec *spec, struct error *error)
{
    return error_errno(error, code, BLAME_USER,
        "cannot make a private name for %s in its directory, as each generation needs (steering=shared needs "
        "none)",
        spec->text);
}

/* Gives the file its owner and mode, then the other name `link`. */
static int dress(
    struct binding *binding, int directory, const char *name, const char *link, struct error *error)
{
    int r = unix_file_set_owner(binding->spec, directory, name, error);
    if (r < 0)
        return r;
    struct stat st;
    /* Some file systems have no hard links, and with fs.protected_hardlinks a socket's owner alone may make
     * them (or CAP_FOWNER). */
    if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        linkat(directory, name, binding->directory, link, 0) < 0)
        return no_private_name(errno, binding->spec, error);
    binding->path.device = st.st_dev;
    binding->path.inode = st.st_ino;
    return 0;
}

/* Where the child could not: the socket is called by its private name. */
static int bind_private_name(struct binding *binding, struct error *error)
{
    struct unix_path *path = &binding->path;
    struct sockaddr_un address;
    int r = unix_file_address_beside(path->path, binding->directory, path->keep, &address);
    if (r == 0)
        r = unix_file_bind(binding->fd, (const struct sockaddr *)&address, sizeof address, binding->spec);
    if (r < 0)
        return no_private_name(r == -EADDRINUSE ? EEXIST : -r, binding->spec, error);
    /* That it can't be linked is to be known now, not at the switch. */
    r = dress(binding, binding->directory, path->keep, binding->trial, error);
    unlinkat(binding->directory, r < 0 ? path->keep : binding->trial, 0);
    return r;
}

static int bind_aside(struct binding *binding, struct error *error)
{
    int r = bind_in_child(binding);
    if (r < 0)
        return bind_private_name(binding, error);
    binding->path.named_public = true;
    return dress(binding, binding->aside_fd, binding->aside, binding->path.keep, error);
}

int unix_path_bind(
    int fd, const struct listener_spec *spec, uint64_t id, struct unix_path *ret_path, struct error *error)
{
    struct binding binding = {.fd = fd, .spec = spec};
    struct unix_path *path = &binding.path;
    CLEANUP_FD int directory = -1, aside_fd = -1;
    const char *name = NULL;
    int r = unix_file_address(spec->path, &binding.address);
    if (r == 0)
        r = unix_file_open_directory(spec->path, &directory, &name);
    if (r < 0)
        return error_errno(error, -r, BLAME_USER, "cannot bind %s", spec->text);
    memcpy(path->path, spec->path, strlen(spec->path) + 1);
    unix_path_aside_name(path->keep, UNIX_PATH_ASIDE_KEEP, name, getpid(), id);
    unix_path_aside_name(binding.trial, UNIX_PATH_ASIDE_NEW, name, getpid(), id);
    unix_path_aside_name(binding.aside, UNIX_PATH_ASIDE_DIRECTORY, name, getpid(), id);
    r = unix_path_aside_make(directory, binding.aside, &aside_fd);
    if (r < 0)
        return no_private_name(-r, spec, error);
    binding.directory = directory;
    binding.aside_fd = aside_fd;
    r = bind_aside(&binding, error);
    /* What is left of it does no harm; a later start tidies up. */
    unix_path_aside_remove(directory, binding.aside, aside_fd);
    if (r < 0)
        return r;
    *ret_path = *path;
    return 0;
}
