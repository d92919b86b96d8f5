/* SPDX-License-Identifier: BSD-2-Clause */
#include "check.h"

#include "master/config/quote.h"
#include "master/config/value.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define MUST(condition) must((condition), #condition)

static void must(bool holds, const char *condition)
{
    if (holds)
        return;
    fprintf(stderr, "does not hold: %s\n", condition);
    abort();
}

void check_refusal(int result, const struct error *error)
{
    MUST(result == -error->code);
    MUST(error->blame == BLAME_USER || result == -ENOMEM);
    MUST(error->message[0] != '\0');
    /* A message that is cut at its end may be cut inside a character. */
    MUST(strlen(error->message) == sizeof error->message - 1 || !quote_has_control(error->message));
}

void check_listener(const struct listener_spec *spec)
{
    MUST(spec->text && spec->name && *spec->name);
    MUST(!quote_has_control(spec->text) && !quote_has_control(spec->name));
    MUST((unsigned)spec->family < LISTENER_FAMILY_COUNT);
    bool has_path = spec->family == LISTENER_UNIX || spec->family == LISTENER_FD;
    MUST(has_path == (spec->path != NULL));
    MUST(!has_path || !spec->host);
    MUST(spec->family != LISTENER_UNIX || (strlen(spec->path) > 1 && strlen(spec->path) <= 107));
    MUST(spec->family != LISTENER_TCP || spec->type == SOCK_STREAM);
    MUST(spec->family != LISTENER_UDP || spec->type == SOCK_DGRAM);
    MUST(spec->mode == (mode_t)-1 || spec->mode <= 0777);
    MUST(spec->protocol >= -1 && spec->protocol < (int)PROTOCOL_COUNT);
    MUST(spec->protocol == -1 || spec->family == LISTENER_TCP);
    MUST(spec->backlog == -1 || spec->backlog > 0);
    MUST(spec->v6only >= -1 && spec->v6only <= 1);
    MUST(spec->defer_accept_s >= 0 && spec->fastopen >= 0 && spec->rcvbuf >= 0 && spec->sndbuf >= 0);
    MUST(listener_spec_same_address(spec, spec));
}

static void check_upgrade(const struct config_service *service)
{
    MUST((unsigned)service->preset < PRESET_COUNT && (unsigned)service->check_memory < CONFIG_MEMORY_COUNT);
    MUST(!service->check || *service->check[0]);
    MUST(service->check_timeout_ms > 0 && service->smoke_timeout_ms > 0 && service->observe_ms >= 0);
    MUST(service->observe_crashes >= 1 && service->health_failures >= 1 && service->health_interval_ms >= 10);
    MUST(service->drain_max_draining >= 1 && service->drain_max_draining <= 16);
    MUST(service->watchdog_ms == 0 || service->watchdog_ms >= 10);
    MUST(service->canary_count <= 16 && service->step_count <= 64);
    for (size_t i = 0; i < service->canary_count; i++) {
        const struct config_stage *stage = &service->canary[i];
        MUST(stage->percent_100 >= 1 && stage->percent_100 <= 9999 && stage->share > 0 && stage->ms > 0);
        MUST(i == 0 || stage->share > stage[-1].share);
    }
    for (size_t i = 0; i < service->step_count; i++) {
        const struct config_step *step = &service->steps[i];
        MUST(step->phase < PHASE_COUNT && step->timeout_ms > 0 && step->name);
        MUST(step->run && *step->run[0] && (!step->undo || *step->undo[0]));
    }
}

static void check_service(const struct config *config, const struct config_service *service)
{
    MUST(value_check_name(service->name, NULL) == 0);
    MUST(config_find(config, service->name) == service);
    MUST(service->command && service->command[0] && *service->command[0]);
    MUST(service->workers >= 1 && service->workers <= 1024);
    MUST(service->umask == (mode_t)-1 || service->umask <= 0777);
    MUST(service->nice_set ? service->nice >= -20 && service->nice <= 19 : service->nice == 0);
    MUST(service->ready_alive_ms == -1 || service->ready_alive_ms > 0);
    MUST(service->ready_timeout_ms >= 0 && service->drain_timeout_ms >= 0 && service->stop_grace_ms >= 0);
    MUST(service->drain_quiet_ms >= 0 && service->drain_idle_grace_ms >= -1);
    MUST((unsigned)service->protocol < PROTOCOL_COUNT);
    MUST((unsigned)service->drain_on_timeout < ON_TIMEOUT_COUNT);
    MUST(service->stop_signal > 0 && service->drain_signal >= 0);
    MUST(service->backoff_initial_ms > 0 && service->backoff_initial_ms <= service->backoff_max_ms);
    MUST((unsigned)service->restart < RESTART_COUNT && (unsigned)service->activation < ACTIVATION_COUNT);
    check_upgrade(service);
    for (size_t i = 0; service->env && service->env[i]; i++)
        MUST(value_check_env(service->env[i], NULL) == 0);
    for (size_t i = 0; i < service->listener_count; i++) {
        check_listener(&service->listeners[i]);
        for (size_t j = 0; j < i; j++)
            MUST(!listener_spec_same_address(&service->listeners[i], &service->listeners[j]));
    }
}

void check_config(const struct config *config)
{
    MUST(config->references == 1);
    MUST(value_check_name(config->name, NULL) == 0);
    MUST((unsigned)config->log < LOG_FORMAT_COUNT);
    MUST((unsigned)config->log_level < LOG_LEVEL_COUNT && (unsigned)config->tracker < CONFIG_TRACKER_COUNT);
    MUST(config->history_size >= 16384 && config->history_size <= (uint64_t)1 << 40);
    MUST(config->service_count >= 1);
    for (size_t i = 0; i < config->service_count; i++)
        check_service(config, &config->services[i]);
}
