/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/probe_spec.h"

#include "master/config.h"
#include "master/config/quote.h"
#include "master/config/value.h"
#include "master/spelling.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

bool probe_spec_can_ask(const struct config_service *service, const struct listener_spec *spec)
{
    enum config_steering steering = config_steering_of(service, spec);
    if (steering == CONFIG_STEERING_SHARED || steering == CONFIG_STEERING_CBPF)
        return false;
    return spec->family == LISTENER_TCP ||
           (spec->family == LISTENER_UNIX && spec->type == SOCK_STREAM && spec->path[0] == '/');
}

static int find_listener(const struct config_service *service, const char *name, size_t length,
    size_t *ret_listener, struct error *error)
{
    for (size_t i = 0; i < service->listener_count; i++) {
        const struct listener_spec *spec = &service->listeners[i];
        if (name && (strlen(spec->name) != length || memcmp(spec->name, name, length) != 0))
            continue;
        if (probe_spec_can_ask(service, spec)) {
            *ret_listener = i;
            return 0;
        }
        if (name)
            return error_set(error, EINVAL, BLAME_USER,
                "'%s' can't be asked: no generation can be reached there alone (that takes TCP with "
                "steering=ebpf, or a "
                "Unix stream path)",
                quote_text(spec->text).text);
    }
    if (name) {
        char word[VALUE_NAME_MAX + 2];
        snprintf(word, sizeof word, "%.*s", (int)length, name);
        return error_set(error, EINVAL, BLAME_USER, "'%s' names no listener", quote_text(word).text);
    }
    if (!service->listener_count && service->capture != CAPTURE_OFF) {
        *ret_listener = 0; /* the first that the workers bind */
        return 0;
    }
    return error_set(error, EINVAL, BLAME_USER,
        "there is no listener where one generation can be reached alone (that takes TCP with steering=ebpf, "
        "or a Unix "
        "stream path)");
}

/* ── the options ── */

/* Each setter takes the value into the specification. */

static int set_status(struct probe_spec *spec, const char *value, struct error *error)
{
    char least[8] = "";
    size_t length = strcspn(value, "-");
    const char *most = value[length] ? value + length + 1 : value;
    int64_t from, to;
    if (length < sizeof least)
        memcpy(least, value, length);
    /* What is less than 200 is followed by another status. */
    if (value_number(least, 200, 599, &from, NULL) < 0 || value_number(most, 200, 599, &to, NULL) < 0 ||
        from > to)
        return error_set(error, EINVAL, BLAME_USER, "'%s' is no status from 200 to 599, or two as in 200-299",
            quote_text(value).text);
    spec->status_least = (int)from;
    spec->status_most = (int)to;
    return 0;
}

static int set_pattern(char ret_pattern[PATTERN_MAX + 1], const char *value, struct error *error)
{
    int r = pattern_check(value, error);
    if (r == 0)
        memcpy(ret_pattern, value, strlen(value) + 1);
    return r;
}

static int set_body(struct probe_spec *spec, const char *value, struct error *error)
{
    return set_pattern(spec->body, value, error);
}

static int set_header(struct probe_spec *spec, const char *value, struct error *error)
{
    size_t length = 0;
    while (
        value[length] && (isalnum((unsigned char)value[length]) || strchr("!#$%&'*+-.^_`|~", value[length])))
        length++;
    if (!length || value[length] != ':' || length > PROBE_HEADER_MAX)
        return error_set(
            error, EINVAL, BLAME_USER, "'%s' is not NAME: PATTERN of a header", quote_text(value).text);
    memcpy(spec->header_name, value, length);
    spec->header_name[length] = '\0';
    const char *pattern = value + length + 1;
    return set_pattern(spec->header, pattern + strspn(pattern, " \t"), error);
}

static int set_host(struct probe_spec *spec, const char *value, struct error *error)
{
    size_t length = strlen(value);
    for (const char *c = value; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("-._:[]", *c))
            length = 0;
    if (!length || length > PROBE_HOST_MAX)
        return error_set(error, EINVAL, BLAME_USER, "'%s' is no name of a host", quote_text(value).text);
    memcpy(spec->host, value, length + 1);
    return 0;
}

static int set_timeout(struct probe_spec *spec, const char *value, struct error *error)
{
    return value_duration(value, 1, INT64_C(3600) * 1000, &spec->timeout_ms, error);
}

static const struct option {
    const char *name;
    bool of_tcp;
    int (*set)(struct probe_spec *spec, const char *value, struct error *error);
} options[] = {
    {"status", false, set_status},
    {"body", false, set_body},
    {"header", false, set_header},
    {"host", false, set_host},
    {"timeout", true, set_timeout},
};
#define OPTIONS (sizeof options / sizeof *options)

/* The option that `text`, which begins with a comma, begins. */
static const struct option *option_at(const char *text)
{
    for (size_t i = 0; i < OPTIONS; i++) {
        size_t length = strlen(options[i].name);
        if (strncmp(text + 1, options[i].name, length) == 0 && text[1 + length] == '=')
            return &options[i];
    }
    return NULL;
}

/* Up to the next option, or to the end. */
static size_t piece_length(const char *text)
{
    size_t length = strcspn(text, ",");
    while (text[length] && !option_at(text + length))
        length += 1 + strcspn(text + length + 1, ",");
    return length;
}

static int take_options(struct probe_spec *spec, const char *text, struct error *error)
{
    unsigned seen = 0;
    while (*text) {
        const struct option *option = option_at(text);
        unsigned bit = option ? 1U << (option - options) : 0;
        if (!option || (!spec->http && !option->of_tcp))
            return error_set(error, EINVAL, BLAME_USER, "'%s': tcp has no option but timeout=TIME",
                quote_text(text + 1).text);
        if (seen & bit)
            return error_set(error, EINVAL, BLAME_USER, "%s= is there twice", option->name);
        seen |= bit;
        const char *value = text + strlen(option->name) + 2;
        size_t length = piece_length(value);
        char *copy = strndup(value, length);
        int r = copy ? option->set(spec, copy, error) : error_set(error, ENOMEM, BLAME_OURS, "out of memory");
        free(copy);
        if (r < 0)
            return r == -ENOMEM ? r : error_prefix(error, "%s", option->name);
        text = value + length;
    }
    return 0;
}

/* An option that is written nearly right would silently belong to the path. */
static int check_commas(const char *path, struct error *error)
{
    const char *names[OPTIONS];
    for (size_t i = 0; i < OPTIONS; i++)
        names[i] = options[i].name;
    for (const char *comma = strchr(path, ','); comma; comma = strchr(comma + 1, ',')) {
        char word[16] = "";
        size_t length = strspn(comma + 1, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_");
        if (comma[1 + length] != '=' || length >= sizeof word)
            continue;
        memcpy(word, comma + 1, length);
        if (spelling_nearest(word, names, OPTIONS))
            return error_set(error, EINVAL, BLAME_USER,
                "'%s=' is no option%s (a comma that belongs to the path can be written %%2C)", word,
                spelling_hint(word, "", names, OPTIONS).text);
    }
    return 0;
}

static int take_path(struct probe_spec *spec, const char *path, size_t length, struct error *error)
{
    if (length > PROBE_PATH_MAX)
        return error_set(error, EINVAL, BLAME_USER, "a path of more than %d bytes: '%s'", PROBE_PATH_MAX,
            quote_text(path).text);
    memcpy(spec->path, path, length);
    for (const char *c = spec->path; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 0x7f)
            return error_set(error, EINVAL, BLAME_USER, "'%s': a path has no blanks", quote_text(path).text);
    return check_commas(spec->path, error);
}

int probe_spec_parse(
    const char *text, const struct config_service *service, struct probe_spec *ret_spec, struct error *error)
{
    size_t length = strcspn(text, "=:/,");
    const char *name = text[length] == '=' ? text : NULL, *rest = name ? text + length + 1 : text;
    struct probe_spec spec = {.host = "localhost", .status_least = 200, .status_most = 399};
    size_t first = piece_length(rest);
    int r = 0;
    if (strncmp(rest, "http:/", 6) == 0) {
        spec.http = true;
        r = take_path(&spec, rest + 5, first - 5, error);
    } else if (strncmp(rest, "tcp", 3) == 0 && (rest[3] == '\0' || rest[3] == ','))
        first = 3;
    else
        r = error_set(error, EINVAL, BLAME_USER, "'%s' is neither tcp nor http:/PATH", quote_text(text).text);
    if (r == 0)
        r = take_options(&spec, rest + first, error);
    if (r == 0)
        r = find_listener(service, name, length, &spec.listener, error);
    if (r == 0)
        *ret_spec = spec;
    return r;
}
