/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/service_verb.h"
#include "cli/verb.h"

static const char help[] =
    "usage: gapless restart [SERVICE] [--no-wait] [--json] [--admin PATH | --name NAME]\n"
    "\n"
    "Replaces the workers of one service, or of all of them, one by one: each by a new one\n"
    "of the same version, which is ready before the old one is told to go. The version is\n"
    "what its generation began with, whatever lies there now. Waits until the last one is\n"
    "replaced. Ctrl-C only stops watching.\n"
    "\n"
    "  --no-wait     return once the master has accepted it\n"
    "  --json        each step, and the result, as one JSON object a line\n"
    "  --admin PATH  the master whose admin socket that is\n"
    "  --name NAME   the master of that name\n"
    "  --help\n"
    "\n"
    "Exit codes: 0 restarted (with --no-wait: accepted), 1 failed, the workers that were\n"
    "not replaced serve on, 2 usage, 3 refused: an upgrade or another restart is under\n"
    "way, 4 no master, 130 interrupted.\n";

int verb_restart(int argc, char *const argv[])
{
    struct service_verb verb = {.verb = "restart", .help = help};
    int code = service_verb_parse(&verb, argc, argv);
    if (code >= 0)
        return code;
    Gapless__Admin__RestartRequest restart = GAPLESS__ADMIN__RESTART_REQUEST__INIT;
    restart.service = (char *)verb.service;
    restart.has_no_wait = restart.no_wait = verb.no_wait;
    Gapless__Admin__Request request = GAPLESS__ADMIN__REQUEST__INIT;
    request.body_case = GAPLESS__ADMIN__REQUEST__BODY_RESTART;
    request.restart = &restart;
    return exchange_run(&verb.exchange, &request);
}
