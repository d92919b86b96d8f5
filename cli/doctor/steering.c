/* SPDX-License-Identifier: BSD-2-Clause */
/* Each tier with two sockets that share an address: connections have to arrive where they are sent. */
#include "bpf/steering.h"
#include "bpf/classic.h"
#include "cli/doctor/rights.h"
#include "cli/doctor/tries.h"
#include "ipc/fd.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Connections, to the one and the other in turn: by chance all arrive once in 256. */
#define CONNECTIONS 8
#define ARRIVE_MS 500

struct pair {
    int fds[2];
    struct sockaddr_in address; /* TCP: that of both */
};

/* Which of the two gets a connection to the address: 0, 1, or -errno. */
static int where_it_arrives(const struct pair *pair, const struct sockaddr *address, socklen_t length)
{
    CLEANUP_FD int client = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client < 0 || connect(client, address, length) < 0)
        return -errno;
    struct pollfd both[2] = {{.fd = pair->fds[0], .events = POLLIN}, {.fd = pair->fds[1], .events = POLLIN}};
    if (poll(both, 2, ARRIVE_MS) < 1)
        return -ETIMEDOUT;
    int which = both[0].revents ? 0 : 1;
    CLEANUP_FD int accepted = accept4(pair->fds[which], NULL, NULL, SOCK_CLOEXEC);
    return accepted < 0 ? -errno : which;
}

static void close_pair(struct pair *pair)
{
    fd_close(&pair->fds[0]);
    fd_close(&pair->fds[1]);
}

/* The second begins when the first listens: as a member of a group that has a program it would be a conflict
 * for a socket that isn't one. */
static int bind_one(struct pair *pair, unsigned which, struct error *error)
{
    int one = 1;
    socklen_t length = sizeof pair->address;
    struct sockaddr *address = (struct sockaddr *)&pair->address;
    pair->fds[which] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (pair->fds[which] < 0 ||
        setsockopt(pair->fds[which], SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) < 0 ||
        bind(pair->fds[which], address, length) < 0 || getsockname(pair->fds[which], address, &length) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot bind a socket at 127.0.0.1");
    return 0;
}

static int listen_one(const struct pair *pair, unsigned which, struct error *error)
{
    if (listen(pair->fds[which], CONNECTIONS) < 0)
        return error_errno(error, errno, BLAME_SYSTEM, "cannot listen at 127.0.0.1");
    return 0;
}

static int bind_first(struct pair *pair, struct error *error)
{
    *pair = (struct pair){.fds = {-1, -1}};
    pair->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return bind_one(pair, 0, error);
}

static int listen_both(struct pair *pair, struct error *error)
{
    int r = listen_one(pair, 0, error);
    if (r == 0)
        r = bind_one(pair, 1, error);
    return r < 0 ? r : listen_one(pair, 1, error);
}

/* One connection that was sent to `wanted`. */
static int expect(const struct pair *pair, const struct sockaddr *address, socklen_t length, int wanted,
    struct error *error)
{
    int which = where_it_arrives(pair, address, length);
    if (which < 0)
        return error_errno(error, -which, BLAME_SYSTEM, "a connection doesn't arrive");
    if (which != wanted)
        return error_set(error, ENODATA, BLAME_SYSTEM, "a connection arrives at the wrong socket");
    return 0;
}

static int expect_tcp(const struct pair *pair, unsigned i, struct error *error)
{
    return expect(pair, (const struct sockaddr *)&pair->address, sizeof pair->address, (int)(i % 2), error);
}

/* ── ebpf ── */

static int steer_pair(struct steer *steer, struct pair *pair, struct error *error)
{
    const struct steer_address like = {.flow_idle_ms = 1000};
    unsigned cell, rows[2];
    int r = steer_cell_new(steer, &like, &cell, error);
    if (r == 0)
        r = steer_cell_attach(steer, cell, pair->fds[0], error);
    if (r == 0)
        r = listen_both(pair, error);
    for (unsigned i = 0; i < 2 && r == 0; i++) {
        r = steer_row_new(steer, cell, 1, &rows[i], error);
        if (r == 0)
            r = steer_put(steer, cell, rows[i], 0, pair->fds[i], error);
    }
    for (unsigned i = 0; i < CONNECTIONS && r == 0; i++) {
        steer_choose(steer, cell, rows[i % 2], STEER_NONE, 0);
        r = expect_tcp(pair, i, error);
    }
    return r;
}

static int steer_by_ebpf(struct error *error)
{
    struct steer *steer = NULL;
    int r = steer_open(NULL, &steer, error);
    if (r < 0)
        return r;
    struct pair pair;
    r = bind_first(&pair, error);
    if (r == 0)
        r = steer_pair(steer, &pair, error);
    close_pair(&pair);
    steer_close(steer);
    return r;
}

void try_steering_ebpf(struct findings *findings)
{
    static const cap_value_t needed[] = {CAP_BPF, CAP_PERFMON};
    static const struct rights_bpf bpf = {.needed = needed,
        .count = 2,
        .kernel = "Linux 5.14 or later",
        .otherwise = "without, TCP is steered by cbpf and UDP is shared"};
    struct finding *finding = &findings->all[FINDING_STEERING_EBPF];
    struct error error;
    int r = steer_by_ebpf(&error);
    if (r == 0) {
        finding_set(finding, FINDING_OK, "TCP and UDP: a program in the kernel picks the generation");
        return;
    }
    finding_set(finding, FINDING_NO, "%s", error.message);
    rights_advise_bpf(finding, -r, &bpf);
}

/* ── cbpf ── */

static int steer_by_cbpf(struct pair *pair, struct error *error)
{
    int r = listen_both(pair, error);
    for (unsigned i = 0; i < CONNECTIONS && r == 0; i++) {
        unsigned index = i % 2;
        const struct classic_choice choice = {.active = &index, .active_count = 1};
        r = classic_attach(pair->fds[0], &choice);
        if (r < 0)
            return error_errno(error, -r, BLAME_SYSTEM, "cannot attach a classic program");
        r = expect_tcp(pair, i, error);
    }
    return r;
}

void try_steering_cbpf(struct findings *findings)
{
    struct finding *finding = &findings->all[FINDING_STEERING_CBPF];
    struct pair pair;
    struct error error;
    int r = bind_first(&pair, &error);
    if (r == 0)
        r = steer_by_cbpf(&pair, &error);
    close_pair(&pair);
    if (r == 0) {
        finding_set(finding, FINDING_OK, "TCP: a classic program picks the generation");
        return;
    }
    finding_set(finding, FINDING_NO, "%s", error.message);
    rights_advise_network(finding, -r,
        "use Linux 4.5 or later; in a container let its filter allow setsockopt(2) with "
        "SO_ATTACH_REUSEPORT_CBPF");
}

/* ── path ── */

/* Relative to the directory of the try, whose own path may be too long for an address. */
static const char *const private_names[2] = {"first", "second"};
static const struct sockaddr_un public_address = {.sun_family = AF_UNIX, .sun_path = "public"};

static int bind_private(struct pair *pair, unsigned which)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    stpncpy(address.sun_path, private_names[which], sizeof address.sun_path - 1);
    pair->fds[which] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (pair->fds[which] < 0 || bind(pair->fds[which], (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(pair->fds[which], CONNECTIONS) < 0)
        return -errno;
    return 0;
}

static int steer_by_path(struct pair *pair, struct error *error)
{
    for (unsigned i = 0; i < 2; i++) {
        int r = bind_private(pair, i);
        if (r < 0)
            return error_errno(error, -r, BLAME_SYSTEM, "cannot bind a Unix path");
    }
    int r = 0;
    for (unsigned i = 0; i < CONNECTIONS && r == 0; i++) {
        if (link(private_names[i % 2], "new") < 0)
            return error_errno(error, errno, BLAME_SYSTEM, "cannot link a Unix path");
        if (rename("new", public_address.sun_path) < 0)
            return error_errno(error, errno, BLAME_SYSTEM, "cannot rename a Unix path");
        r = expect(
            pair, (const struct sockaddr *)&public_address, sizeof public_address, (int)(i % 2), error);
    }
    return r;
}

static void clean_up(const char *directory)
{
    unlink(private_names[0]);
    unlink(private_names[1]);
    unlink(public_address.sun_path);
    unlink("new");
    if (chdir("/") == 0)
        rmdir(directory);
}

void try_steering_path(struct findings *findings)
{
    struct finding *finding = &findings->all[FINDING_STEERING_PATH];
    const char *parent = getenv("TMPDIR");
    if (!parent || !*parent)
        parent = "/tmp";
    struct error error;
    struct pair pair = {.fds = {-1, -1}};
    char directory[4096];
    int r, length = snprintf(directory, sizeof directory, "%s/gapless-doctor-XXXXXX", parent);
    if (length >= (int)sizeof directory || !mkdtemp(directory) || chdir(directory) < 0) {
        r = error_errno(&error, length >= (int)sizeof directory ? ENAMETOOLONG : errno, BLAME_SYSTEM,
            "cannot make a directory in %s", parent);
    } else {
        r = steer_by_path(&pair, &error);
        clean_up(directory);
    }
    close_pair(&pair);
    if (r == 0) {
        finding_set(
            finding, FINDING_OK, "Unix paths: a rename switches from one to the next (tried in %s)", parent);
        return;
    }
    finding_set(finding, FINDING_NO, "%s", error.message);
    finding_advise(finding,
        "mount a writable /tmp, or name a writable directory on a file system with hard links by TMPDIR");
}
