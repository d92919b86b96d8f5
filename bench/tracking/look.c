/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tracking-look: what a look at idle connections costs (bpf/tracker.h), with each tracker.
 *
 *     tracking-look [--connections N] [--looks N] [--tracker ebpf|sock_diag] [--json]
 *
 * A worker accepts N connections on loopback (100,000 unless told), reads one byte of each and answers it;
 * clients made them, from as many source addresses as needed, and keep them. Both are as many processes as
 * the limit of descriptors asks for. Then the tracker looks (21 times): it prints the median and the longest
 * time, the median of the processor's time (on a busy machine that is what to go by), what was found, and
 * what this process's memory was before the connections and is after the looks. The exit code is 1 where what
 * was found is wrong, 77 where the tracker can't be had.
 */
#include "bpf/tracker.h"

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TAG 1
#define LOOKS_MAX 1000
#define PER_SOURCE 20000 /* connections from one source address */
#define SPARE_FDS 64
#define EX_SKIP 77

static unsigned wanted = 100000, looks = 21;
static enum tracker_kind kind = TRACKER_EBPF;
static bool json;

static double now_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static long resident_kib(void)
{
    char line[256];
    long kib = -1;
    FILE *status = fopen("/proc/self/status", "re");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmRSS: %ld", &kib) == 1)
            break;
    if (status)
        fclose(status);
    return kib;
}

/* How many connections a process can hold. */
static unsigned share(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        err(1, "the limit of descriptors");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur <= SPARE_FDS)
        err(1, "the limit of descriptors");
    return limit.rlim_cur - SPARE_FDS < wanted ? (unsigned)limit.rlim_cur - SPARE_FDS : wanted;
}

static void say(int pipe)
{
    if (write(pipe, "x", 1) != 1)
        _exit(1);
}

static void hear(int pipe, const char *who)
{
    char byte;
    if (read(pipe, &byte, 1) != 1)
        errx(1, "%s has failed", who);
}

static pid_t fork_child(void)
{
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        err(1, "fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
    }
    return pid;
}

static void accept_one(int listener, const struct sockaddr_in *server, unsigned number)
{
    char byte;
    int fd = accept(listener, NULL, NULL);
    if (fd < 0 || read(fd, &byte, 1) != 1 || write(fd, &byte, 1) != 1)
        err(1, "connection %u", number);
}

static void connect_one(int listener, const struct sockaddr_in *server, unsigned number)
{
    struct sockaddr_in source = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + number / PER_SOURCE)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    char byte = 'x';
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&source, sizeof source) < 0 ||
        connect(fd, (const struct sockaddr *)server, sizeof *server) < 0 || write(fd, &byte, 1) != 1 ||
        read(fd, &byte, 1) != 1)
        err(1, "connection %u", number);
}

/* Makes all connections by `one`, in as many processes, and holds them until it is killed; a byte on `done`
 * when they are there. */
static void hold(void (*one)(int listener, const struct sockaddr_in *server, unsigned number), int listener,
    const struct sockaddr_in *server, int done)
{
    unsigned each = share();
    for (unsigned first = 0; first < wanted; first += each) {
        if (fork_child() > 0)
            continue;
        unsigned end = first + each < wanted ? first + each : wanted;
        for (unsigned i = first; i < end; i++)
            one(listener, server, i);
        say(done);
        for (;;)
            pause();
    }
    close(done);
    for (;;)
        pause();
}

static int open_listener(struct sockaddr_in *ret_address)
{
    socklen_t length = sizeof *ret_address;
    *ret_address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)ret_address, sizeof *ret_address) < 0 || listen(fd, 1024) < 0 ||
        getsockname(fd, (struct sockaddr *)ret_address, &length) < 0)
        err(1, "a listener");
    return fd;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

/* Looks, and prints. True: what was found is what there is. */
static bool measure(struct tracker *tracker, unsigned slot, long before_kib)
{
    static double times[LOOKS_MAX], cpu[LOOKS_MAX];
    struct error error;
    struct tracker_look found;
    for (unsigned i = 0; i < looks; i++) {
        double began = now_ms(CLOCK_MONOTONIC), cpu_began = now_ms(CLOCK_PROCESS_CPUTIME_ID);
        if (tracker_look(tracker, &error) < 0)
            errx(1, "%s", error.message);
        times[i] = now_ms(CLOCK_MONOTONIC) - began;
        cpu[i] = now_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu_began;
    }
    tracker_seen(tracker, slot, &found);
    qsort(times, looks, sizeof *times, compare);
    qsort(cpu, looks, sizeof *cpu, compare);
    long after_kib = resident_kib();
    printf(json ? "{\"tracker\": \"%s\", \"connections\": %" PRIu64 ", \"busy\": %" PRIu64
                  ", \"looks\": %u, \"median_ms\": %.2f, \"longest_ms\": %.2f, \"cpu_median_ms\": %.2f, "
                  "\"resident_before_kib\": %ld, "
                  "\"resident_after_kib\": %ld}\n"
                : "%s: %" PRIu64 " connections, %" PRIu64
                  " busy; %u looks, median %.2f ms, longest %.2f ms, of the processor %.2f ms; resident %ld "
                  "KiB before, %ld KiB after\n",
        tracker_name(tracker), found.connections, found.busy, looks, times[looks / 2], times[looks - 1],
        cpu[looks / 2], before_kib, after_kib);
    return found.known && found.connections == wanted && !found.busy && !found.unread && !found.unsent;
}

static unsigned parse_number(const char *text, unsigned most)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    if (*end || number < 1 || number > most)
        errx(2, "%s: 1 to %u", text, most);
    return (unsigned)number;
}

static void parse(int argc, char *argv[])
{
    static const struct option known[] = {{"connections", required_argument, NULL, 'c'},
        {"looks", required_argument, NULL, 'l'}, {"tracker", required_argument, NULL, 't'},
        {"json", no_argument, NULL, 'j'}, {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (option == 'c')
            wanted = parse_number(optarg, 1000000);
        else if (option == 'l')
            looks = parse_number(optarg, LOOKS_MAX);
        else if (option == 't')
            kind = strcmp(optarg, "sock_diag") == 0 ? TRACKER_SOCK_DIAG : TRACKER_EBPF;
        else if (option == 'j')
            json = true;
        else
            exit(2);
    }
}

int main(int argc, char *argv[])
{
    parse(argc, argv);
    unsigned processes = (wanted + share() - 1) / share();
    struct tracker *tracker;
    struct error error;
    struct sockaddr_in address;
    int listener = open_listener(&address), go[2], worker_done[2], client_done[2];
    if (tracker_open(kind, NULL, &tracker, &error) < 0)
        errx(EX_SKIP, "%s", error.message);
    if (pipe(go) < 0 || pipe(worker_done) < 0 || pipe(client_done) < 0)
        err(1, "pipe");
    if (tracker_listen(tracker, listener, TAG, INFLIGHT_HTTP1, &error) < 0)
        errx(1, "%s", error.message);
    pid_t worker = fork_child();
    if (worker == 0) {
        setpgid(0, 0);
        hear(go[0], "the parent");
        hold(accept_one, listener, &address, worker_done[1]);
    }
    setpgid(worker, worker);
    int pidfd = (int)syscall(SYS_pidfd_open, worker, 0);
    int slot = tracker_begin(tracker, pidfd, worker, &error);
    if (slot < 0)
        errx(1, "%s", error.message);
    say(go[1]);
    long before_kib = resident_kib();
    pid_t client = fork_child();
    if (client == 0)
        hold(connect_one, listener, &address, client_done[1]);
    close(worker_done[1]);
    close(client_done[1]);
    for (unsigned i = 0; i < processes; i++) {
        hear(client_done[0], "a client");
        hear(worker_done[0], "the worker");
    }
    /* Nobody takes the events here: from the start of it there would be more than the ring holds. */
    tracker_drain(tracker, (unsigned)slot);
    bool good = measure(tracker, (unsigned)slot, before_kib);
    kill(client, SIGKILL);
    kill(worker, SIGKILL);
    waitpid(client, NULL, 0);
    waitpid(worker, NULL, 0);
    tracker_close(tracker);
    return good ? 0 : 1;
}
