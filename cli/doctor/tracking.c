/* SPDX-License-Identifier: BSD-2-Clause */
/* Each tracker with a worker that has read a request and not answered it. */
#include "cli/doctor/rights.h"
#include "cli/doctor/tries.h"
#include "cli/doctor/work.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

static void read_a_byte(int listener, int line)
{
    char byte;
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection >= 0 && read(connection, &byte, 1) == 1)
        (void)!send(line, &byte, 1, MSG_NOSIGNAL);
    /* Until the other end is closed. */
    (void)!recv(line, &byte, 1, 0);
}

/* When this returns the worker has a request in flight. */
static int ask(struct work *work, struct error *error)
{
    char byte = 'x';
    int r = work_connect(work, error);
    if (r < 0)
        return r;
    if (send(work->client, &byte, 1, MSG_NOSIGNAL) != 1)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot ask a worker at 127.0.0.1");
    if (recv(work->line, &byte, 1, 0) != 1)
        return error_set(error, EIO, BLAME_SYSTEM, "a worker doesn't read");
    return 0;
}

static int track(struct work *work, unsigned slot, struct error *error)
{
    int r = ask(work, error);
    tracker_drain(work->tracker, slot); /* sock_diag looks at those alone */
    if (r == 0)
        r = tracker_look(work->tracker, error);
    if (r < 0)
        return r;
    struct tracker_look look;
    tracker_seen(work->tracker, slot, &look);
    if (!look.known)
        return error_set(error, ENODATA, BLAME_SYSTEM, "what a worker does can't be seen");
    if (look.connections != 1 || look.busy != 1)
        return error_set(error, ENODATA, BLAME_SYSTEM, "a request in flight isn't seen");
    return 0;
}

static int try_tracker(enum tracker_kind kind, struct error *error)
{
    struct work work;
    int r = work_open(&work, kind, read_a_byte, error);
    if (r >= 0)
        r = track(&work, (unsigned)r, error);
    work_close(&work);
    return r;
}

void try_tracking_ebpf(struct findings *findings)
{
    static const cap_value_t needed[] = {CAP_BPF, CAP_PERFMON};
    static const struct rights_bpf bpf = {.needed = needed,
        .count = 2,
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
