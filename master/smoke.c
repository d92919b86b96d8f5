/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/smoke.h"

#include "master/clock.h"
#include "master/command.h"
#include "master/config/quote.h"
#include "master/config/smoke_spec.h"
#include "master/config/value.h"
#include "master/forwarder.h"
#include "master/generation.h"
#include "master/master.h"
#include "master/probe.h"
#include "master/service.h"
#include "master/strv.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct smoke {
    struct smoke_request request;
    struct event *next;     /* begins a test, from the loop */
    int64_t until_ms;       /* CLOCK_MONOTONIC: the end of the time of all of them */
    size_t number;          /* of the test that is next, or under way */
    struct smoke_spec spec; /* … and what it is */
    struct probe *probe;
    struct command *command;
    struct forwarder **forwarders; /* for the command */
    size_t forwarder_count;
};

static const struct config_service *settings_of(const struct smoke *smoke)
{
    return smoke->request.generation->settings;
}

static struct master *master_of(const struct smoke *smoke)
{
    return smoke->request.generation->service->master;
}

/* NULL: all have passed. */
static const char *test_of(const struct smoke *smoke)
{
    char **tests = settings_of(smoke)->smoke;
    return tests ? tests[smoke->number] : NULL;
}

/* Lets go of what the test under way has. */
static void end_test(struct smoke *smoke)
{
    probe_free(smoke->probe);
    smoke->probe = NULL;
    command_free(smoke->command);
    smoke->command = NULL;
    for (size_t i = 0; i < smoke->forwarder_count; i++)
        forwarder_free(smoke->forwarders[i]);
    free(smoke->forwarders);
    smoke->forwarders = NULL;
    smoke->forwarder_count = 0;
    smoke_spec_done(&smoke->spec);
}

void smoke_free(struct smoke *smoke)
{
    if (!smoke)
        return;
    end_test(smoke);
    smoke->request.generation->smoke = NULL;
    event_free(smoke->next);
    free(smoke);
}

void smoke_again(struct generation *generation)
{
    struct smoke *smoke = generation->smoke;
    if (!smoke || (!smoke->probe && !smoke->command))
        return;
    end_test(smoke);
    event_active(smoke->next, EV_TIMEOUT, 0);
}

/* The tests may be freed when it returns. */
static void tell(struct smoke *smoke, const struct error *failure)
{
    end_test(smoke);
    smoke->request.done(smoke->request.ctx, failure);
}

/* ── the end of a test ── */

static void passed(struct smoke *smoke)
{
    const char *test = test_of(smoke);
    end_test(smoke);
    smoke->number++;
    event_active(smoke->next, EV_TIMEOUT, 0);
    smoke->request.passed(smoke->request.ctx, test);
}

static void on_probed(void *ctx, const struct error *failure)
{
    struct smoke *smoke = ctx;
    if (!failure) {
        passed(smoke);
        return;
    }
    struct error error = *failure;
    error_prefix(&error, "smoke test %s", quote_text(test_of(smoke)).text);
    tell(smoke, &error);
}

/* Its words begin with what it was. */
static void on_ended(void *ctx, const struct error *failure)
{
    struct smoke *smoke = ctx;
    struct error error;
    if (!failure) {
        passed(smoke);
        return;
    }
    error = *failure; /* the command's, which goes */
    tell(smoke, &error);
}

/* ── a command ── */

/* GAPLESS_ADDRESS_NAME; the first of those that are written alike. */
static void add_address(struct strv *env, const char *listener, const char *address)
{
    char *entry = strv_add(env, "GAPLESS_ADDRESS_%s=%s", listener, address);
    if (!entry)
        return;
    size_t from = strlen("GAPLESS_ADDRESS_"), end = from + strlen(listener);
    for (size_t i = from; i < end; i++)
        entry[i] = (char)(isalnum((unsigned char)entry[i]) ? toupper((unsigned char)entry[i]) : '_');
}

/* A forwarder before each endpoint that can be asked alone; none is no failure where no connection could be
 * made either. */
static int forward(struct smoke *smoke, struct strv *env, struct error *error)
{
    const struct generation *generation = smoke->request.generation;
    bool connectable = false;
    smoke->forwarders = calloc(generation->endpoint_count + 1, sizeof *smoke->forwarders);
    if (!smoke->forwarders)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    for (size_t i = 0; i < generation->endpoint_count; i++) {
        struct endpoint *endpoint = generation->endpoints[i];
        struct error why;
        int type = endpoint ? endpoint->listener->spec.type : SOCK_DGRAM;
        if (type == SOCK_DGRAM || type == SOCK_SEQPACKET)
            continue;
        if (probe_check(endpoint, &why) < 0) {
            if (error && !connectable)
                *error = why;
            connectable = true;
            continue;
        }
        struct forwarder **forwarder = &smoke->forwarders[smoke->forwarder_count];
        int r = forwarder_start(master_of(smoke)->base, endpoint, forwarder, error);
        if (r < 0)
            return r;
        const char *address = forwarder_address(*forwarder);
        if (!smoke->forwarder_count++)
            strv_add(env, "GAPLESS_ADDRESS=%s", address);
        add_address(env, endpoint->listener->spec.name, address);
    }
    return connectable && !smoke->forwarder_count ? -EOPNOTSUPP : 0;
}

static int run(struct smoke *smoke, struct strv *env, int64_t timeout_ms, struct error *error)
{
    const struct generation *generation = smoke->request.generation;
    struct strv what = {.items = NULL};
    int r = forward(smoke, env, error);
    if (r < 0)
        return r;
    strv_add(env, "GAPLESS_SERVICE=%s", generation->service->name);
    strv_add(env, "GAPLESS_NEW_GENERATION=%" PRIu64, generation->id);
    if (smoke->request.from)
        strv_add(env, "GAPLESS_OLD_GENERATION=%" PRIu64, smoke->request.from);
    else
        strv_add(env, "GAPLESS_OLD_GENERATION=");
    strv_add(&what, "smoke test %s", quote_text(test_of(smoke)).text);
    if (strv_failed(env) || strv_failed(&what)) {
        strv_done(&what);
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    }
    struct command_request request = {.master = master_of(smoke),
        .service = settings_of(smoke),
        .argv = smoke->spec.run,
        .env = env->items,
        .what = what.items[0],
        .timeout_ms = timeout_ms,
        .done = on_ended,
        .ctx = smoke};
    smoke->command = command_start(&request, error);
    strv_done(&what);
    return smoke->command ? 0 : -EAGAIN;
}

/* ── the beginning of a test ── */

static int probe(struct smoke *smoke, int64_t timeout_ms, struct error *error)
{
    struct probe_spec *spec = &smoke->spec.probe;
    struct master *master = master_of(smoke);
    struct probe_request request = {.base = master->base,
        .waiting = master->waiting,
        .endpoint = generation_endpoint(smoke->request.generation, spec->listener),
        .spec = spec,
        .timeout_ms = timeout_ms,
        .done = on_probed,
        .ctx = smoke};
    if (!request.endpoint)
        return error_set(error, ENOTCONN, BLAME_PEER, "the new generation doesn't listen there");
    if (spec->timeout_ms > timeout_ms)
        spec->timeout_ms = timeout_ms;
    smoke->probe = probe_start(&request, error);
    return smoke->probe ? 0 : -EAGAIN;
}

static int begin_test(struct smoke *smoke, const char *test, struct error *error)
{
    int64_t left_ms = smoke->until_ms - clock_monotonic_ms();
    if (left_ms <= 0)
        return error_set(error, ETIMEDOUT, BLAME_USER, "the time of all the tests (%s) was over before it",
            value_duration_text(settings_of(smoke)->smoke_timeout_ms).text);
    int r = smoke_spec_parse(test, settings_of(smoke), &smoke->spec, error);
    if (r < 0)
        return r;
    if (!smoke->spec.run)
        return probe(smoke, left_ms, error);
    struct strv env = {.items = NULL};
    r = run(smoke, &env, left_ms, error);
    strv_done(&env);
    return r;
}

static void on_next(evutil_socket_t fd, short what, void *ctx)
{
    struct smoke *smoke = ctx;
    const char *test = test_of(smoke);
    struct error error = {.code = 0};
    if (!test) {
        tell(smoke, NULL);
        return;
    }
    if (begin_test(smoke, test, &error) < 0) {
        error_prefix(&error, "smoke test %s", quote_text(test).text);
        tell(smoke, &error);
    }
}

struct smoke *smoke_start(const struct smoke_request *request, struct error *error)
{
    struct smoke *smoke = calloc(1, sizeof *smoke);
    if (smoke) {
        smoke->request = *request;
        smoke->until_ms = clock_monotonic_ms() + settings_of(smoke)->smoke_timeout_ms;
        smoke->next = evtimer_new(master_of(smoke)->base, on_next, smoke);
    }
    if (!smoke || !smoke->next) {
        free(smoke);
        error_set(error, ENOMEM, BLAME_OURS, "out of memory");
        return NULL;
    }
    request->generation->smoke = smoke;
    event_active(smoke->next, EV_TIMEOUT, 0);
    return smoke;
}
