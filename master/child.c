/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/child.h"

#include "master/account.h"
#include "master/pin.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Who it shall be. */
struct identity {
    bool change;
    uid_t uid;
    gid_t gid;
    char user[256]; /* for initgroups(3); "" where the user has no name */
};

void child_reset_signals(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int s = 1; s < NSIG; s++)
        sigaction(s, &action, NULL); /* fails for KILL, STOP and the C library's own */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static int find_user(const char *name, struct identity *identity, struct error *error)
{
    errno = 0;
    struct passwd *user = getpwnam(name);
    unsigned id;
    if (!user && account_number(name, &id) == 0) {
        user = getpwuid(id);
        if (!user) {
            identity->uid = id;
            identity->gid = id;
            return 0;
        }
    }
    if (!user)
        return error_set(error, ENOENT, BLAME_USER, "there is no user %s", name);
    identity->uid = user->pw_uid;
    identity->gid = user->pw_gid;
    snprintf(identity->user, sizeof identity->user, "%s", user->pw_name);
    return 0;
}

static int find_group(const char *name, struct identity *identity, struct error *error)
{
    if (account_group(name, &identity->gid) < 0)
        return error_set(error, ENOENT, BLAME_USER, "there is no group %s", name);
    return 0;
}

static int find_identity(const struct config_service *service, struct identity *identity, struct error *error)
{
    *identity = (struct identity){.uid = geteuid(), .gid = getegid()};
    int r = 0;
    if (service->user)
        r = find_user(service->user, identity, error);
    if (r == 0 && service->group)
        r = find_group(service->group, identity, error);
    if (r < 0)
        return r;
    identity->change = service->user || service->group;
    /* Asking for what it is already needs no privilege. */
    if (identity->change && geteuid() != 0 && identity->uid == geteuid() && identity->gid == getegid())
        identity->change = false;
    return 0;
}

static int set_limits(const struct config_service *service, struct error *error)
{
    for (size_t i = 0; i < service->rlimit_count; i++)
        if (setrlimit((__rlimit_resource_t)service->rlimits[i].resource, &service->rlimits[i].limit) < 0)
            return error_errno(
                error, errno, BLAME_USER, "cannot set resource limit %d", service->rlimits[i].resource);
    if (service->nice_set && setpriority(PRIO_PROCESS, 0, service->nice) < 0)
        return error_errno(error, errno, BLAME_USER, "cannot set nice to %d", service->nice);
    if (service->umask != (mode_t)-1)
        umask(service->umask);
    return 0;
}

static bool is_kept(const struct config_service *service, cap_value_t capability)
{
    for (char *const *name = service->capabilities; *name; name++) {
        char full[64];
        snprintf(full, sizeof full, "%s%s", strncasecmp(*name, "cap_", 4) == 0 ? "" : "cap_", *name);
        cap_value_t value;
        if (cap_from_name(full, &value) == 0 && value == capability)
            return true;
    }
    return false;
}

/* Nothing that is executed later may regain what isn't listed. Needs CAP_SETPCAP, so it comes before the user
 * changes. */
static int bound_capabilities(const struct config_service *service, struct error *error)
{
    if (!service->capabilities)
        return 0;
    for (cap_value_t c = 0; c < cap_max_bits(); c++)
        if (!is_kept(service, c) && cap_get_bound(c) == 1 && cap_drop_bound(c) < 0 && geteuid() == 0)
            return error_errno(error, errno, BLAME_SYSTEM, "cannot drop capability %d", c);
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot keep capabilities");
    return 0;
}

/* Exactly the listed capabilities, ambient so that they live through execve(2) under a user that isn't root.
 */
static int keep_capabilities(const struct config_service *service, struct error *error)
{
    if (!service->capabilities)
        return 0;
    cap_t set = cap_init();
    if (!set)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    int r = 0;
    for (cap_value_t c = 0; c < cap_max_bits() && r == 0; c++) {
        if (!is_kept(service, c))
            continue;
        if (cap_set_flag(set, CAP_PERMITTED, 1, &c, CAP_SET) < 0 ||
            cap_set_flag(set, CAP_EFFECTIVE, 1, &c, CAP_SET) < 0 ||
            cap_set_flag(set, CAP_INHERITABLE, 1, &c, CAP_SET) < 0)
            r = error_errno(error, errno, BLAME_OURS, "cannot list capability %d", c);
    }
    if (r == 0 && cap_set_proc(set) < 0)
        r = error_errno(
            error, errno, BLAME_USER, "cannot keep the listed capabilities (the master lacks them)");
    for (cap_value_t c = 0; c < cap_max_bits() && r == 0; c++)
        if (is_kept(service, c) && cap_set_ambient(c, CAP_SET) < 0)
            r = error_errno(error, errno, BLAME_USER, "cannot make capability %d ambient", c);
    cap_free(set);
    return r;
}

static int become(const struct identity *identity, struct error *error)
{
    if (!identity->change)
        return 0;
    if (identity->user[0] ? initgroups(identity->user, identity->gid) < 0 : setgroups(1, &identity->gid) < 0)
        return error_errno(error, errno, BLAME_USER, "cannot set the groups of user %u", identity->uid);
    if (setresgid(identity->gid, identity->gid, identity->gid) < 0)
        return error_errno(error, errno, BLAME_USER, "cannot become group %u", identity->gid);
    if (setresuid(identity->uid, identity->uid, identity->uid) < 0)
        return error_errno(error, errno, BLAME_USER, "cannot become user %u", identity->uid);
    return 0;
}

int child_become(const struct config_service *service, struct error *error)
{
    struct identity identity;
    int r = find_identity(service, &identity, error);
    if (r == 0)
        r = set_limits(service, error);
    if (r == 0)
        r = bound_capabilities(service, error);
    if (r == 0)
        r = become(&identity, error);
    if (r == 0)
        r = keep_capabilities(service, error);
    return r;
}

int child_enter(const struct config_service *service, struct error *error)
{
    if (service->cwd && chdir(service->cwd) < 0)
        return error_errno(error, errno, BLAME_USER, "cannot enter the directory %s", service->cwd);
    return 0;
}

/* execve(2) by PATH. Not execvp(3): that gives what is no program to the shell, which then reads it as a
 * script. Returns errno: what a file in an earlier directory gave counts more than that there is none in the
 * last. */
int child_execute(char *const argv[], char *const envp[])
{
    environ = (char **)envp;
    const char *program = argv[0], *path = getenv("PATH");
    if (strchr(program, '/')) {
        execve(program, argv, envp);
        return errno;
    }
    int code = ENOENT;
    for (path = path ? path : PIN_DEFAULT_PATH; path; path = *path ? path + 1 : NULL) {
        size_t length = strcspn(path, ":");
        char file[PATH_MAX];
        int n = snprintf(file, sizeof file, "%.*s%s%s", (int)length, path, length ? "/" : "./", program);
        if (n > 0 && (size_t)n < sizeof file) {
            execve(file, argv, envp);
            if (errno != ENOENT && errno != ENOTDIR)
                code = errno;
        }
        path += length;
    }
    return code;
}

/* The kernel says ENOENT for a missing interpreter as well, which sends people looking for a file that is
 * there. */
int child_not_executed(const char *program, int code, struct error *error)
{
    bool path = strchr(program, '/') != NULL;
    if (code == ENOENT && path && access(program, F_OK) == 0)
        error_set(error, ENOEXEC, BLAME_USER,
            "cannot execute %s: the interpreter that it names does not exist", program);
    else if (code == ENOEXEC)
        error_set(
            error, code, BLAME_USER, "cannot execute %s: it is not a program (exec format error)", program);
    else if (code == EACCES && path) {
        struct stat st;
        bool file = stat(program, &st) != 0 || S_ISREG(st.st_mode);
        error_set(error, code, BLAME_USER, "cannot execute %s: %s", program,
            file ? "permission denied (is it executable for that user?)" : "it is not a regular file");
    } else if (code == ENOENT)
        error_set(error, code, BLAME_USER, "cannot execute %s: no such %s", program,
            path ? "file" : "command in PATH");
    else
        error_errno(error, code, BLAME_USER, "cannot execute %s", program);
    return error->code == ENOENT ? CHILD_EXIT_NOT_FOUND : CHILD_EXIT_NOT_EXECUTABLE;
}
