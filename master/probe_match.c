/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/probe_match.h"

#include "ipc/fd.h"
#include "master/forked.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct probe_matching {
    struct probe_match_request request;
    int pidfd;
    struct event *ended;
};

/* What is meant for the group of the main process isn't meant for this: it ends with the master. */
static _Noreturn void match(const struct probe_answer *answer)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        signal(numbers[i], SIG_IGN);
    prctl(PR_SET_NAME, "gapless-match");
    syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, 0);
    _exit(probe_answer_match(answer));
}

static void on_ended(evutil_socket_t fd, short what, void *ctx)
{
    struct probe_matching *matching = ctx;
    int code = forked_end(matching->pidfd);
    fd_close(&matching->pidfd);
    matching->request.done(matching->request.ctx,
        code >= 0 && code < PROBE_MATCH_COUNT ? (enum probe_match)code : PROBE_MATCH_BROKEN);
}

struct probe_matching *probe_match_start(const struct probe_match_request *request, struct error *error)
{
    struct probe_matching *matching = calloc(1, sizeof *matching);
    if (!matching) {
        error_set(error, ENOMEM, BLAME_OURS, "out of memory");
        return NULL;
    }
    *matching = (struct probe_matching){.request = *request, .pidfd = -1};
    int r = forked_begin(&matching->pidfd);
    if (r == 0)
        match(request->answer);
    if (r > 0)
        matching->ended = event_new(request->base, matching->pidfd, EV_READ, on_ended, matching);
    if (r < 0)
        error_errno(error, -r, BLAME_SYSTEM, "cannot fork to try the patterns");
    else if (!matching->ended || event_add(matching->ended, NULL) < 0)
        r = error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    if (r < 0) {
        probe_match_free(matching);
        return NULL;
    }
    return matching;
}

static void on_killed(evutil_socket_t fd, short what, void *ctx)
{
    forked_end(fd);
    close(fd);
}

void probe_match_free(struct probe_matching *matching)
{
    if (!matching)
        return;
    if (matching->ended)
        event_free(matching->ended);
    int pidfd = fd_take(&matching->pidfd);
    if (pidfd >= 0) {
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        /* Reaped when it has ended, which isn't waited for. */
        if (event_base_once(matching->request.base, pidfd, EV_READ, on_killed, NULL, NULL) < 0)
            close(pidfd);
    }
    free(matching);
}
