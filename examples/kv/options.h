/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command line of kv.
 */
#ifndef KV_OPTIONS_H
#define KV_OPTIONS_H

#include "record.h"

struct options {
    int port; /* -1: not said, the sockets are gapless's */
    uint64_t memory_max;
    uint32_t value_max;
    enum record_schema schema;
    const char *version;
};

/* Says what is wrong and ends the program with 2. Strings are lent by argv. */
struct options options_parse(int argc, char *argv[]);

#endif
