/* SPDX-License-Identifier: BSD-2-Clause */
/* The configuration as a file: the bytes are its text. */
#include "check.h"
#include "fuzz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size);
    char *const argv[] = {"-c", "fuzz.yaml", NULL};
    struct config *config = NULL;
    enum config_action action;
    struct error error = {0};
    int result = config_load(2, argv, text, &config, &action, &error);
    if (result < 0)
        check_refusal(result, &error);
    else
        check_config(config);
    config_unref(config);
    free(text);
    return 0;
}
