/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/smoke_spec.h"

#include "master/config.h"
#include "master/config/value.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* A command that is to ask the new generation alone finds no way to it. A service without stream sockets has
 * none that it could miss. */
static int check_reachable(const struct config_service *service, struct error *error)
{
    bool any = false;
    for (size_t i = 0; i < service->listener_count; i++) {
        if (probe_spec_can_ask(service, &service->listeners[i]))
            return 0;
        any = any || service->listeners[i].type == SOCK_STREAM;
    }
    if (!any)
        return 0;
    return error_set(error, EINVAL, BLAME_USER,
        "there is no listener where the new generation can be reached alone (that takes TCP with "
        "steering=ebpf, or a Unix stream path)");
}

static int parse_command(
    const char *text, const struct config_service *service, struct smoke_spec *ret_spec, struct error *error)
{
    char **words;
    int r = value_words(text, &words, error);
    if (r < 0)
        return r;
    if (!words[0] || !*words[0])
        r = error_set(error, EINVAL, BLAME_USER, "run: has no command");
    else
        r = check_reachable(service, error);
    if (r < 0) {
        value_free_words(words);
        return r;
    }
    *ret_spec = (struct smoke_spec){.run = words};
    return 0;
}

int smoke_spec_parse(
    const char *text, const struct config_service *service, struct smoke_spec *ret_spec, struct error *error)
{
    if (strncmp(text, "run:", 4) == 0)
        return parse_command(text + 4, service, ret_spec, error);
    struct smoke_spec spec = {.run = NULL};
    int r = probe_spec_parse(text, service, &spec.probe, error);
    if (r < 0)
        return r;
    *ret_spec = spec;
    return 0;
}

void smoke_spec_done(struct smoke_spec *spec)
{
    value_free_words(spec->run);
    spec->run = NULL;
}

int smoke_spec_check(const char *text, const struct config_service *service, struct error *error)
{
    struct smoke_spec spec;
    int r = smoke_spec_parse(text, service, &spec, error);
    if (r == 0)
        smoke_spec_done(&spec);
    return r;
}
