/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/activation.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a service manager above told the master, and what we say ourselves: a worker hears only of us. */
static const char *const reserved[] = {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID",
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "MAINPID", "MANAGERPID", "FDSTORE",
    "SERVER_STARTER_PORT", "SERVER_STARTER_GENERATION", "EINHORN_FD_COUNT", "EINHORN_MASTER_PID",
    "EINHORN_SOCK_PATH", "GAPLESS_FD", "GAPLESS_SERVICE", "GAPLESS_GENERATION", "GAPLESS_WORKER",
    "GAPLESS_ADMIN", "GAPLESS_OLD_GENERATION", "GAPLESS_NEW_GENERATION", "GAPLESS_PHASE", "GAPLESS_WHEN",
    "GAPLESS_REASON", "GAPLESS_ADDRESS"};

struct text {
    char *bytes;
    size_t length;
    FILE *stream;
};

static int text_open(struct text *text)
{
    text->stream = open_memstream(&text->bytes, &text->length);
    return text->stream ? 0 : -ENOMEM;
}

/* The finished string, the caller's; NULL when out of memory. */
static char *text_close(struct text *text)
{
    if (fclose(text->stream) != 0) {
        free(text->bytes);
        return NULL;
    }
    return text->bytes;
}

static bool name_is(const char *name, const char *text, size_t length)
{
    return strlen(name) == length && memcmp(name, text, length) == 0;
}

/* The descriptor number that a listener has in the worker, or -1. */
static int number_of(const struct activation *activation, unsigned listener)
{
    for (unsigned i = 0; i < activation->inherited_count; i++)
        if (activation->inherited[i] == listener)
            return ACTIVATION_FIRST_FD + (int)i;
    return -1;
}

static int no_such_listener(
    const struct activation_request *request, const char *name, size_t length, struct error *error)
{
    if (!request->listener_count)
        return error_set(error, EINVAL, BLAME_USER, "{fd:%.*s} names a listener, and the service has none",
            (int)length, name);
    struct text names;
    if (text_open(&names) < 0)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    for (unsigned i = 0; i < request->listener_count; i++)
        fprintf(names.stream, "%s%s", i ? ", " : "", request->listeners[i].name);
    char *list = text_close(&names);
    int r = error_set(error, EINVAL, BLAME_USER, "{fd:%.*s} names no listener; there are: %s", (int)length,
        name, list ? list : "");
    free(list);
    return r;
}

static int find_listener(const struct activation_request *request, const char *name, size_t length)
{
    for (unsigned i = 0; i < request->listener_count; i++)
        if (name_is(request->listeners[i].name, name, length))
            return (int)i;
    return -1;
}

/* The placeholder at `text` ("{fd:…" or "{fds:…"), or NULL where there is none in the rest. */
static const char *next_placeholder(const char *text)
{
    const char *one = strstr(text, "{fd:");
    const char *all = strstr(text, "{fds:");
    if (one && all)
        return one < all ? one : all;
    return one ? one : all;
}

static int expand_one(const struct activation_request *request, const struct activation *activation,
    const char *body, size_t length, FILE *out, struct error *error)
{
    int listener = find_listener(request, body, length);
    if (listener < 0)
        return no_such_listener(request, body, length, error);
    fprintf(out, "%d", number_of(activation, (unsigned)listener));
    return 0;
}

static void expand_all(const struct activation *activation, const char *separator, size_t length, FILE *out)
{
    for (unsigned i = 0; i < activation->inherited_count; i++)
        fprintf(out, "%d%.*s", ACTIVATION_FIRST_FD + (int)i, (int)length, separator);
}

/* `text` with its placeholders replaced, the caller's. */
static int expand(const struct activation_request *request, const struct activation *activation,
    const char *text, char **ret_text, struct error *error)
{
    struct text out;
    if (text_open(&out) < 0)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    int r = 0;
    for (const char *open; (open = next_placeholder(text));) {
        const char *body = strchr(open, ':') + 1;
        const char *close = strchr(body, '}');
        if (!close) {
            r = error_set(error, EINVAL, BLAME_USER, "\"%s\": the placeholder has no closing brace", open);
            break;
        }
        fprintf(out.stream, "%.*s", (int)(open - text), text);
        if (open[3] == 's')
            expand_all(activation, body, (size_t)(close - body), out.stream);
        else if ((r = expand_one(request, activation, body, (size_t)(close - body), out.stream, error)) < 0)
            break;
        text = close + 1;
    }
    fprintf(out.stream, "%s", text);
    char *result = text_close(&out);
    if (r < 0) {
        free(result);
        return r;
    }
    if (!result)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    *ret_text = result;
    return 0;
}

/* With `activation: none` only those are inherited that a placeholder names. */
static bool is_named(const struct activation_request *request, unsigned listener)
{
    char *const *lists[] = {request->service->command, request->service->env};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (char *const *item = lists[i]; item && *item; item++)
            for (const char *p = *item; (p = next_placeholder(p)); p++) {
                const char *body = strchr(p, ':') + 1;
                if (p[3] == 's' || name_is(request->listeners[listener].name, body, strcspn(body, "}")))
                    return true;
            }
    return false;
}

static int choose_inherited(
    const struct activation_request *request, struct activation *activation, struct error *error)
{
    activation->inherited = calloc(request->listener_count + 1, sizeof *activation->inherited);
    if (!activation->inherited)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    for (unsigned i = 0; i < request->listener_count; i++)
        if (request->listeners[i].address &&
            (request->service->activation != ACTIVATION_NONE || is_named(request, i)))
            activation->inherited[activation->inherited_count++] = i;
    if (request->service->activation != ACTIVATION_NONE)
        activation->stored_count = request->stored_count;
    activation->control_fd =
        ACTIVATION_FIRST_FD + (int)activation->inherited_count + (int)activation->stored_count;
    return 0;
}

static void set_number(struct strv *envp, const char *name, int64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, number);
    strv_set(envp, name, text);
}

/* An entry with room for the child's pid. */
static char *add_pid(struct strv *envp, const char *name)
{
    char *entry = strv_add(envp, "%s=%*s", name, ACTIVATION_PID_ROOM - 1, "");
    return entry ? strchr(entry, '=') + 1 : NULL;
}

static void set_systemd(const struct activation_request *request, struct activation *activation)
{
    struct strv *envp = &activation->envp;
    set_number(envp, "LISTEN_FDS", activation->inherited_count + activation->stored_count);
    struct text names;
    if (text_open(&names) < 0) {
        envp->failed = true;
        return;
    }
    fprintf(names.stream, "LISTEN_FDNAMES=");
    for (unsigned i = 0; i < activation->inherited_count; i++) {
        fputs(i ? ":" : "", names.stream);
        /* A colon separates names; a listener without a name of its own is called by its address. */
        for (const char *p = request->listeners[activation->inherited[i]].name; *p; p++)
            fputc(*p == ':' ? '_' : *p, names.stream);
    }
    for (unsigned i = 0; i < activation->stored_count; i++)
        fprintf(names.stream, "%s%s", activation->inherited_count + i ? ":" : "", request->stored[i]);
    strv_take(envp, text_close(&names));
    activation->listen_pid = add_pid(envp, "LISTEN_PID");
}

static void set_server_starter(const struct activation_request *request, struct activation *activation)
{
    struct text ports;
    if (text_open(&ports) < 0) {
        activation->envp.failed = true;
        return;
    }
    fprintf(ports.stream, "SERVER_STARTER_PORT=");
    for (unsigned i = 0; i < activation->inherited_count; i++)
        fprintf(ports.stream, "%s%s=%d", i ? ";" : "", request->listeners[activation->inherited[i]].address,
            ACTIVATION_FIRST_FD + (int)i);
    strv_take(&activation->envp, text_close(&ports));
    set_number(&activation->envp, "SERVER_STARTER_GENERATION", (int64_t)request->generation);
}

static void set_einhorn(const struct activation_request *request, struct activation *activation)
{
    struct strv *envp = &activation->envp;
    set_number(envp, "EINHORN_FD_COUNT", activation->inherited_count);
    for (unsigned i = 0; i < activation->inherited_count; i++)
        strv_add(envp, "EINHORN_FD_%u=%d", i, ACTIVATION_FIRST_FD + (int)i);
    set_number(envp, "EINHORN_MASTER_PID", request->main_pid);
    if (request->einhorn_path)
        strv_set(envp, "EINHORN_SOCK_PATH", request->einhorn_path);
}

static int set_configured(
    const struct activation_request *request, struct activation *activation, struct error *error)
{
    for (char *const *item = request->service->env; item && *item; item++) {
        const char *equals = strchr(*item, '=');
        char *name = equals ? strndup(*item, (size_t)(equals - *item)) : NULL;
        char *value = NULL;
        int r = name ? expand(request, activation, equals + 1, &value, error)
                     : error_set(error, ENOMEM, BLAME_OURS, "out of memory");
        if (r == 0)
            strv_set(&activation->envp, name, value);
        else
            error_prefix(error, "env %s", name ? name : *item);
        free(name);
        free(value);
        if (r < 0)
            return r;
    }
    return 0;
}

static void inherit_environment(struct strv *envp, char *const *environment)
{
    for (char *const *item = environment; item && *item; item++)
        strv_add(envp, "%s", *item);
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        strv_unset(envp, reserved[i]);
}

static int prepare_environment(
    const struct activation_request *request, struct activation *activation, struct error *error)
{
    struct strv *envp = &activation->envp;
    inherit_environment(envp, request->environment);
    int r = set_configured(request, activation, error);
    if (r < 0)
        return r;
    bool activates = request->service->activation != ACTIVATION_NONE;
    if (activates && activation->inherited_count + activation->stored_count)
        set_systemd(request, activation);
    if (activates && activation->inherited_count)
        set_server_starter(request, activation);
    if (activates && request->service->vault_entries)
        set_number(envp, "FDSTORE", request->service->vault_entries);
    if (request->service->activation == ACTIVATION_EINHORN)
        set_einhorn(request, activation);
    if (request->service->watchdog_ms > 0) {
        set_number(envp, "WATCHDOG_USEC", request->service->watchdog_ms * 1000);
        activation->watchdog_pid = add_pid(envp, "WATCHDOG_PID");
    }
    strv_set(envp, "NOTIFY_SOCKET", request->notify_address);
    set_number(envp, "GAPLESS_FD", activation->control_fd);
    strv_set(envp, "GAPLESS_SERVICE", request->service->name);
    set_number(envp, "GAPLESS_GENERATION", (int64_t)request->generation);
    set_number(envp, "GAPLESS_WORKER", request->worker);
    return 0;
}

static int prepare_arguments(
    const struct activation_request *request, struct activation *activation, struct error *error)
{
    for (char *const *item = request->service->command; *item; item++) {
        char *text;
        int r = expand(request, activation, *item, &text, error);
        if (r < 0) {
            error_prefix(error, "command");
            return r;
        }
        strv_take(&activation->argv, text);
    }
    return 0;
}

int activation_prepare(
    const struct activation_request *request, struct activation *ret_activation, struct error *error)
{
    struct activation activation = {.control_fd = -1};
    int r = choose_inherited(request, &activation, error);
    if (r == 0)
        r = prepare_arguments(request, &activation, error);
    if (r == 0)
        r = prepare_environment(request, &activation, error);
    if (r == 0 && (strv_failed(&activation.argv) || strv_failed(&activation.envp)))
        r = error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    if (r < 0) {
        activation_done(&activation);
        return r;
    }
    *ret_activation = activation;
    return 0;
}

void activation_done(struct activation *activation)
{
    strv_done(&activation->argv);
    strv_done(&activation->envp);
    free(activation->inherited);
    *activation = (struct activation){.control_fd = -1};
}

/* NAME=VALUE in place of an earlier entry of that name. */
static void set_assignment(struct strv *envp, const char *assignment)
{
    char *name = strndup(assignment, strcspn(assignment, "="));
    if (name)
        strv_unset(envp, name);
    else
        envp->failed = true;
    free(name);
    strv_add(envp, "%s", assignment);
}

int activation_environment(const struct config_service *service, char *const *environment, char *const *more,
    struct strv *ret_envp, struct error *error)
{
    struct strv envp = {.items = NULL};
    inherit_environment(&envp, environment);
    for (char *const *item = service->env; item && *item; item++)
        if (!next_placeholder(*item))
            set_assignment(&envp, *item);
    strv_set(&envp, "GAPLESS_SERVICE", service->name);
    for (char *const *item = more; item && *item; item++)
        set_assignment(&envp, *item);
    if (strv_failed(&envp)) {
        strv_done(&envp);
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
    *ret_envp = envp;
    return 0;
}
