/* SPDX-License-Identifier: BSD-2-Clause */
/* The configuration by flags: each line is a word of the command line. */
#include "check.h"
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size), *rest = text;
    char *argv[WORDS_MAX + 1];
    int argc = 0;
    while (rest && argc < WORDS_MAX)
        argv[argc++] = strsep(&rest, "\n");
    argv[argc] = NULL;
    struct config *config = NULL;
    enum config_action action = CONFIG_RUN;
    struct error error = {0};
    /* A text of its own, so that -c opens nothing. */
    int result = config_load(argc, argv, "services: {web: {command: server}}", &config, &action, &error);
    if (result < 0)
        check_refusal(result, &error);
    else if (action == CONFIG_RUN)
        check_config(config);
    config_unref(config);
    free(text);
    return 0;
}
