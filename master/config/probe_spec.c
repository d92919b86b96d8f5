/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/probe_spec.h"

#include "master/config.h"
#include "master/config/quote.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* One generation alone can be reached there (steering.h). */
static bool can_be_asked(const struct config_service *service, const struct listener_spec *spec)
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
        if (can_be_asked(service, spec)) {
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
    if (name)
        return error_set(error, EINVAL, BLAME_USER, "'%.*s' names no listener", (int)length, name);
    if (!service->listener_count && service->capture != CAPTURE_OFF) {
        *ret_listener = 0; /* the first that the workers bind */
        return 0;
    }
    return error_set(error, EINVAL, BLAME_USER,
        "there is no listener where one generation can be reached alone (that takes TCP with steering=ebpf, "
        "or a Unix "
        "stream path)");
}

int probe_spec_parse(
    const char *text, const struct config_service *service, struct probe_spec *ret_spec, struct error *error)
{
    size_t length = strcspn(text, "=:/");
    const char *name = text[length] == '=' ? text : NULL, *rest = name ? text + length + 1 : text;
    struct probe_spec spec = {.path = NULL};
    if (strncmp(rest, "http:/", 6) == 0)
        spec.path = rest + 5;
    else if (strcmp(rest, "tcp") != 0)
        return error_set(
            error, EINVAL, BLAME_USER, "'%s' is neither tcp nor http:/PATH", quote_text(rest).text);
    if (spec.path && strpbrk(spec.path, " \t\r\n"))
        return error_set(error, EINVAL, BLAME_USER, "'%s': a path has no blanks", quote_text(rest).text);
    int r = find_listener(service, name, length, &spec.listener, error);
    if (r == 0)
        *ret_spec = spec;
    return r;
}
