/* SPDX-License-Identifier: BSD-2-Clause */
/* A listener specification; a copy of what is accepted is the same. */
#include "check.h"
#include "fuzz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size);
    struct listener_spec spec, copy;
    struct error error = {0};
    int result = listener_spec_parse(text, &spec, &error);
    if (result < 0) {
        check_refusal(result, &error);
    } else {
        check_listener(&spec);
        if (listener_spec_copy(&spec, &copy) == 0) {
            if (!listener_spec_same_address(&spec, &copy))
                abort();
            check_listener(&copy);
            listener_spec_done(&copy);
        }
        listener_spec_done(&spec);
    }
    free(text);
    return 0;
}
