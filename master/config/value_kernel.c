/* SPDX-License-Identifier: BSD-2-Clause */
/* Words that are the kernel's: signals, resource limits, capabilities. */
#include "master/config/quote.h"
#include "master/config/value.h"
#include "master/spelling.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/capability.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* Behind the "SIG" of a signal's name, in either case; the text itself where there is none. */
static const char *without_prefix(const char *text, const char *prefix)
{
    size_t length = strlen(prefix);
    return strncasecmp(text, prefix, length) == 0 ? text + length : text;
}

static int find_signal(const char *name)
{
    for (int number = 1; number < SIGRTMIN; number++) {
        const char *known = sigabbrev_np(number);
        if (known && strcasecmp(name, known) == 0)
            return number;
    }
    static const struct {
        const char *name;
        char sign;
    } ends[] = {{"RTMIN", '+'}, {"RTMAX", '-'}};
    for (size_t i = 0; i < LENGTH(ends); i++) {
        const char *at = without_prefix(name, ends[i].name);
        int64_t offset = 0;
        if (at == name || (*at != '\0' && *at != ends[i].sign) ||
            (*at != '\0' && value_number(at + 1, 0, SIGRTMAX - SIGRTMIN, &offset, NULL) < 0))
            continue;
        return ends[i].sign == '+' ? SIGRTMIN + (int)offset : SIGRTMAX - (int)offset;
    }
    return 0;
}

int value_signal(const char *text, int *ret_signal, struct error *error)
{
    const char *name = without_prefix(text, "SIG");
    int number;
    if (isdigit((unsigned char)text[0])) {
        int64_t wide;
        int result = value_number(text, 1, SIGRTMAX, &wide, error);
        if (result < 0)
            return result;
        number = (int)wide;
        /* glibc keeps the numbers between the classic signals and SIGRTMIN for itself. */
        if (number < SIGRTMIN && !sigabbrev_np(number))
            return error_set(error, EINVAL, BLAME_USER, "'%s' is not a signal", quote_text(text).text);
    } else {
        number = find_signal(name);
    }
    if (number == 0) {
        const char *names[64] = {NULL};
        for (int i = 1; i < SIGRTMIN && i < (int)LENGTH(names); i++)
            names[i] = sigabbrev_np(i);
        return error_set(error, EINVAL, BLAME_USER, "'%s' is not a signal%s", quote_text(text).text,
            spelling_hint(name, "", names, LENGTH(names)).text);
    }
    if (number == SIGKILL || number == SIGSTOP)
        return error_set(error, EINVAL, BLAME_USER, "SIG%s can't be used here: no program can act on it%s",
            sigabbrev_np(number), number == SIGKILL ? " (stop.grace says when it follows)" : "");
    *ret_signal = number;
    return 0;
}

struct value_text value_signal_text(int number)
{
    struct value_text out;
    const char *name = number < SIGRTMIN ? sigabbrev_np(number) : NULL;
    if (name)
        snprintf(out.text, sizeof out.text, "%s", name);
    else
        snprintf(out.text, sizeof out.text, "RTMIN+%d", number - SIGRTMIN);
    return out;
}

struct resource {
    const char *name;
    int number;
    bool bytes;
};

static const struct resource resources[] = {
    {"as", RLIMIT_AS, true},
    {"core", RLIMIT_CORE, true},
    {"cpu", RLIMIT_CPU, false},
    {"data", RLIMIT_DATA, true},
    {"fsize", RLIMIT_FSIZE, true},
    {"locks", RLIMIT_LOCKS, false},
    {"memlock", RLIMIT_MEMLOCK, true},
    {"msgqueue", RLIMIT_MSGQUEUE, true},
    {"nice", RLIMIT_NICE, false},
    {"nofile", RLIMIT_NOFILE, false},
    {"nproc", RLIMIT_NPROC, false},
    {"rss", RLIMIT_RSS, true},
    {"rtprio", RLIMIT_RTPRIO, false},
    {"rttime", RLIMIT_RTTIME, false},
    {"sigpending", RLIMIT_SIGPENDING, false},
    {"stack", RLIMIT_STACK, true},
};

static int read_limit(
    const struct resource *resource, const char *text, rlim_t *ret_limit, struct error *error)
{
    if (strcasecmp(text, "unlimited") == 0 || strcasecmp(text, "infinity") == 0) {
        *ret_limit = RLIM_INFINITY;
        return 0;
    }
    uint64_t value;
    int64_t number;
    int result;
    if (resource->bytes) {
        result = value_size(text, INT64_MAX, &value, error);
    } else {
        result = value_number(text, 0, INT64_MAX, &number, error);
        value = result < 0 ? 0 : (uint64_t)number;
    }
    if (result < 0)
        return isdigit((unsigned char)text[0])
                   ? result
                   : error_set(error, EINVAL, BLAME_USER, "'%s' is not a limit: %s, or unlimited",
                         quote_text(text).text, resource->bytes ? "a size" : "a number");
    *ret_limit = value;
    return 0;
}

/* The resource of that name (`length` bytes of `text`), or NULL with the error set. */
static const struct resource *find_resource(const char *text, size_t length, struct error *error)
{
    char name[32];
    snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), text);
    const char *bare = without_prefix(name, "RLIMIT_");
    const char *names[LENGTH(resources)];
    for (size_t i = 0; i < LENGTH(resources); i++) {
        if (strcasecmp(bare, resources[i].name) == 0)
            return &resources[i];
        names[i] = resources[i].name;
    }
    error_set(error, EINVAL, BLAME_USER, "'%s' is not a resource limit%s", quote_text(name).text,
        spelling_hint(bare, "", names, LENGTH(names)).text);
    return NULL;
}

int value_rlimit(const char *text, struct config_rlimit *ret_rlimit, struct error *error)
{
    const char *sign = strchr(text, '=');
    if (!sign)
        return error_set(error, EINVAL, BLAME_USER, "'%s' is not NAME=SOFT[:HARD], such as nofile=65536",
            quote_text(text).text);
    const struct resource *resource = find_resource(text, (size_t)(sign - text), error);
    if (!resource)
        return -EINVAL;

    char soft[64];
    const char *colon = strchr(sign, ':');
    size_t length = colon ? (size_t)(colon - sign - 1) : strlen(sign + 1);
    snprintf(soft, sizeof soft, "%.*s", (int)(length < sizeof soft ? length : sizeof soft - 1), sign + 1);
    struct rlimit limit;
    int result = read_limit(resource, soft, &limit.rlim_cur, error);
    if (result < 0)
        return result;
    limit.rlim_max = limit.rlim_cur;
    if (colon)
        result = read_limit(resource, colon + 1, &limit.rlim_max, error);
    if (result < 0)
        return result;
    if (limit.rlim_cur > limit.rlim_max)
        return error_set(error, EINVAL, BLAME_USER, "'%s': the soft limit is above the hard one",
            quote_text(sign + 1).text);
    *ret_rlimit = (struct config_rlimit){.resource = resource->number, .limit = limit};
    return 0;
}

/* libcap's own name without CAP_, allocated; NULL: out of memory. */
static char *capability_name(cap_value_t value)
{
    char *full = cap_to_name(value);
    char *name = full ? strdup(without_prefix(full, "cap_")) : NULL;
    cap_free(full);
    return name;
}

static int unknown_capability(const char *text, struct error *error)
{
    char *names[CAP_LAST_CAP + 1];
    for (cap_value_t i = 0; i <= CAP_LAST_CAP; i++)
        names[i] = capability_name(i);
    error_set(error, EINVAL, BLAME_USER, "'%s' is not a capability%s", quote_text(text).text,
        spelling_hint(without_prefix(text, "cap_"), "", (const char *const *)names, LENGTH(names)).text);
    for (size_t i = 0; i < LENGTH(names); i++)
        free(names[i]);
    return -EINVAL;
}

int value_capability(const char *text, char **ret_name, struct error *error)
{
    char full[64];
    cap_value_t value;
    const char *bare = without_prefix(text, "cap_");
    int length = snprintf(full, sizeof full, "cap_%s", bare);
    /* libcap also takes numbers, and a name with something behind it. */
    if (isdigit((unsigned char)bare[0]) || length >= (int)sizeof full || cap_from_name(full, &value) < 0)
        return unknown_capability(text, error);
    char *name = capability_name(value);
    if (!name)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    if (strcasecmp(name, bare) != 0) {
        free(name);
        return unknown_capability(text, error);
    }
    *ret_name = name;
    return 0;
}
