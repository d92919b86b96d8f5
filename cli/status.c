/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/exchange.h"
#include "cli/options.h"
#include "cli/verb.h"

static const char help[] =
    "usage: gapless status [--json] [--admin PATH | --name NAME]\n"
    "\n"
    "Shows the services of a master: their state, listeners, generations and workers.\n"
    "A number that isn't known is \"-\", in JSON null.\n"
    "\n"
    "  --json        the whole status as one JSON object\n"
    "  --admin PATH  the master whose admin socket that is\n"
    "  --name NAME   the master of that name\n"
    "  --help\n";

int verb_status(int argc, char *const argv[])
{
    struct exchange exchange = {.verb = "status"};
    const struct option_spec specs[] = {
        {.name = "json", .flag = &exchange.json},
        {.name = "admin", .value = &exchange.target.admin},
        {.name = "name", .value = &exchange.target.name},
    };
    const struct option_set set = {
        .verb = "status", .help = help, .specs = specs, .spec_count = sizeof specs / sizeof *specs};
    int code;
    if (!options_accept(&set, argc, argv, &code))
        return code;
    Gapless__Admin__StatusRequest status = GAPLESS__ADMIN__STATUS_REQUEST__INIT;
    Gapless__Admin__Request request = GAPLESS__ADMIN__REQUEST__INIT;
    request.body_case = GAPLESS__ADMIN__REQUEST__BODY_STATUS;
    request.status = &status;
    return exchange_run(&exchange, &request);
}
