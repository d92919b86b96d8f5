/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/kv_check/options.h"

#include "tests/helpers/kv_check/client.h"

#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const ops[OP_COUNT] = {"get", "set", "delete", "incr", "expiring"};

static uint64_t number(const char *text, const char *end, uint64_t least, uint64_t most)
{
    char *behind;
    errno = 0;
    uint64_t n = strtoull(text, &behind, 10);
    if (errno || behind == text || (end ? behind != end : *behind != 0) || n < least || n > most)
        errx(64, "%s: %" PRIu64 " to %" PRIu64, text, least, most);
    return n;
}

static void parse_sizes(const char *text, struct value_sizes *ret_sizes)
{
    const char *dash = strchr(text, '-');
    ret_sizes->least = (uint32_t)number(text, dash, VALUE_SIZE_MIN, VALUE_SIZE_MAX);
    ret_sizes->most =
        dash ? (uint32_t)number(dash + 1, NULL, ret_sizes->least, VALUE_SIZE_MAX) : ret_sizes->least;
}

static void parse_mix(char *text, uint32_t mix[OP_COUNT])
{
    memset(mix, 0, OP_COUNT * sizeof mix[0]);
    char *state = NULL;
    for (char *part = strtok_r(text, ",", &state); part; part = strtok_r(NULL, ",", &state)) {
        char *equals = strchr(part, '=');
        size_t size = equals ? (size_t)(equals - part) : strlen(part);
        unsigned op = 0;
        while (op < OP_COUNT && (strlen(ops[op]) != size || memcmp(ops[op], part, size) != 0))
            op++;
        if (op == OP_COUNT || !equals)
            errx(64, "%s: KIND=SHARE", part);
        mix[op] = (uint32_t)number(equals + 1, NULL, 0, 1000000);
    }
    uint32_t sum = 0;
    for (unsigned op = 0; op < OP_COUNT; op++)
        sum += mix[op];
    if (sum == 0)
        errx(64, "--mix: nothing is left");
}

static void parse_option(struct check_options *o, int option, char *value)
{
    switch (option) {
    case 't':
        o->to = value;
        break;
    case 'x':
        o->prefix = value;
        break;
    case 'c':
        o->connections = (uint32_t)number(value, NULL, 1, 100000);
        break;
    case 'f':
        o->fill = (uint32_t)number(value, NULL, 1, 100000000);
        break;
    case 'z':
        parse_sizes(value, &o->sizes);
        break;
    case 'n':
        o->counters = (uint32_t)number(value, NULL, 1, 1000);
        break;
    case 'm':
        parse_mix(value, o->mix);
        break;
    case 'l':
        o->ttl_s = (uint32_t)number(value, NULL, 1, 60);
        break;
    case 'u':
        o->cut = (uint32_t)number(value, NULL, 0, 100);
        break;
    case 'p':
        o->pipeline = (uint32_t)number(value, NULL, 1, CLIENT_DEPTH_MAX);
        break;
    case 'r':
        o->rate = number(value, NULL, 1, 10000000);
        break;
    case 's':
        o->seconds = (uint32_t)number(value, NULL, 1, 1000000);
        break;
    case 'v':
        o->verify = true;
        break;
    case 'i':
        o->timeout_s = (uint32_t)number(value, NULL, 1, 1000);
        break;
    case 'o':
        o->tolerance_ms = (uint32_t)number(value, NULL, 0, 10000);
        break;
    default:
        errx(64, "usage: kv_check --to HOST:PORT|unix:PATH OPTIONS: see options.h");
    }
}

struct check_options check_options_parse(int argc, char *argv[])
{
    static const struct option long_options[] = {
        {"to", required_argument, NULL, 't'},
        {"prefix", required_argument, NULL, 'x'},
        {"connections", required_argument, NULL, 'c'},
        {"fill", required_argument, NULL, 'f'},
        {"value-size", required_argument, NULL, 'z'},
        {"counters", required_argument, NULL, 'n'},
        {"mix", required_argument, NULL, 'm'},
        {"ttl", required_argument, NULL, 'l'},
        {"cut", required_argument, NULL, 'u'},
        {"pipeline", required_argument, NULL, 'p'},
        {"rate", required_argument, NULL, 'r'},
        {"seconds", required_argument, NULL, 's'},
        {"verify", no_argument, NULL, 'v'},
        {"timeout", required_argument, NULL, 'i'},
        {"tolerance", required_argument, NULL, 'o'},
        {NULL, 0, NULL, 0},
    };
    struct check_options o = {.prefix = "check",
        .connections = 50,
        .fill = 1000,
        .sizes = {VALUE_SIZE_MIN, 1000},
        .counters = 16,
        .mix = {60, 20, 5, 10, 5},
        .ttl_s = 2,
        .cut = 5,
        .pipeline = 1,
        .timeout_s = 30,
        .tolerance_ms = 50};
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        parse_option(&o, option, optarg);
    if (!o.to || optind < argc)
        errx(64, "--to HOST:PORT or unix:PATH is needed, and nothing that isn't an option");
    return o;
}
