/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/listener_option.h"

#include "master/config/quote.h"
#include "master/config/value.h"
#include "master/spelling.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* Bytes of a QUIC connection ID (RFC 9000, section 17.2); of less, two would soon be the same. */
#define CONNECTION_ID_MIN 4
#define CONNECTION_ID_MAX 20

static int copy_text(char **ret_copy, const char *text, size_t length, struct error *error)
{
    char *copy = strndup(text, length);
    if (!copy)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    free(*ret_copy);
    *ret_copy = copy;
    return 0;
}

/* Each setter takes the value ("" is none) into the specification. */

static int set_backlog(struct listener_spec *spec, const char *value, struct error *error)
{
    int64_t number;
    int result = value_number(value, 1, INT_MAX, &number, error);
    if (result == 0)
        spec->backlog = (int)number;
    return result;
}

static int set_v6only(struct listener_spec *spec, const char *value, struct error *error)
{
    bool on = true;
    int result = *value ? value_switch(value, &on, error) : 0;
    spec->v6only = on;
    return result;
}

static int set_mode(struct listener_spec *spec, const char *value, struct error *error)
{
    return value_octal(value, &spec->mode, error);
}

static int set_owner(struct listener_spec *spec, const char *value, struct error *error)
{
    const char *colon = strchr(value, ':');
    size_t length = colon ? (size_t)(colon - value) : strlen(value);
    if (length == 0 || (colon && (colon[1] == '\0' || strchr(colon + 1, ':'))))
        return error_set(error, EINVAL, BLAME_USER, "'%s' is not USER or USER:GROUP", quote_text(value).text);
    int result = copy_text(&spec->owner_user, value, length, error);
    if (result == 0 && colon)
        result = copy_text(&spec->owner_group, colon + 1, strlen(colon + 1), error);
    return result;
}

static int set_type(struct listener_spec *spec, const char *value, struct error *error)
{
    static const char *const names[] = {"stream", "dgram", "seqpacket", NULL};
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    unsigned index;
    int result = value_choice(value, names, &index, error);
    if (result == 0)
        spec->type = types[index];
    return result;
}

static int set_device(struct listener_spec *spec, const char *value, struct error *error)
{
    if (strlen(value) >= IF_NAMESIZE || strpbrk(value, "/ \t:"))
        return error_set(error, EINVAL, BLAME_USER, "'%s' can't be a network device: at most %d letters",
            quote_text(value).text, IF_NAMESIZE - 1);
    return copy_text(&spec->device, value, strlen(value), error);
}

static int set_freebind(struct listener_spec *spec, const char *value, struct error *error)
{
    spec->freebind = true;
    return *value ? value_switch(value, &spec->freebind, error) : 0;
}

static int set_nonblock(struct listener_spec *spec, const char *value, struct error *error)
{
    spec->nonblock = true;
    return *value ? value_switch(value, &spec->nonblock, error) : 0;
}

static int set_transparent(struct listener_spec *spec, const char *value, struct error *error)
{
    spec->transparent = true;
    return *value ? value_switch(value, &spec->transparent, error) : 0;
}

static int set_defer_accept(struct listener_spec *spec, const char *value, struct error *error)
{
    int64_t ms;
    int result = value_duration(value, 0, INT64_C(3600) * 1000, &ms, error);
    if (result < 0)
        return result;
    if (ms % 1000 != 0)
        return error_set(
            error, EINVAL, BLAME_USER, "'%s': the kernel takes whole seconds", quote_text(value).text);
    spec->defer_accept_s = (int)(ms / 1000);
    return 0;
}

static int set_fastopen(struct listener_spec *spec, const char *value, struct error *error)
{
    int64_t number;
    int result = value_number(value, 0, INT_MAX, &number, error);
    if (result == 0)
        spec->fastopen = (int)number;
    return result;
}

static int read_buffer_size(const char *value, int *ret_bytes, struct error *error)
{
    uint64_t bytes;
    /* The kernel doubles what it is given, in an int. */
    int result = value_size(value, INT_MAX / 2, &bytes, error);
    if (result == 0)
        *ret_bytes = (int)bytes;
    return result;
}

static int set_rcvbuf(struct listener_spec *spec, const char *value, struct error *error)
{
    return read_buffer_size(value, &spec->rcvbuf, error);
}

static int set_sndbuf(struct listener_spec *spec, const char *value, struct error *error)
{
    return read_buffer_size(value, &spec->sndbuf, error);
}

static int set_protocol(struct listener_spec *spec, const char *value, struct error *error)
{
    unsigned index;
    int result = value_choice(value, value_protocols, &index, error);
    if (result == 0)
        spec->protocol = (int)index;
    return result;
}

static int set_steering(struct listener_spec *spec, const char *value, struct error *error)
{
    unsigned index;
    int result = value_choice(value, value_steerings, &index, error);
    if (result == 0)
        spec->steering = (int)index;
    return result;
}

static int set_per_worker(struct listener_spec *spec, const char *value, struct error *error)
{
    spec->per_worker = true;
    return *value ? value_switch(value, &spec->per_worker, error) : 0;
}

static int set_flow_idle(struct listener_spec *spec, const char *value, struct error *error)
{
    return value_duration(value, 1, INT64_C(24) * 3600 * 1000, &spec->flow_idle_ms, error);
}

static int set_connection_id(struct listener_spec *spec, const char *value, struct error *error)
{
    int64_t number;
    int result = value_number(value, CONNECTION_ID_MIN, CONNECTION_ID_MAX, &number, error);
    if (result == 0)
        spec->connection_id = (unsigned)number;
    return result;
}

#define TCP (1u << LISTENER_TCP)
#define UDP (1u << LISTENER_UDP)
#define UNIX (1u << LISTENER_UNIX)

struct option {
    const char *name;
    unsigned families; /* bits of enum listener_family */
    bool flag;         /* may stand without a value */
    int (*set)(struct listener_spec *spec, const char *value, struct error *error);
};

static const struct option options[] = {
    {"backlog", TCP | UNIX, false, set_backlog},
    {"v6only", TCP | UDP, true, set_v6only},
    {"mode", UNIX, false, set_mode},
    {"owner", UNIX, false, set_owner},
    {"type", UNIX, false, set_type},
    {"device", TCP | UDP, false, set_device},
    {"freebind", TCP | UDP, true, set_freebind},
    {"transparent", TCP | UDP, true, set_transparent},
    {"nonblock", TCP | UDP | UNIX, true, set_nonblock},
    {"defer_accept", TCP, false, set_defer_accept},
    {"fastopen", TCP, false, set_fastopen},
    {"rcvbuf", TCP | UDP | UNIX, false, set_rcvbuf},
    {"sndbuf", TCP | UDP | UNIX, false, set_sndbuf},
    {"protocol", TCP, false, set_protocol},
    {"steering", TCP | UDP | UNIX, false, set_steering},
    {"per_worker", TCP, true, set_per_worker},
    {"flow_idle", UDP, false, set_flow_idle},
    {"connection_id", UDP, false, set_connection_id},
};

static int unknown_option(const struct listener_spec *spec, const char *name, struct error *error)
{
    const char *names[LENGTH(options)] = {NULL};
    for (size_t i = 0; i < LENGTH(options); i++)
        if (options[i].families & (1u << spec->family))
            names[i] = options[i].name;
    return error_set(error, EINVAL, BLAME_USER, "unknown option '%s'%s", quote_text(name).text,
        spelling_hint(name, "", names, LENGTH(names)).text);
}

int listener_option_parse(struct listener_spec *spec, char *text, unsigned *seen, struct error *error)
{
    char *value = strchr(text, '=');
    if (value)
        *value++ = '\0';
    const struct option *option = NULL;
    for (size_t i = 0; i < LENGTH(options) && !option; i++)
        if (strcmp(text, options[i].name) == 0)
            option = &options[i];
    if (!option)
        return unknown_option(spec, text, error);
    unsigned bit = 1u << (option - options);
    if (!(option->families & (1u << spec->family)))
        return error_set(error, EINVAL, BLAME_USER, "option %s doesn't fit %s: addresses", option->name,
            listener_family_name(spec->family));
    if (*seen & bit)
        return error_set(error, EINVAL, BLAME_USER, "option %s is there twice", option->name);
    if (!option->flag && (!value || *value == '\0'))
        return error_set(error, EINVAL, BLAME_USER, "option %s needs a value", option->name);
    if (option->flag && value && *value == '\0')
        return error_set(error, EINVAL, BLAME_USER, "option %s= needs yes or no", option->name);
    *seen |= bit;
    int result = option->set(spec, value ? value : "", error);
    if (result < 0)
        error_prefix(error, "option %s", option->name);
    return result;
}

static int check_steering(const struct listener_spec *spec, struct error *error)
{
    enum config_steering steering =
        spec->steering < 0 ? CONFIG_STEERING_AUTO : (enum config_steering)spec->steering;
    bool path = spec->family == LISTENER_UNIX && spec->path[0] == '/';
    bool fits = steering == CONFIG_STEERING_AUTO || steering == CONFIG_STEERING_SHARED ||
                (steering == CONFIG_STEERING_EBPF && spec->family != LISTENER_UNIX) ||
                (steering == CONFIG_STEERING_CBPF && spec->family == LISTENER_TCP) ||
                (steering == CONFIG_STEERING_PATH && path);
    if (!fits)
        return error_set(error, EINVAL, BLAME_USER, "option steering=%s doesn't fit %s: addresses",
            value_steerings[steering],
            spec->family == LISTENER_UNIX && !path ? "abstract unix" : listener_family_name(spec->family));
    if (steering == CONFIG_STEERING_SHARED && (spec->flow_idle_ms >= 0 || spec->connection_id))
        return error_set(error, EINVAL, BLAME_USER,
            "option %s doesn't fit steering=shared: flows are not known",
            spec->connection_id ? "connection_id" : "flow_idle");
    if (spec->per_worker && steering == CONFIG_STEERING_SHARED)
        return error_set(
            error, EINVAL, BLAME_USER, "option per_worker doesn't fit steering=shared: all have one socket");
    return 0;
}

int listener_option_check(const struct listener_spec *spec, struct error *error)
{
    struct in_addr v4;
    if (spec->v6only >= 0 && spec->host && inet_pton(AF_INET, spec->host, &v4) == 1)
        return error_set(error, EINVAL, BLAME_USER, "option v6only doesn't fit an IPv4 address");
    int result = check_steering(spec, error);
    if (result < 0 || spec->family != LISTENER_UNIX)
        return result;
    if (spec->path[0] == '@' && (spec->mode != (mode_t)-1 || spec->owner_user))
        return error_set(error, EINVAL, BLAME_USER,
            "option %s doesn't fit an abstract address: it has no file", spec->owner_user ? "owner" : "mode");
    if (spec->type == SOCK_DGRAM && spec->backlog >= 0)
        return error_set(error, EINVAL, BLAME_USER, "option backlog doesn't fit type=dgram");
    return 0;
}
