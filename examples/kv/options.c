/* SPDX-License-Identifier: BSD-2-Clause */
#include "options.h"

#include <ctype.h>
#include <err.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define USAGE "usage: kv [--port N] [--memory SIZE] [--value-max SIZE] [--schema 1|2] [--version-name V]"
/* A record has less than 8 MiB (gapless_state.h); more would need blobs. */
#define VALUE_MAX_MAX (7u << 20)

/* "65536", "64k", "64m", "1g", or as gapless spells it: "64MiB". */
static uint64_t parse_size(const char *text, uint64_t most)
{
    static const char units[] = "kmg";
    char *end;
    uint64_t size = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, tolower((unsigned char)*end)) : NULL;
    unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    bool whole = !*end || (unit && (!end[1] || strcmp(end + 1, "iB") == 0));
    if (end == text || *text == '-' || !whole || size == 0 || size > most >> shift)
        errx(2, "%s: a size (64k, 64m, 1g), at most %llu bytes", text, (unsigned long long)most);
    return size << shift;
}

static int parse_number(const char *text, int least, int most)
{
    char *end;
    long number = strtol(text, &end, 10);
    if (end == text || *end || number < least || number > most)
        errx(2, "%s: %d to %d", text, least, most);
    return (int)number;
}

struct options options_parse(int argc, char *argv[])
{
    static const struct option long_options[] = {
        {"port", required_argument, NULL, 'p'},
        {"memory", required_argument, NULL, 'm'},
        {"value-max", required_argument, NULL, 'x'},
        {"schema", required_argument, NULL, 's'},
        {"version-name", required_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {.port = -1,
        .memory_max = UINT64_C(1) << 30,
        .value_max = 1u << 20,
        .schema = RECORD_SCHEMA_2,
        .version = "1"};
    int option;
    while ((option = getopt_long(argc, argv, "p:m:v:", long_options, NULL)) != -1) {
        if (option == 'p')
            options.port = parse_number(optarg, 1, 65535);
        else if (option == 'm')
            options.memory_max = parse_size(optarg, UINT64_C(1) << 50);
        else if (option == 'x')
            options.value_max = (uint32_t)parse_size(optarg, VALUE_MAX_MAX);
        else if (option == 's')
            options.schema = (enum record_schema)parse_number(optarg, RECORD_SCHEMA_1, RECORD_SCHEMA_2);
        else if (option == 'v')
            options.version = optarg;
        else
            errx(2, USAGE);
    }
    if (optind < argc)
        errx(2, USAGE);
    return options;
}
