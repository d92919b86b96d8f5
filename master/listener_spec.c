/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/listener_spec.h"

#include "master/config/listener_option.h"
#include "master/config/quote.h"
#include "master/config/value.h"
#include "master/spelling.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

#define TEXT_MAX 1024
/* sun_path with its NUL; an abstract name needs its leading NUL instead. */
#define UNIX_PATH_MAX_LENGTH (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)
#define HOST_MAX 253
#define HOST_LABEL_MAX 63
#define FD_MAX 1048575

static const char *const family_names[LISTENER_FAMILY_COUNT] = {
    [LISTENER_TCP] = "tcp",
    [LISTENER_UDP] = "udp",
    [LISTENER_UNIX] = "unix",
    [LISTENER_FD] = "fd",
};

const char *listener_family_name(enum listener_family family)
{
    return (unsigned)family < LISTENER_FAMILY_COUNT ? family_names[family] : "unknown";
}

static int copy_text(char **ret_copy, const char *text, size_t length, struct error *error)
{
    char *copy = strndup(text, length);
    if (!copy)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    free(*ret_copy);
    *ret_copy = copy;
    return 0;
}

static bool is_host_name(const char *host)
{
    size_t label = 0, length = strlen(host);
    if (length > HOST_MAX)
        return false;
    for (size_t i = 0; i < length; i++) {
        bool dot = host[i] == '.';
        if (!isalnum((unsigned char)host[i]) && !strchr("-_.", host[i]))
            return false;
        if (dot ? label == 0 : ++label > HOST_LABEL_MAX)
            return false;
        if (dot)
            label = 0;
    }
    return true;
}

/* The part in brackets: an IPv6 address, with a zone (fe80::1%eth0) or without. */
static int check_ipv6(const char *host, struct error *error)
{
    char address[INET6_ADDRSTRLEN];
    struct in6_addr parsed;
    const char *zone = strchr(host, '%');
    size_t length = zone ? (size_t)(zone - host) : strlen(host);
    bool zone_fits =
        !zone || (zone[1] != '\0' && strlen(zone + 1) < IF_NAMESIZE && !strpbrk(zone + 1, "%/:"));
    if (length < sizeof address && zone_fits) {
        snprintf(address, sizeof address, "%.*s", (int)length, host);
        if (inet_pton(AF_INET6, address, &parsed) == 1)
            return 0;
    }
    return error_set(error, EINVAL, BLAME_USER, "'%s' is not an IPv6 address", quote_text(host).text);
}

static int check_host(const char *host, struct error *error)
{
    struct in_addr parsed;
    if (strcmp(host, "*") == 0)
        return error_set(
            error, EINVAL, BLAME_USER, "'*' is not a host: leave it out for every address (tcp:80)");
    if (*host == '\0')
        return error_set(
            error, EINVAL, BLAME_USER, "the host is empty: leave it out for every address (tcp:80)");
    /* All digits and dots is meant as an IPv4 address; the resolver would also take forms such as 127.1. */
    if (host[strspn(host, "0123456789.")] == '\0' && inet_pton(AF_INET, host, &parsed) != 1)
        return error_set(error, EINVAL, BLAME_USER, "'%s' is not an IPv4 address", quote_text(host).text);
    if (!is_host_name(host))
        return error_set(
            error, EINVAL, BLAME_USER, "'%s' is neither an address nor a host name", quote_text(host).text);
    return 0;
}

/* HOST:PORT, [IPV6]:PORT or PORT; `text` is changed. */
static int parse_inet(struct listener_spec *spec, char *text, struct error *error)
{
    const char *family = family_names[spec->family];
    char *host = NULL, *port = text, *end;
    int result = 0;
    if (*text == '[') {
        end = strchr(text, ']');
        if (!end || end[1] != ':')
            return error_set(
                error, EINVAL, BLAME_USER, "'%s' is not %s:[IPV6]:PORT", quote_text(text).text, family);
        *end = '\0';
        host = text + 1;
        port = end + 2;
        result = check_ipv6(host, error);
    } else if ((end = strchr(text, ':'))) {
        if (strchr(end + 1, ':'))
            return error_set(error, EINVAL, BLAME_USER,
                "'%s' has more than one colon: an IPv6 address stands in brackets, %s:[::1]:80",
                quote_text(text).text, family);
        *end = '\0';
        host = text;
        port = end + 1;
        result = check_host(host, error);
    }
    if (result < 0)
        return result;
    int64_t number;
    if (!host && !isdigit((unsigned char)*port))
        return error_set(error, EINVAL, BLAME_USER, "'%s' has no port: write %s:HOST:PORT or %s:PORT",
            quote_text(text).text, family, family);
    result = value_number(port, 0, 65535, &number, error);
    if (result < 0) {
        error_prefix(error, "port");
        return result;
    }
    spec->port = (uint16_t)number;
    return host ? copy_text(&spec->host, host, strlen(host), error) : 0;
}

static int parse_unix(struct listener_spec *spec, const char *text, struct error *error)
{
    size_t length = strlen(text);
    if (*text != '/' && *text != '@')
        return error_set(error, EINVAL, BLAME_USER,
            "'%s' is neither an absolute path nor an abstract name (@NAME)", quote_text(text).text);
    if (length == 1)
        return error_set(error, EINVAL, BLAME_USER, "'%s' has no name", text);
    if (*text == '/' && text[length - 1] == '/')
        return error_set(error, EINVAL, BLAME_USER, "'%s' names a directory", quote_text(text).text);
    if (length > UNIX_PATH_MAX_LENGTH)
        return error_set(error, EINVAL, BLAME_USER, "a path of %zu bytes is too long: the kernel takes %zu",
            length, UNIX_PATH_MAX_LENGTH);
    return copy_text(&spec->path, text, length, error);
}

/* A number, or a name as sd_listen_fds(3) allows it. */
static int parse_fd(struct listener_spec *spec, const char *text, struct error *error)
{
    int64_t number;
    if (isdigit((unsigned char)*text) && text[strspn(text, "0123456789")] == '\0') {
        if (value_number(text, 0, FD_MAX, &number, error) < 0)
            return -EINVAL;
    } else if (*text == '\0' || strlen(text) > 255 || strchr(text, ':')) {
        return error_set(error, EINVAL, BLAME_USER,
            "'%s' is neither a descriptor's number nor its LISTEN_FDNAMES name", quote_text(text).text);
    }
    return copy_text(&spec->path, text, strlen(text), error);
}

static int parse_address(struct listener_spec *spec, char *text, struct error *error)
{
    switch (spec->family) {
    case LISTENER_TCP:
    case LISTENER_UDP:
        return parse_inet(spec, text, error);
    case LISTENER_UNIX:
        return parse_unix(spec, text, error);
    case LISTENER_FD:
        return parse_fd(spec, text, error);
    case LISTENER_FAMILY_COUNT:
        break;
    }
    return error_set(error, EINVAL, BLAME_OURS, "no such family");
}

static int parse_family(struct listener_spec *spec, const char *text, size_t length, struct error *error)
{
    static const int types[LISTENER_FAMILY_COUNT] = {
        [LISTENER_TCP] = SOCK_STREAM, [LISTENER_UDP] = SOCK_DGRAM, [LISTENER_UNIX] = SOCK_STREAM};
    char name[32];
    snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), text);
    for (int family = 0; family < LISTENER_FAMILY_COUNT; family++)
        if (strcmp(name, family_names[family]) == 0) {
            spec->family = (enum listener_family)family;
            spec->type = types[family];
            return 0;
        }
    return error_set(error, EINVAL, BLAME_USER, "'%s' is not tcp, udp, unix or fd%s", quote_text(name).text,
        spelling_hint(name, "", family_names, LISTENER_FAMILY_COUNT).text);
}

/* What most often stands where `tcp:` or `unix:` is missing. */
static int missing_family(const char *text, struct error *error)
{
    const char *family = *text == '/' || *text == '@' ? "unix" : "tcp";
    return error_set(error, EINVAL, BLAME_USER,
        "no kind of address before a colon: tcp:, udp:, unix: or fd:; did you "
        "mean %s:%s?",
        family, quote_text(text).text);
}

/* `text` is the specification without the name, and is cut up. */
static int parse_parts(struct listener_spec *spec, char *text, struct error *error)
{
    char *rest = text;
    char *first = strsep(&rest, ",");
    char *colon = strchr(first, ':');
    if (!colon)
        return missing_family(first, error);
    int result = parse_family(spec, first, (size_t)(colon - first), error);
    if (result == 0 && !spec->name)
        result = copy_text(&spec->name, first, strlen(first), error);
    if (result == 0)
        result = parse_address(spec, colon + 1, error);
    unsigned seen = 0;
    while (result == 0 && rest)
        result = listener_option_parse(spec, strsep(&rest, ","), &seen, error);
    return result < 0 ? result : listener_option_check(spec, error);
}

/* The name before a `=` that comes before every colon and comma; *ret_rest is what follows. */
static int parse_name(
    struct listener_spec *spec, const char *text, const char **ret_rest, struct error *error)
{
    size_t length = strcspn(text, "=:,");
    *ret_rest = text;
    if (text[length] != '=')
        return 0;
    *ret_rest = text + length + 1;
    int result = copy_text(&spec->name, text, length, error);
    return result < 0 ? result : value_check_name(spec->name, error);
}

int listener_spec_parse(const char *text, struct listener_spec *ret_spec, struct error *error)
{
    if (*text == '\0')
        return error_set(error, EINVAL, BLAME_USER, "the listener is empty: write tcp:PORT, unix:/PATH, …");
    if (strlen(text) > TEXT_MAX)
        return error_set(error, EINVAL, BLAME_USER, "a listener of %zu bytes is too long", strlen(text));
    if (quote_has_control(text))
        return error_set(
            error, EINVAL, BLAME_USER, "'%s' has a control character or isn't UTF-8", quote_text(text).text);
    struct listener_spec spec = {
        .backlog = -1, .v6only = -1, .mode = (mode_t)-1, .protocol = -1, .steering = -1, .flow_idle_ms = -1};
    const char *rest;
    char *parts = NULL;
    int result = parse_name(&spec, text, &rest, error);
    if (result == 0)
        result = copy_text(&spec.text, rest, strlen(rest), error);
    if (result == 0)
        result = copy_text(&parts, rest, strlen(rest), error);
    if (result == 0)
        result = parse_parts(&spec, parts, error);
    free(parts);
    if (result < 0) {
        listener_spec_done(&spec);
        return result;
    }
    *ret_spec = spec;
    return 0;
}

void listener_spec_done(struct listener_spec *spec)
{
    if (!spec)
        return;
    char *const texts[] = {
        spec->text, spec->name, spec->host, spec->path, spec->owner_user, spec->owner_group, spec->device};
    for (size_t i = 0; i < LENGTH(texts); i++)
        free(texts[i]);
    *spec = (struct listener_spec){.backlog = -1, .v6only = -1, .mode = (mode_t)-1, .protocol = -1};
}

int listener_spec_copy(const struct listener_spec *spec, struct listener_spec *ret_copy)
{
    struct listener_spec copy = *spec;
    char **const texts[] = {
        &copy.text, &copy.name, &copy.host, &copy.path, &copy.owner_user, &copy.owner_group, &copy.device};
    bool failed = false;
    for (size_t i = 0; i < LENGTH(texts); i++) {
        const char *original = *texts[i];
        *texts[i] = original ? strdup(original) : NULL;
        failed = failed || (original && !*texts[i]);
    }
    if (failed) {
        listener_spec_done(&copy);
        return -ENOMEM;
    }
    *ret_copy = copy;
    return 0;
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* Two ways of writing one IPv6 address are the same; every address (no host) is [::]. */
static bool same_host(const char *a, const char *b)
{
    struct in6_addr first, second;
    a = a ? a : "::";
    b = b ? b : "::";
    if (inet_pton(AF_INET6, a, &first) == 1 && inet_pton(AF_INET6, b, &second) == 1)
        return memcmp(&first, &second, sizeof first) == 0;
    return strcasecmp(a, b) == 0;
}

/* Paths, with "//" and "/./" as "/". */
static bool same_path(const char *a, const char *b)
{
    if (*a == '@' || *b == '@')
        return strcmp(a, b) == 0;
    while (*a && *a == *b) {
        bool slash = *a == '/';
        a++;
        b++;
        while (slash && (*a == '/' || (a[0] == '.' && a[1] == '/')))
            a += *a == '/' ? 1 : 2;
        while (slash && (*b == '/' || (b[0] == '.' && b[1] == '/')))
            b += *b == '/' ? 1 : 2;
    }
    return *a == *b;
}

bool listener_spec_same_address(const struct listener_spec *a, const struct listener_spec *b)
{
    if (a->family != b->family || a->type != b->type)
        return false;
    if (a->family == LISTENER_UNIX)
        return same_path(a->path, b->path);
    if (a->family == LISTENER_FD)
        return strcmp(a->path, b->path) == 0;
    return a->port == b->port && same_host(a->host, b->host) && same_text(a->device, b->device) &&
           (a->port != 0 || strcmp(a->name, b->name) == 0);
}
