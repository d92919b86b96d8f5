/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/verb.h"
#include "master/config.h"

#include <stdio.h>

static const char help[] =
    "usage: gapless check -c FILE\n"
    "\n"
    "Reads a configuration as \"gapless run\" would, and says whether it is right. Nothing\n"
    "is started or opened: whether an address is free shows when it is used. It takes\n"
    "everything that \"run\" takes (gapless run --help).\n"
    "\n"
    "Exit codes: 0 it is, 2 it isn't.\n";

int verb_check(int argc, char *const argv[])
{
    struct config *config = NULL;
    enum config_action action = CONFIG_RUN;
    struct error error;
    if (config_load(argc, argv, NULL, &config, &action, &error) < 0) {
        fprintf(stderr, "gapless check: %s\n", error.message);
        return VERB_USAGE;
    }
    if (action == CONFIG_HELP) {
        fputs(help, stdout);
        return VERB_DONE;
    }
    printf("%s: ok (%zu service%s)\n", config->file ? config->file : "command line", config->service_count,
        config->service_count == 1 ? "" : "s");
    config_unref(config);
    return VERB_DONE;
}
