/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/exchange.h"
#include "cli/options.h"
#include "cli/verb.h"

static const char help[] =
    "usage: gapless stop [--json] [--admin PATH | --name NAME]\n"
    "\n"
    "Stops a master and its services, as TERM does: native workers, and those with a\n"
    "drain.signal, finish what they have begun, within their drain.timeout. Others get\n"
    "their stop signal at once. Waits for all. Ctrl-C only stops watching.\n"
    "\n"
    "  --json        each phase, and the result, as one JSON object a line\n"
    "  --admin PATH  the master whose admin socket that is\n"
    "  --name NAME   the master of that name\n"
    "  --help\n"
    "\n"
    "Exit codes: 0 stopped, 1 failed, with the reason, 2 usage, 4 no master, 130\n"
    "interrupted.\n";

int verb_stop(int argc, char *const argv[])
{
    struct exchange exchange = {.verb = "stop", .watch = true};
    const struct option_spec specs[] = {
        {.name = "json", .flag = &exchange.json},
        {.name = "admin", .value = &exchange.target.admin},
        {.name = "name", .value = &exchange.target.name},
    };
    const struct option_set set = {
        .verb = "stop", .help = help, .specs = specs, .spec_count = sizeof specs / sizeof *specs};
    int code;
    if (!options_accept(&set, argc, argv, &code))
        return code;
    Gapless__Admin__StopRequest stop = GAPLESS__ADMIN__STOP_REQUEST__INIT;
    Gapless__Admin__Request request = GAPLESS__ADMIN__REQUEST__INIT;
    request.body_case = GAPLESS__ADMIN__REQUEST__BODY_STOP;
    request.stop = &stop;
    return exchange_run(&exchange, &request);
}
