/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/service_verb.h"

#include "cli/options.h"
#include "cli/verb.h"

#include <stdio.h>

int service_verb_parse(struct service_verb *verb, int argc, char *const argv[])
{
    const struct option_spec specs[] = {
        {.name = "no-wait", .flag = &verb->no_wait},
        {.name = "json", .flag = &verb->exchange.json},
        {.name = "admin", .value = &verb->exchange.target.admin},
        {.name = "name", .value = &verb->exchange.target.name},
        /* The last: not every verb has one. */
        {.name = verb->can_force ? "force" : "dry-run",
            .flag = verb->can_force ? &verb->force : &verb->dry_run},
    };
    const struct option_set set = {.verb = verb->verb,
        .help = verb->help,
        .specs = specs,
        .spec_count = sizeof specs / sizeof *specs - !(verb->can_dry_run || verb->can_force),
        .operand_name = "SERVICE",
        .operand = &verb->service};
    int code;
    if (!options_accept(&set, argc, argv, &code))
        return code;
    if (verb->dry_run && verb->no_wait) {
        fprintf(stderr, "gapless %s: --dry-run and --no-wait exclude each other\n", verb->verb);
        return VERB_USAGE;
    }
    verb->exchange.verb = verb->dry_run ? "dry run" : verb->verb;
    verb->exchange.untimed = verb->dry_run;
    verb->exchange.watch = true;
    return -1;
}
