/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/binder/binder.h"

#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct binder_options binder = {.version = "one", .backlog = 511, .many = 1, .rounds = 100};

/* ── who binds ── */

static void *thread_main(void *nothing)
{
    binder_serve();
    return NULL;
}

static void serve_in_thread(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, thread_main, NULL) != 0)
        errx(1, "cannot make a thread");
    pthread_join(thread, NULL);
}

/* Waits for the end of a child, or of any (-1). */
static int await(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            err(1, "waitpid");
    return status;
}

static void end_as(int status)
{
    exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static pid_t serve_in_child(void)
{
    pid_t child = fork();
    if (child < 0)
        err(1, "fork");
    if (child == 0)
        binder_serve();
    return child;
}

/* The same program with the same arguments but --vfork. */
static pid_t serve_in_program(char *argv[])
{
    unsigned kept = 0;
    for (unsigned i = 0; argv[i]; i++)
        if (strcmp(argv[i], "--vfork") != 0)
            argv[kept++] = argv[i];
    argv[kept] = NULL;
    pid_t child = vfork();
    if (child < 0)
        err(1, "vfork");
    if (child == 0) {
        execv("/proc/self/exe", argv);
        _exit(127);
    }
    return child;
}

static void serve_in_processes(void)
{
    for (unsigned i = 0; i < binder.processes; i++)
        serve_in_child();
    for (;;) {
        int status = await(-1);
        if (WIFEXITED(status))
            end_as(status); /* it couldn't */
        serve_in_child();
    }
}

/* ── what comes before ── */

static void prepare(void)
{
    binder_open_record();
    binder_start_signals();
    if (binder.uid > 0 && setresuid(binder.uid, binder.uid, binder.uid) < 0)
        err(1, "setresuid");
    if (binder.undumpable && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        err(1, "PR_SET_DUMPABLE");
    binder_kill_children(binder.killed);
}

/* ── the command line ── */

static unsigned parse_number(const char *text, int base)
{
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, base);
    if (errno || end == text || *end || number > 1000000)
        errx(64, "%s: a number", text);
    return (unsigned)number;
}

enum { VERSION = 256, RECORD, CALLS, MODE };

static void parse(int argc, char *argv[])
{
    static const struct {
        const char *name;
        bool *flag;
        unsigned *number;
    } simple[] = {
        {"blocking", &binder.blocking, NULL},
        {"epoll-first", &binder.epoll_first, NULL},
        {"restart", &binder.restart, NULL},
        {"undumpable", &binder.undumpable, NULL},
        {"reuseport", &binder.reuseport, NULL},
        {"v6only", &binder.v6only, NULL},
        {"unlink", &binder.unlink_path, NULL},
        {"thread", &binder.in_thread, NULL},
        {"fork", &binder.in_child, NULL},
        {"vfork", &binder.in_program, NULL},
        {"rebind", &binder.rebind, NULL},
        {"graceful", &binder.graceful, NULL},
        {"inherited", &binder.inherited, NULL},
        {"deaf", &binder.deaf, NULL},
        {"mute", &binder.mute, NULL},
        {"calls-only", &binder.calls_only, NULL},
        {"backlog", NULL, &binder.backlog},
        {"signals", NULL, &binder.signals_us},
        {"many", NULL, &binder.many},
        {"uid", NULL, &binder.uid},
        {"processes", NULL, &binder.processes},
        {"crash", NULL, &binder.crash_ms},
        {"killed", NULL, &binder.killed},
        {"rounds", NULL, &binder.rounds},
    };
    enum { SIMPLE = sizeof simple / sizeof *simple };
    struct option known[SIMPLE + 5] = {{"version-name", required_argument, NULL, VERSION},
        {"record", required_argument, NULL, RECORD}, {"calls", required_argument, NULL, CALLS},
        {"mode", required_argument, NULL, MODE}};
    for (int i = 0; i < SIMPLE; i++)
        known[4 + i] =
            (struct option){simple[i].name, simple[i].flag ? no_argument : required_argument, NULL, i};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (option == VERSION)
            binder.version = optarg;
        else if (option == RECORD)
            binder.record = optarg;
        else if (option == CALLS)
            binder.calls = optarg;
        else if (option == MODE)
            binder.mode = parse_number(optarg, 8);
        else if (option >= SIMPLE)
            exit(64);
        else if (simple[option].flag)
            *simple[option].flag = true;
        else
            *simple[option].number = parse_number(optarg, 10);
    }
    binder.address_count = (unsigned)(argc - optind);
    binder.addresses = calloc(binder.address_count + 1, sizeof *binder.addresses);
    if (binder.address_count == 0 || !binder.addresses || binder.many == 0 ||
        binder.address_count * binder.many > BINDER_SOCKETS_MAX)
        errx(64, "usage: binder [OPTIONS] ADDRESS…");
    for (unsigned i = 0; i < binder.address_count; i++)
        binder.addresses[i] = binder_parse_address(argv[optind + (int)i]);
}

int main(int argc, char *argv[])
{
    /* parse() lets getopt sort them. */
    char **arguments = calloc((size_t)argc + 1, sizeof *arguments);
    if (!arguments)
        err(1, "arguments");
    memcpy(arguments, argv, (size_t)argc * sizeof *arguments);
    parse(argc, argv);
    if (binder.in_program)
        end_as(await(serve_in_program(arguments)));
    prepare();
    if (binder.processes > 0)
        serve_in_processes();
    if (binder.in_child)
        end_as(await(serve_in_child()));
    if (binder.in_thread)
        serve_in_thread();
    binder_serve();
}
