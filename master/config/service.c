/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/service.h"

#include "master/config/probe_spec.h"
#include "master/config/quote.h"
#include "master/config/schema.h"
#include "master/config/smoke_spec.h"
#include "master/config/value.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int config_service_init(struct config_service *service, const char *preset, struct error *error)
{
    unsigned index = PRESET_DEFAULT;
    *service = (struct config_service){.umask = (mode_t)-1, .ready_alive_ms = -1};
    if (preset)
        value_choice(preset, config_key_find(SCOPE_SERVICE, "preset")->choices, &index, NULL);
    return config_assign_defaults(SCOPE_SERVICE, (enum config_preset)index, service, error);
}

void config_step_done(struct config_step *step)
{
    free(step->name);
    value_free_words(step->run);
    value_free_words(step->undo);
    *step = (struct config_step){.phase = PHASE_COUNT};
}

void config_service_done(struct config_service *service)
{
    for (size_t i = 0; i < service->listener_count; i++)
        listener_spec_done(&service->listeners[i]);
    free(service->listeners);
    free(service->name);
    value_free_words(service->command);
    free(service->user);
    free(service->group);
    free(service->cwd);
    value_free_words(service->env);
    free(service->rlimits);
    free(service->ready_probe);
    value_free_words(service->capabilities);
    value_free_words(service->check);
    value_free_words(service->smoke);
    free(service->canary);
    for (size_t i = 0; i < service->step_count; i++)
        config_step_done(&service->steps[i]);
    free(service->steps);
    free(service->health_probe);
    *service = (struct config_service){.umask = (mode_t)-1, .ready_alive_ms = -1};
}

/* Two types can't share a path, which the kernel tells by the path alone (an abstract name also by the type).
 */
static bool collide(const struct listener_spec *a, const struct listener_spec *b)
{
    if (a->family != LISTENER_UNIX || b->family != LISTENER_UNIX || a->path[0] == '@')
        return listener_spec_same_address(a, b);
    struct listener_spec same_type = *b;
    same_type.type = a->type;
    return listener_spec_same_address(a, &same_type);
}

/* One listener against the first `count` of a service; `owner` is its name where it is another service. */
static int check_listener(const struct listener_spec *spec, const struct config_service *service,
    size_t count, const char *owner, struct error *error)
{
    for (size_t i = 0; i < count; i++) {
        const struct listener_spec *other = &service->listeners[i];
        bool address = collide(spec, other);
        if (address || strcmp(spec->name, other->name) == 0)
            return error_set(error, EINVAL, BLAME_USER, "the %s of '%s' is also that of '%s'%s%s",
                address ? "address" : "name", quote_text(spec->text).text, quote_text(other->text).text,
                owner ? " in service " : "", owner ? owner : "");
    }
    return 0;
}

static int check_listeners(const struct config_service *service, const struct config_service *others,
    size_t count, struct error *error)
{
    for (size_t i = 0; i < service->listener_count; i++) {
        const struct listener_spec *spec = &service->listeners[i];
        int result = check_listener(spec, service, i, NULL, error);
        for (size_t j = 0; result == 0 && j < count; j++)
            result = check_listener(spec, &others[j], others[j].listener_count, others[j].name, error);
        if (result < 0)
            return result;
    }
    return 0;
}

static int check_sharing(const struct config_service *service, struct error *error)
{
    for (size_t i = 0; i < service->listener_count; i++)
        if (service->listeners[i].per_worker &&
            config_steering_of(service, &service->listeners[i]) == CONFIG_STEERING_SHARED)
            return error_set(error, EINVAL, BLAME_USER,
                "shared doesn't fit per_worker of '%s': all have one socket",
                quote_text(service->listeners[i].text).text);
    return 0;
}

bool config_names_descriptors(const struct config_service *service)
{
    for (unsigned list = 0; list < 2; list++)
        for (char **word = list ? service->env : service->command; word && *word; word++)
            if (strstr(*word, "{fd:") || strstr(*word, "{fds:"))
                return true;
    return false;
}

static int check_capture(const struct config_service *service, struct error *error)
{
    if (service->capture != CAPTURE_ON)
        return 0;
    if (config_names_descriptors(service))
        return error_set(error, EINVAL, BLAME_USER,
            "on doesn't fit {fd:NAME} and {fds:}: nothing is opened that could be passed on");
    if (service->activation == ACTIVATION_EINHORN)
        return error_set(error, EINVAL, BLAME_USER, "on doesn't fit activation einhorn");
    return 0;
}

static int check_probe(const struct config_service *service, struct error *error)
{
    struct probe_spec spec;
    if (!service->ready_probe)
        return 0;
    if (service->ready_alive_ms >= 0)
        return error_set(error, EINVAL, BLAME_USER, "it can't be together with ready.alive");
    return probe_spec_parse(service->ready_probe, service, &spec, error);
}

/* What is asked of a generation, before and after it gets traffic. */
static int check_asking(const struct config_service *service, const char **ret_key, struct error *error)
{
    static const char *const needing[] = {"health.interval", "health.timeout", "health.failures"};
    struct probe_spec spec;
    int r = 0;
    *ret_key = "smoke";
    for (char **text = service->smoke; r == 0 && text && *text; text++)
        r = smoke_spec_check(*text, service, error);
    if (r < 0)
        return r;
    *ret_key = "health.probe";
    if (service->health_probe)
        return probe_spec_parse(service->health_probe, service, &spec, error);
    for (size_t i = 0; i < sizeof needing / sizeof *needing; i++)
        if (config_is_said(service, needing[i])) {
            *ret_key = needing[i];
            return error_set(error, EINVAL, BLAME_USER, "it needs health.probe");
        }
    return 0;
}

/* Times of which one is never reached because of another. */
static int check_times(const struct config_service *service, const char **ret_key, struct error *error)
{
    if (service->ready_timeout_ms > 0 && service->ready_alive_ms >= service->ready_timeout_ms) {
        *ret_key = "ready.alive";
        return error_set(error, EINVAL, BLAME_USER, "%s is never reached before ready.timeout, which is %s",
            value_duration_text(service->ready_alive_ms).text,
            value_duration_text(service->ready_timeout_ms).text);
    }
    if (service->backoff_initial_ms > service->backoff_max_ms) {
        *ret_key = "backoff.initial";
        return error_set(error, EINVAL, BLAME_USER, "%s is more than backoff.max, which is %s",
            value_duration_text(service->backoff_initial_ms).text,
            value_duration_text(service->backoff_max_ms).text);
    }
    return 0;
}

int config_service_check(const struct config_service *service, const struct config_service *others,
    size_t count, const char **ret_key, struct error *error)
{
    if (!service->command || !service->command[0]) {
        *ret_key = NULL;
        return error_set(error, EINVAL, BLAME_USER, "the key command is missing");
    }
    int r = check_times(service, ret_key, error);
    if (r < 0)
        return r;
    *ret_key = "steering";
    r = check_sharing(service, error);
    if (r < 0)
        return r;
    *ret_key = "capture";
    r = check_capture(service, error);
    if (r < 0)
        return r;
    *ret_key = "ready.probe";
    r = check_probe(service, error);
    if (r < 0)
        return r;
    r = check_asking(service, ret_key, error);
    if (r < 0)
        return r;
    *ret_key = "listen";
    return check_listeners(service, others, count, error);
}
