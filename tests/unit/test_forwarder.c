/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Probes and the forwarder reach the generation that they are for, whichever is chosen: TCP in the ebpf tier
 * (needs CAP_BPF), and a Unix path. The generations answer with their number and what they were told.
 */
#include "master/forwarder.h"
#include "master/probe.h"

#include "bpf/waiting.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/thread.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define GENERATIONS 2
#define BULK (4 << 20)

struct world {
    char directory[64];
    struct event_base *base;
    struct steering steering;
    struct waiting *waiting;
    struct listener_spec spec;
    struct endpoint *endpoints[GENERATIONS];
    pthread_t threads[GENERATIONS];
    int stop[2];
    struct error failure;
    bool done;
};

static struct world world;

/* Reads to the end, then says its number and sends it all back. */
static void serve_one(int fd, unsigned number)
{
    static char bytes[GENERATIONS][BULK + 64];
    size_t used = 0;
    ssize_t n;
    while ((n = read(fd, bytes[number] + used, sizeof bytes[number] - used)) > 0)
        used += (size_t)n;
    dprintf(fd, "%u", number);
    for (size_t sent = 0; sent < used; sent += (size_t)n)
        if ((n = write(fd, bytes[number] + sent, used - sent)) <= 0)
            break;
    close(fd);
}

static void *serve(void *ctx)
{
    unsigned number = (unsigned)(uintptr_t)ctx;
    struct pollfd fds[2] = {{.fd = world.endpoints[number]->sockets[0].fd, .events = POLLIN},
        {.fd = world.stop[0], .events = POLLIN}};
    for (;;) {
        poll(fds, 2, -1);
        if (fds[1].revents)
            return NULL;
        int fd = accept(fds[0].fd, NULL, NULL);
        if (fd >= 0)
            serve_one(fd, number);
    }
}

static int set_up_at(const char *text)
{
    struct error error;
    world.base = event_base_new();
    steering_open(&world.steering);
    assert_int_equal(waiting_open(&world.waiting, &error), 0);
    assert_int_equal(listener_spec_parse(text, &world.spec, &error), 0);
    struct listener_request request = {.spec = &world.spec, .steering = CONFIG_STEERING_AUTO};
    if (listener_open(&world.steering, &request, &world.endpoints[0], &error) < 0 ||
        listener_join(world.endpoints[0]->listener, &request, &world.endpoints[1], &error) < 0)
        fail_msg("%s", error.message);
    assert_int_equal(pipe(world.stop), 0);
    for (uintptr_t i = 0; i < GENERATIONS; i++)
        assert_int_equal(pthread_create(&world.threads[i], NULL, serve, (void *)i), 0);
    return 0;
}

static int set_up_tcp(void **state)
{
    world = (struct world){.done = false};
    return set_up_at("tcp:127.0.0.1:0,nonblock");
}

static int set_up_path(void **state)
{
    char text[128];
    world = (struct world){.directory = "/tmp/gapless-forwarder-XXXXXX"};
    assert_non_null(mkdtemp(world.directory));
    snprintf(text, sizeof text, "unix:%s/s,nonblock", world.directory);
    return set_up_at(text);
}

static int tear_down(void **state)
{
    close(world.stop[1]);
    for (unsigned i = 0; i < GENERATIONS; i++)
        pthread_join(world.threads[i], NULL);
    close(world.stop[0]);
    for (unsigned i = 0; i < GENERATIONS; i++)
        endpoint_unref(world.endpoints[i]);
    listener_spec_done(&world.spec);
    waiting_close(world.waiting);
    steering_close(&world.steering);
    event_base_free(world.base);
    return world.directory[0] ? rmdir(world.directory) : 0;
}

/* ── the forwarder ── */

static int connect_to(const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    to.sin_port = htons((uint16_t)atoi(strchr(address, ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

struct exchange {
    const char *address;
    size_t length;
    char *answer;
    size_t answered;
};

static void *talk(void *ctx)
{
    struct exchange *exchange = ctx;
    int fd = connect_to(exchange->address);
    char *bytes = malloc(exchange->length);
    memset(bytes, 'x', exchange->length);
    for (size_t sent = 0; sent < exchange->length;) {
        ssize_t n = write(fd, bytes + sent, exchange->length - sent);
        if (n <= 0)
            break;
        sent += (size_t)n;
    }
    free(bytes);
    shutdown(fd, SHUT_WR);
    exchange->answer = malloc(exchange->length + 64);
    for (ssize_t n; (n = read(fd, exchange->answer + exchange->answered,
                         exchange->length + 64 - exchange->answered)) > 0;)
        exchange->answered += (size_t)n;
    close(fd);
    event_base_loopbreak(world.base);
    return NULL;
}

static void exchange_through(struct forwarder *forwarder, unsigned number, size_t length)
{
    struct exchange exchange = {.address = forwarder_address(forwarder), .length = length};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, talk, &exchange), 0);
    event_base_dispatch(world.base);
    pthread_join(thread, NULL);
    assert_int_equal(exchange.answered, length + 1);
    assert_int_equal(exchange.answer[0], '0' + (int)number);
    assert_int_equal(exchange.answer[length], 'x');
    free(exchange.answer);
}

static void it_reaches_its_generation_whichever_is_chosen(void **state)
{
    struct error error;
    for (unsigned chosen = 0; chosen < GENERATIONS; chosen++) {
        assert_int_equal(
            listener_choose(world.endpoints[0]->listener, world.endpoints[chosen], NULL, 0, &error), 0);
        for (unsigned i = 0; i < GENERATIONS; i++) {
            struct forwarder *forwarder;
            assert_int_equal(forwarder_start(world.base, world.endpoints[i], &forwarder, &error), 0);
            for (unsigned n = 0; n < 5; n++)
                exchange_through(forwarder, i, 10);
            exchange_through(forwarder, i, BULK);
            forwarder_free(forwarder);
        }
    }
}

static void a_shared_socket_is_refused(void **state)
{
    struct error error;
    struct forwarder *forwarder = NULL;
    world.endpoints[0]->shared = true;
    assert_int_equal(forwarder_start(world.base, world.endpoints[0], &forwarder, &error), -EOPNOTSUPP);
    assert_non_null(strstr(error.message, "shared"));
    world.endpoints[0]->shared = false;
}

/* ── probes ── */

static void on_done(void *ctx, const struct error *failure)
{
    world.done = true;
    world.failure = failure ? *failure : (struct error){.code = 0};
    event_base_loopbreak(world.base);
}

static void probe(unsigned i, const char *path)
{
    struct error error;
    struct probe_spec spec = {
        .http = path != NULL, .host = "localhost", .status_least = 200, .status_most = 399};
    snprintf(spec.path, sizeof spec.path, "%s", path ? path : "");
    struct probe_request request = {.base = world.base,
        .waiting = world.waiting,
        .endpoint = world.endpoints[i],
        .spec = &spec,
        .timeout_ms = 5000,
        .done = on_done};
    world.done = false;
    struct probe *probe = probe_start(&request, &error);
    assert_non_null(probe);
    event_base_dispatch(world.base);
    assert_true(world.done);
    probe_free(probe);
}

static void a_connection_that_is_accepted_answers_tcp(void **state)
{
    probe(1, NULL);
    assert_int_equal(world.failure.code, 0);
}

/* These servers answer only when the client has said its last, which a probe doesn't. */
static void silence_is_no_answer_to_http(void **state)
{
    struct error error;
    struct probe_spec spec = {.http = true, .path = "/"};
    struct probe_request request = {
        .base = world.base, .endpoint = world.endpoints[1], .spec = &spec, .timeout_ms = 50, .done = on_done};
    struct probe *probe = probe_start(&request, &error);
    assert_non_null(probe);
    event_base_dispatch(world.base);
    assert_int_equal(world.failure.code, ETIMEDOUT);
    probe_free(probe);
}

int main(void)
{
    struct steering steering = {.last_id = 0};
    signal(SIGPIPE, SIG_IGN);
    evthread_use_pthreads();
    steering_open(&steering);
    bool ebpf = steering.steer != NULL;
    steering_close(&steering);
#define CASE(test, up) cmocka_unit_test_setup_teardown(test, up, tear_down)
#define EVERY(up)                                                                                            \
    CASE(it_reaches_its_generation_whichever_is_chosen, up), CASE(a_shared_socket_is_refused, up),           \
        CASE(a_connection_that_is_accepted_answers_tcp, up), CASE(silence_is_no_answer_to_http, up)
    const struct CMUnitTest path[] = {EVERY(set_up_path)};
    const struct CMUnitTest both[] = {EVERY(set_up_path), EVERY(set_up_tcp)};
    return ebpf ? cmocka_run_group_tests_name("forwarder", both, NULL, NULL)
                : cmocka_run_group_tests_name("forwarder", path, NULL, NULL);
}
