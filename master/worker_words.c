/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/worker_words.h"

#include "master/capture/capture.h"
#include "master/generation.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

struct words worker_how_to_be_ready(const struct worker *worker)
{
    struct words words;
    const char *einhorn = worker->einhorn_path ? " nor an einhorn ack" : "";
    char missing[256];
    if (!worker->capture || !capture_is_wanted(worker->generation->settings)) {
        bool nothing = !worker->generation->settings->listener_count && !worker->capture;
        snprintf(words.text, sizeof words.text,
            "it said neither ready on the control channel nor READY=1%s; %s", einhorn,
            nothing ? "no listener is named, and what it binds isn't captured (capture)"
                    : "a server that can't say so needs ready.probe, or ready.alive");
        return words;
    }
    capture_describe_missing(worker, missing, sizeof missing);
    snprintf(words.text, sizeof words.text,
        "%s, and it said neither READY=1 nor ready on the control channel%s",
        *capture_explain(worker) ? capture_explain(worker) : missing, einhorn);
    return words;
}

/* A server that binds what gapless has bound already gets EADDRINUSE, and says so in its own words only. */
struct words worker_why_not_ready(const struct worker *worker, int wait_status)
{
    struct words why = {.text = ""};
    const struct generation *generation = worker->generation;
    if (worker->state != WORKER_STARTING || worker->native || worker->not_executed ||
        WIFSIGNALED(wait_status))
        return why;
    if (worker->capture && capture_is_wanted(worker->generation->settings)) {
        if (*capture_explain(worker))
            snprintf(why.text, sizeof why.text, "%s", capture_explain(worker));
        return why;
    }
    for (size_t i = 0; i < generation->settings->listener_count && !*why.text; i++)
        if (generation->endpoints[i])
            snprintf(why.text, sizeof why.text,
                "if it binds %.100s itself, it got EADDRINUSE: gapless has that address, and %.150s",
                generation->settings->listeners[i].text,
                worker->uncaptured.code ? worker->uncaptured.message
                                        : "doesn't capture what it binds (capture)");
    return why;
}

void worker_describe_exit(int wait_status, char *text, size_t size)
{
    if (wait_status == -1)
        snprintf(text, size, "ended (its exit code is not known)");
    else if (WIFSIGNALED(wait_status))
        snprintf(text, size, "was killed by signal %d (%s)", WTERMSIG(wait_status),
            strsignal(WTERMSIG(wait_status)));
    else
        snprintf(text, size, "exited with code %d", WEXITSTATUS(wait_status));
}
