/* SPDX-License-Identifier: BSD-2-Clause */
/* Each tracker with a worker that has read a request and not answered it. */
#include "bpf/tracker.h"
#include "cli/doctor/bounded.h"
#include "cli/doctor/rights.h"
#include "ipc/fd.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TAG 1

struct work {
    struct tracker *tracker;
    int listener;
    struct sockaddr_in address;
    int line; /* to the worker: it begins when told to, and says when it has read */
    pid_t worker;
    int pidfd;
    int client;
};

_Noreturn static void be_worker(int listener, int line, pid_t parent)
{
    char byte;
    setpgid(0, 0);
    bounded_die_with(parent);
    if (recv(line, &byte, 1, 0) != 1)
        _exit(0);
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection >= 0 && read(connection, &byte, 1) == 1)
        (void)!send(line, &byte, 1, MSG_NOSIGNAL);
    /* Until the other end is closed. */
    (void)!recv(line, &byte, 1, 0);
    _exit(0);
}

static int open_listener(struct work *work, struct error *error)
{
    socklen_t length = sizeof work->address;
    struct sockaddr *address = (struct sockaddr *)&work->address;
    work->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    work->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (work->listener < 0 || bind(work->listener, address, length) < 0 || listen(work->listener, 1) < 0 ||
        getsockname(work->listener, address, &length) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot listen at 127.0.0.1");
    int r = tracker_listen(work->tracker, work->listener, TAG, INFLIGHT_HTTP1, error);
    return r < 0 ? r : 0;
}

/* Returns its slot. */
static int start_worker(struct work *work, struct error *error)
{
    int line[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, line) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot make a socket pair");
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        close(line[0]);
        be_worker(work->listener, line[1], parent);
    }
    fd_close(&line[1]);
    work->line = line[0];
    if (pid < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot start a process");
    work->worker = pid;
    setpgid(pid, pid);
    work->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (work->pidfd < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot open a process (pidfd_open)");
    return tracker_begin(work->tracker, work->pidfd, pid, error);
}

/* When this returns the worker has a request in flight. */
static int ask(struct work *work, struct error *error)
{
    char byte = 0;
    work->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (work->client < 0 || send(work->line, &byte, 1, MSG_NOSIGNAL) != 1 ||
        connect(work->client, (struct sockaddr *)&work->address, sizeof work->address) < 0 ||
        send(work->client, "x", 1, MSG_NOSIGNAL) != 1)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot ask a worker at 127.0.0.1");
    if (recv(work->line, &byte, 1, 0) != 1)
        return error_set(error, EIO, BLAME_SYSTEM, "a worker doesn't read");
    return 0;
}

static int track(struct work *work, struct error *error)
{
    int r = open_listener(work, error);
    if (r < 0)
        return r;
    int slot = start_worker(work, error);
    if (slot < 0)
        return slot;
    r = ask(work, error);
    tracker_drain(work->tracker, (unsigned)slot); /* sock_diag looks at those alone */
    if (r == 0)
        r = tracker_look(work->tracker, error);
    if (r < 0)
        return r;
    struct tracker_look look;
    tracker_seen(work->tracker, (unsigned)slot, &look);
    if (!look.known)
        return error_set(error, ENODATA, BLAME_SYSTEM, "what a worker does can't be seen");
    if (look.connections != 1 || look.busy != 1)
        return error_set(error, ENODATA, BLAME_SYSTEM, "a request in flight isn't seen");
    return 0;
}

static int try_tracker(enum tracker_kind kind, struct error *error)
{
    struct work work = {.listener = -1, .line = -1, .pidfd = -1, .client = -1};
    int r = tracker_open(kind, NULL, &work.tracker, error);
    if (r < 0)
        return r;
    r = track(&work, error);
    bounded_end(work.worker);
    fd_close(&work.client);
    fd_close(&work.line);
    fd_close(&work.pidfd);
    fd_close(&work.listener);
    tracker_close(work.tracker);
    return r;
}

void try_tracking_ebpf(struct findings *findings)
{
    static const cap_value_t needed[] = {CAP_BPF, CAP_PERFMON};
    static const struct rights_bpf bpf = {.needed = needed,
        .count = 2,
        .names = "CAP_BPF and CAP_PERFMON",
        .kernel = "Linux 6.3 or later with CONFIG_DEBUG_INFO_BTF",
        .otherwise = "without, sock_diag is asked"};
    struct finding *finding = &findings->all[FINDING_TRACKING_EBPF];
    struct error error;
    int r = try_tracker(TRACKER_EBPF, &error);
    if (r == 0) {
        finding_set(finding, FINDING_OK, "connections, requests and bytes are counted as they happen");
        return;
    }
    finding_set(finding, FINDING_NO, "%s", error.message);
    rights_advise_bpf(finding, -r, &bpf);
}

void try_tracking_sock_diag(struct findings *findings)
{
    struct finding *finding = &findings->all[FINDING_TRACKING_SOCK_DIAG];
    struct error error;
    int r = try_tracker(TRACKER_SOCK_DIAG, &error);
    if (r == 0) {
        finding_set(finding, FINDING_OK, "connections in flight are asked for while something drains");
        return;
    }
    finding_set(finding, FINDING_NO, "%s", error.message);
    rights_advise_network(finding, -r,
        "use a kernel with CONFIG_INET_DIAG; mount /proc without hidepid, and let the container's filter "
        "allow netlink sockets");
}
