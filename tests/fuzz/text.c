/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

char *fuzz_text(const uint8_t *data, size_t size)
{
    char *text = size ? strndup((const char *)data, size) : strdup("");
    if (!text)
        abort();
    return text;
}
