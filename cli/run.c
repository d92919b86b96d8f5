/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/verb.h"
#include "master/config.h"
#include "master/keeper/keeper.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool mentions_help(int argc, char *const argv[])
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

/* Whether it is our help that is asked for: a --help among the arguments may also be the command's. Reading
 * the configuration here is only for that: it is the master's to read, once, since it may be a pipe. */
static bool asks_for_help(int argc, char *const argv[])
{
    struct config *config = NULL;
    enum config_action action = CONFIG_RUN;
    if (!mentions_help(argc, argv) || config_load(argc, argv, NULL, &config, &action, NULL) < 0)
        return false;
    config_unref(config);
    return action == CONFIG_HELP;
}

int verb_run(int argc, char *const argv[])
{
    if (asks_for_help(argc, argv)) {
        config_help(stdout);
        return VERB_DONE;
    }
    return keeper_run(argc, argv);
}
