/* SPDX-License-Identifier: BSD-2-Clause */
/* A worker that answers twice on a kept connection, and leaves in between. */
#include "bpf/farewell.h"
#include "cli/doctor/bounded.h"
#include "cli/doctor/rights.h"
#include "cli/doctor/work.h"
#include "ipc/fd.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define REQUEST "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
#define ANSWER(connection) "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: " connection "\r\n\r\nok"
#define KEPT ANSWER("keep-alive")
#define TOLD ANSWER("close     ")

/* Less than a try gets as a whole: of it, what waits for a lock of the kernel's, and for an answer. */
#define ENLIST_MS 400
#define ANSWER_MS 200

static void answer_twice(int listener, int line)
{
    char request[sizeof REQUEST];
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    for (unsigned i = 0; i < 2; i++)
        if (recv(connection, request, sizeof request, 0) > 0)
            (void)!send(connection, KEPT, sizeof KEPT - 1, MSG_NOSIGNAL);
    /* Until the other end is closed. */
    (void)!recv(line, request, 1, 0);
}

/* Asks, and reads an answer of the length of those that are possible. */
static int ask(const struct work *work, char answer[sizeof KEPT], struct error *error)
{
    const struct timeval most = {.tv_usec = ANSWER_MS * 1000L};
    memset(answer, 0, sizeof KEPT);
    if (setsockopt(work->client, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most) < 0 ||
        send(work->client, REQUEST, sizeof REQUEST - 1, MSG_NOSIGNAL) < 0 ||
        recv(work->client, answer, sizeof KEPT - 1, MSG_WAITALL) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "a worker at 127.0.0.1 doesn't answer");
    return 0;
}

static int expect(const struct work *work, const char *expected, const char *otherwise, struct error *error)
{
    char answer[sizeof KEPT];
    int r = ask(work, answer, error);
    if (r == 0 && strcmp(answer, expected) != 0)
        r = error_set(error, ENODATA, BLAME_SYSTEM, "%s", otherwise);
    return r;
}

/* In a process of its own, with nothing else open: one that waits for a socket's lock can't be ended. */
static int wait_for(pid_t pid, struct error *error)
{
    CLEANUP_FD int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    int status = 0;
    if (pidfd < 0 || poll(&end, 1, ENLIST_MS) != 1) {
        kill(pid, SIGKILL);
        return error_set(
            error, EBUSY, BLAME_SYSTEM, "a connection can't be enlisted within %d ms", ENLIST_MS);
    }
    waitpid(pid, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return error_set(error, WIFEXITED(status) ? WEXITSTATUS(status) : EINTR, BLAME_SYSTEM,
            "a connection can't be enlisted: %s",
            WIFEXITED(status) ? strerror(WEXITSTATUS(status)) : "its process was ended by a signal");
    return 0;
}

static int enlist(struct farewell *farewell, unsigned slot, struct error *error)
{
    farewell_begin(farewell, slot);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        bounded_die_with(parent);
        farewell_pass(farewell);
    }
    if (pid < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot start a process");
    int r = wait_for(pid, error);
    struct farewell_counts counts;
    farewell_count(farewell, slot, &counts);
    if (r == 0 && counts.enlisted != 1)
        r = error_set(error, ENODATA, BLAME_SYSTEM,
            counts.unlistable ? "the kernel doesn't let a connection in" : "a connection isn't found");
    return r;
}

static int say_farewell(struct work *work, unsigned slot, struct error *error)
{
    struct farewell *farewell = NULL;
    int r = farewell_open(work->tracker, NULL, &farewell, error);
    if (r < 0)
        return r;
    r = work_connect(work, error);
    if (r == 0)
        r = expect(work, KEPT, "an answer is changed before its worker leaves", error);
    if (r == 0)
        r = enlist(farewell, slot, error);
    if (r == 0)
        r = expect(work, TOLD, "an answer of a worker that leaves doesn't say close", error);
    farewell_close(farewell);
    return r;
}

static int try_farewell(struct error *error)
{
    struct work work;
    int r = work_open(&work, TRACKER_EBPF, answer_twice, error);
    if (r < 0)
        error_prefix(error, "the ebpf tracker is needed");
    else
        r = say_farewell(&work, (unsigned)r, error);
    work_close(&work);
    return r;
}

void try_keepalive(struct findings *findings)
{
    static const cap_value_t needed[] = {CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN};
    static const struct rights_bpf bpf = {.needed = needed,
        .count = 3,
        .kernel = "Linux 6.3 or later with CONFIG_DEBUG_INFO_BTF",
        .otherwise = "without, the drain signal and a proxy's retry are what is left (docs/keepalive.md)"};
    struct finding *finding = &findings->all[FINDING_KEEPALIVE];
    struct error error;
    int r = try_farewell(&error);
    if (r == 0) {
        finding_set(
            finding, FINDING_OK, "clients of kept connections are told to close when a worker leaves");
        return;
    }
    finding_set(finding, FINDING_NO, "%s", error.message);
    if (r == -EBUSY)
        finding_advise(finding, "try again; %s", bpf.otherwise);
    else
        rights_advise_bpf(finding, -r, &bpf);
}
