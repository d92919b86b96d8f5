/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/doctor/bounded.h"
#include "cli/options.h"
#include "cli/verb.h"

#include <signal.h>
#include <sys/mman.h>
#include <time.h>

/* What one try may take, one that loads more than a program or two (on a busy host), and all of them. */
#define TRY_MS 1000
#define LONG_TRY_MS 2000
#define ALL_MS 4500

static const char help[] =
    "usage: gapless doctor [--json]\n"
    "\n"
    "Says what this host can do, with the rights of whoever asks: capture of what a\n"
    "server binds itself, steering of connections from generation to generation,\n"
    "tracking of what is in flight, and telling clients of kept connections to close.\n"
    "Each is really tried, on loopback and in the directory for temporary files; no\n"
    "master is needed, and nothing is left. What doesn't work has a reason, and below\n"
    "it what can be done.\n"
    "\n"
    "  --json        the same as one JSON object\n"
    "  --help\n"
    "\n"
    "Exit codes: 0 everything that gapless needs works in one form at least, 1 something\n"
    "is missing, 2 usage.\n";

static const struct {
    enum finding_id id;
    doctor_try *try;
    long most_ms;
} tries[] = {
    {FINDING_KERNEL, try_kernel, TRY_MS},
    {FINDING_PIDFD, try_pidfd, TRY_MS},
    {FINDING_OPEN_FILES, try_open_files, TRY_MS},
    {FINDING_CAPTURE, try_capture, TRY_MS},
    {FINDING_STEERING_EBPF, try_steering_ebpf, TRY_MS},
    {FINDING_STEERING_CBPF, try_steering_cbpf, TRY_MS},
    {FINDING_STEERING_PATH, try_steering_path, TRY_MS},
    {FINDING_TRACKING_EBPF, try_tracking_ebpf, LONG_TRY_MS},
    {FINDING_TRACKING_SOCK_DIAG, try_tracking_sock_diag, TRY_MS},
    {FINDING_KEEPALIVE, try_keepalive, LONG_TRY_MS},
};

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void try_all(struct findings *findings)
{
    long deadline = now_ms() + ALL_MS;
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        long left = deadline - now_ms();
        bounded_run(
            tries[i].try, tries[i].id, (int)(left < tries[i].most_ms ? left : tries[i].most_ms), findings);
    }
    /* It is found with capture. */
    struct finding *found = &findings->all[FINDING_NO_NEW_PRIVS];
    if (found->state == FINDING_UNKNOWN)
        finding_set(found, FINDING_NO, "not known: capture gave no answer");
}

static bool print_json(const struct findings *findings)
{
    json_t *json = findings_json(findings);
    bool done = json && json_dumpf(json, stdout, JSON_INDENT(2)) == 0 && putchar('\n') != EOF;
    json_decref(json);
    return done;
}

int verb_doctor(int argc, char *const argv[])
{
    bool json = false;
    const struct option_spec specs[] = {{.name = "json", .flag = &json}};
    const struct option_set set = {
        .verb = "doctor", .help = help, .specs = specs, .spec_count = sizeof specs / sizeof *specs};
    int code;
    if (!options_accept(&set, argc, argv, &code))
        return code;
    struct findings *findings =
        mmap(NULL, sizeof *findings, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (findings == MAP_FAILED) {
        fputs("gapless doctor: out of memory\n", stderr);
        return VERB_FAILED;
    }
    /* Whoever started us may have ignored it, and then nothing can be waited for. */
    signal(SIGCHLD, SIG_DFL);
    try_all(findings);
    bool done = true;
    if (json)
        done = print_json(findings);
    else
        findings_print(stdout, findings);
    if (!done || fflush(stdout) != 0) {
        fputs("gapless doctor: cannot print what was found\n", stderr);
        return VERB_FAILED;
    }
    return findings_suffice(findings) ? VERB_DONE : VERB_FAILED;
}
