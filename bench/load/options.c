/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench/load/options.h"

#include "gapless_config.h"
#include "master/http_response.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

enum option_id {
    OPT_RATE = 256,
    OPT_CLIENTS,
    OPT_KEEPALIVE,
    OPT_SLOW,
    OPT_IDLE,
    OPT_INTERVAL,
    OPT_SLOW_TIME,
    OPT_SLOW_PIECES,
    OPT_SLOW_PATH,
    OPT_TIMEOUT,
    OPT_RETRY,
    OPT_DURATION,
    OPT_REQUESTS,
    OPT_SOURCE_ADDRESSES,
    OPT_PATH,
    OPT_HEADER,
    OPT_BY_HEADER,
    OPT_BY_BODY,
    OPT_ANY_STATUS,
    OPT_ALLOW_REMOTE,
    OPT_PROGRESS,
    OPT_MARKS,
    OPT_QUIET,
    OPT_JSON,
    OPT_HELP,
    OPT_VERSION
};

static const struct option long_options[] = {
    {"rate", required_argument, NULL, OPT_RATE},
    {"clients", required_argument, NULL, OPT_CLIENTS},
    {"keepalive", required_argument, NULL, OPT_KEEPALIVE},
    {"slow", required_argument, NULL, OPT_SLOW},
    {"idle", required_argument, NULL, OPT_IDLE},
    {"interval", required_argument, NULL, OPT_INTERVAL},
    {"slow-time", required_argument, NULL, OPT_SLOW_TIME},
    {"slow-pieces", required_argument, NULL, OPT_SLOW_PIECES},
    {"slow-path", required_argument, NULL, OPT_SLOW_PATH},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"retry", required_argument, NULL, OPT_RETRY},
    {"duration", required_argument, NULL, OPT_DURATION},
    {"requests", required_argument, NULL, OPT_REQUESTS},
    {"source-addresses", required_argument, NULL, OPT_SOURCE_ADDRESSES},
    {"path", required_argument, NULL, OPT_PATH},
    {"header", required_argument, NULL, OPT_HEADER},
    {"by-header", required_argument, NULL, OPT_BY_HEADER},
    {"by-body", no_argument, NULL, OPT_BY_BODY},
    {"any-status", no_argument, NULL, OPT_ANY_STATUS},
    {"allow-remote", no_argument, NULL, OPT_ALLOW_REMOTE},
    {"progress", no_argument, NULL, OPT_PROGRESS},
    {"marks-from-stdin", no_argument, NULL, OPT_MARKS},
    {"quiet", no_argument, NULL, OPT_QUIET},
    {"json", required_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {0},
};

static const char help[] =
    "Usage: gapless-load [OPTION]… TARGET…\n"
    "Puts HTTP/1.1 load on servers of this machine and counts how every single attempt ended.\n"
    "\n"
    "TARGET is tcp:HOST:PORT[/path], http://HOST[:PORT][/path], unix:/PATH[:/path] or unix:@NAME[:/path];\n"
    "the lower-case path is the request's. Several targets share the load.\n"
    "\n"
    "What to do (at least one; they can be mixed):\n"
    "  --rate R              R new connections a second with one request each, however long the answers "
    "take\n"
    "  --clients N           N clients, each: connect, one request, and again\n"
    "  --keepalive N         N clients, each sending request after request on a kept connection\n"
    "  --slow N              N clients, each: connect, send a request in pieces, and again\n"
    "  --idle N              N connections that send nothing\n"
    "\n"
    "  --interval TIME       pause of a keep-alive client after each answer (0)\n"
    "  --slow-time TIME      from a slow request's first piece to its last (2s; 0: sent at once)\n"
    "  --slow-pieces N       pieces of a slow request (8)\n"
    "  --slow-path PATH      request path of slow clients (as the others)\n"
    "  --path PATH           request path for targets that name none (/)\n"
    "  --header 'NAME: VALUE'  one more request header; repeatable\n"
    "\n"
    "How long:\n"
    "  --duration TIME       no attempt begins after TIME (10s, unless --requests is given)\n"
    "  --requests N          no attempt begins after N requests\n"
    "  --timeout TIME        for a connection to be made, and for the whole answer once the request is sent "
    "(10s)\n"
    "  --retry TIME          pause of a client after an attempt that failed (10ms)\n"
    "  TIME is a number with a unit: 30s, 500ms, 2m, 1h. SIGINT or SIGTERM stops in order, a second one at "
    "once.\n"
    "\n"
    "What to show:\n"
    "  --json FILE           every number, as JSON, into FILE (-: standard output, instead of the table)\n"
    "  --by-header NAME      count the answers by the value of a response header\n"
    "  --by-body             count the answers by the first line of the body\n"
    "  --marks-from-stdin    obey lines `begin NAME`, `end NAME` and `stop`: latencies apart for named "
    "windows\n"
    "  --progress            a line for the first answer, and one each second, on standard error\n"
    "  --any-status          answers with status 400 and above are no failures\n"
    "  --quiet               no table\n"
    "\n"
    "  --source-addresses N  spread connections to 127.0.0.0/8 over N source addresses from 127.0.0.1 on "
    "(16; 0: off)\n"
    "  --allow-remote        permit targets that are not on this machine\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 no attempt failed; 1 some did, or the generator itself met an error; 2 usage.\n";

static int invalid_value(struct error *error, const char *option, const char *value, const char *expected)
{
    return error_set(error, EINVAL, BLAME_USER, "--%s `%s`: %s", option, value, expected);
}

static int parse_number(const char *option, const char *value, uint64_t least, uint64_t most,
    uint64_t *ret_number, struct error *error)
{
    char expected[80];
    snprintf(expected, sizeof(expected), "a number from %" PRIu64 " to %" PRIu64 " is expected", least, most);
    if (*value == '\0' || value[strspn(value, "0123456789")])
        return invalid_value(error, option, value, expected);
    errno = 0;
    unsigned long long number = strtoull(value, NULL, 10);
    if (errno || number < least || number > most)
        return invalid_value(error, option, value, expected);
    *ret_number = number;
    return 0;
}

static int parse_time(
    const char *option, const char *value, bool zero_allowed, uint64_t *ret_ns, struct error *error)
{
    static const struct {
        const char *unit;
        uint64_t ns;
    } units[] = {
        {"us", 1000}, {"ms", NS_PER_MS}, {"s", NS_PER_S}, {"m", 60 * NS_PER_S}, {"h", 3600 * NS_PER_S}};
    static const char expected[] = "a time like 30s, 500ms or 2m is expected (at most 24h)";
    size_t digits = strspn(value, "0123456789");
    if (digits == 0 || digits > 12)
        return invalid_value(error, option, value, expected);
    uint64_t number = strtoull(value, NULL, 10);
    uint64_t unit = strcmp(value, "0") == 0 ? 1 : 0;
    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
        if (strcmp(value + digits, units[i].unit) == 0)
            unit = units[i].ns;
    }
    if (unit == 0 || number > 24 * (3600 * NS_PER_S) / unit || (number == 0 && !zero_allowed))
        return invalid_value(error, option, value, expected);
    *ret_ns = number * unit;
    return 0;
}

static int parse_path(const char *option, const char *value, const char **ret_path, struct error *error)
{
    if (!target_path_valid(value))
        return invalid_value(error, option, value, "a path begins with / and has no spaces");
    *ret_path = value;
    return 0;
}

static bool is_header_name(const char *name, size_t length)
{
    return length > 0 &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") >= length;
}

static int add_header(struct load_options *options, const char *value, struct error *error)
{
    const char *colon = strchr(value, ':');
    if (!colon || !is_header_name(value, (size_t)(colon - value)) || strpbrk(value, "\r\n"))
        return invalid_value(error, "header", value, "`NAME: VALUE` is expected");
    if (options->header_count == LOAD_HEADER_MAX)
        return invalid_value(error, "header", value, "at most 16 can be given");
    options->headers[options->header_count++] = value;
    return 0;
}

static int take_number_option(struct load_options *o, int id, const char *value, struct error *error)
{
    switch (id) {
    case OPT_RATE:
        return parse_number("rate", value, 1, 1000000, &o->rate, error);
    case OPT_CLIENTS:
        return parse_number("clients", value, 1, LOAD_CLIENTS_MAX, &o->clients, error);
    case OPT_KEEPALIVE:
        return parse_number("keepalive", value, 1, LOAD_CLIENTS_MAX, &o->keepalive, error);
    case OPT_SLOW:
        return parse_number("slow", value, 1, LOAD_CLIENTS_MAX, &o->slow, error);
    case OPT_IDLE:
        return parse_number("idle", value, 1, LOAD_CLIENTS_MAX, &o->idle, error);
    case OPT_SLOW_PIECES:
        return parse_number("slow-pieces", value, 2, 1000, &o->slow_pieces, error);
    case OPT_REQUESTS:
        return parse_number("requests", value, 1, UINT64_C(1000000000000), &o->requests, error);
    case OPT_SOURCE_ADDRESSES:
        return parse_number("source-addresses", value, 0, 250, &o->source_addresses, error);
    case OPT_INTERVAL:
        return parse_time("interval", value, true, &o->interval_ns, error);
    case OPT_SLOW_TIME:
        return parse_time("slow-time", value, true, &o->slow_time_ns, error);
    case OPT_TIMEOUT:
        return parse_time("timeout", value, false, &o->timeout_ns, error);
    case OPT_RETRY:
        return parse_time("retry", value, false, &o->retry_ns, error);
    default:
        return parse_time("duration", value, false, &o->duration_ns, error);
    }
}

static int take_option(struct load_options *o, int id, const char *value, struct error *error)
{
    switch (id) {
    case OPT_PATH:
        return parse_path("path", value, &o->path, error);
    case OPT_SLOW_PATH:
        return parse_path("slow-path", value, &o->slow_path, error);
    case OPT_HEADER:
        return add_header(o, value, error);
    case OPT_BY_HEADER:
        if (!is_header_name(value, strlen(value)))
            return invalid_value(error, "by-header", value, "a header's name is expected");
        o->by_header = value;
        return 0;
    case OPT_BY_BODY:
        o->by_body = true;
        return 0;
    case OPT_ANY_STATUS:
        o->any_status = true;
        return 0;
    case OPT_ALLOW_REMOTE:
        o->allow_remote = true;
        return 0;
    case OPT_PROGRESS:
        o->progress = true;
        return 0;
    case OPT_MARKS:
        o->marks_from_stdin = true;
        return 0;
    case OPT_QUIET:
        o->quiet = true;
        return 0;
    case OPT_JSON:
        o->json = value;
        return 0;
    default:
        return take_number_option(o, id, value, error);
    }
}

static int add_target(struct load_options *options, const char *text, struct error *error)
{
    if (options->target_count == LEDGER_TARGET_MAX)
        return error_set(error, EINVAL, BLAME_USER, "target `%s`: more than %d", text, LEDGER_TARGET_MAX);
    int r = target_parse(text, &options->targets[options->target_count], error);
    if (r < 0)
        return r;
    const struct target *target = &options->targets[options->target_count++];
    if (!target->local && !options->allow_remote)
        return error_set(error, EINVAL, BLAME_USER,
            "target `%s` is not on this machine (--allow-remote permits that)", text);
    return 0;
}

static int check(struct load_options *o, struct error *error)
{
    if (o->target_count == 0)
        return error_set(error, EINVAL, BLAME_USER, "no target is given (see --help)");
    if (!o->rate && !o->clients && !o->keepalive && !o->slow && !o->idle)
        return error_set(error, EINVAL, BLAME_USER,
            "nothing to do: give --rate, --clients, --keepalive, --slow or --idle (see --help)");
    if (o->by_header && o->by_body)
        return error_set(error, EINVAL, BLAME_USER, "--by-header and --by-body exclude each other");
    if (o->requests && !o->rate && !o->clients && !o->keepalive && !o->slow)
        return error_set(
            error, EINVAL, BLAME_USER, "--requests with --idle alone: it sends none; give --duration");
    if (!o->requests && !o->duration_ns)
        o->duration_ns = 10 * NS_PER_S;
    return 0;
}

static int parse_arguments(int count, char **arguments, struct load_options *options, struct error *error)
{
    opterr = 0;
    optind = 0; /* glibc: start over, so that a test can parse many lines */
    int id;
    while ((id = getopt_long(count, arguments, ":h", long_options, NULL)) != -1) {
        int r;
        if (id == OPT_HELP || id == 'h')
            return fputs(help, stdout) < 0 ? error_errno(error, errno, BLAME_SYSTEM, "writing the help") : 1;
        if (id == OPT_VERSION)
            return puts("gapless-load " GAPLESS_VERSION) < 0
                       ? error_errno(error, errno, BLAME_SYSTEM, "writing")
                       : 1;
        if (id == ':')
            r = error_set(error, EINVAL, BLAME_USER, "%s needs a value", arguments[optind - 1]);
        else if (id == '?')
            r = error_set(error, EINVAL, BLAME_USER, "%s: %s (see --help)", arguments[optind - 1],
                optopt >= OPT_RATE ? "this option takes no value" : "there is no such option");
        else
            r = take_option(options, id, optarg, error);
        if (r < 0)
            return r;
    }
    for (int i = optind; i < count; i++) {
        int r = add_target(options, arguments[i], error);
        if (r < 0)
            return r;
    }
    return check(options, error);
}

int load_options_parse(int count, char **arguments, struct load_options *ret_options, struct error *error)
{
    struct load_options options = {
        .slow_time_ns = 2 * NS_PER_S,
        .slow_pieces = 8,
        .timeout_ns = 10 * NS_PER_S,
        .retry_ns = 10 * NS_PER_MS,
        .source_addresses = 16,
        .path = "/",
    };
    int r = parse_arguments(count, arguments, &options, error);
    if (r != 0) {
        load_options_done(&options);
        return r;
    }
    *ret_options = options;
    return 0;
}

void load_options_done(struct load_options *options)
{
    if (!options)
        return;
    for (unsigned i = 0; i < options->target_count; i++)
        target_done(&options->targets[i]);
    options->target_count = 0;
}
