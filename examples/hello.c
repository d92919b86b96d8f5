/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An HTTP server that gapless restarts without anyone noticing.
 *
 *     gapless run -l web=tcp:8080 -- ./hello --version-name 1
 *     ./hello --port 8080                       without gapless, on every address
 *
 *     /           a greeting
 *     /slow?ms=N  the greeting after N milliseconds (at most an hour)
 *     /version    "VERSION generation N"; VERSION is --version-name, else HELLO_VERSION, else "1"
 *     /pid        the process that answers
 */
#include <gapless_event.h>

#include <err.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define OPEN_TIMEOUT_MS 10000
#define SLOW_MAX_MS 3600000

struct server {
    struct event_base *base;
    struct gapless_event *gapless;
    const char *version;
    int port; /* -1: not said */
};

__attribute__((format(printf, 2, 3))) static void reply(
    struct evhttp_request *request, const char *format, ...)
{
    struct evbuffer *body = evbuffer_new();
    va_list arguments;
    va_start(arguments, format);
    evbuffer_add_vprintf(body, format, arguments);
    va_end(arguments);
    evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type", "text/plain");
    evhttp_send_reply(request, HTTP_OK, "OK", body);
    evbuffer_free(body);
}

static void answer_hello(struct evhttp_request *request, void *arg)
{
    reply(request, "hello\n");
}

static void answer_pid(struct evhttp_request *request, void *arg)
{
    reply(request, "%d\n", (int)getpid());
}

static void answer_version(struct evhttp_request *request, void *arg)
{
    const struct server *server = arg;
    const struct gapless *g = gapless_event_gapless(server->gapless);
    reply(request, "%s generation %" PRIu64 "\n", server->version, g ? gapless_generation(g) : 0);
}

static void answer_later(evutil_socket_t fd, short what, void *arg)
{
    answer_hello(arg, NULL);
}

static void answer_slow(struct evhttp_request *request, void *arg)
{
    const struct server *server = arg;
    const char *query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(request));
    struct evkeyvalq parameters = {.tqh_first = NULL};
    const char *text = NULL;
    if (query && evhttp_parse_query_str(query, &parameters) == 0)
        text = evhttp_find_header(&parameters, "ms");
    char *end = NULL;
    long ms = text ? strtol(text, &end, 10) : -1;
    bool valid = text && *text && !*end && ms >= 0 && ms <= SLOW_MAX_MS;
    evhttp_clear_headers(&parameters);

    struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    if (!valid)
        evhttp_send_error(request, HTTP_BADREQUEST, "ms=N: 0 to 3600000");
    else if (event_base_once(server->base, -1, EV_TIMEOUT, answer_later, request, &delay) < 0)
        evhttp_send_error(request, HTTP_SERVUNAVAIL, NULL);
}

static void on_stop_signal(evutil_socket_t number, short what, void *arg)
{
    struct server *server = arg;
    gapless_event_drain(server->gapless);
}

/* A listening socket on every address, for running without gapless. */
static int listen_on(int port)
{
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1, off = 0;
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    if (fd < 0 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, SOMAXCONN) < 0)
        err(EXIT_FAILURE, "port %d", port);
    return fd;
}

static void parse_arguments(struct server *server, int argc, char *argv[])
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},
        {"version-name", required_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    server->version = getenv("HELLO_VERSION") ? getenv("HELLO_VERSION") : "1";
    server->port = -1;
    int option;
    while ((option = getopt_long(argc, argv, "p:v:", options, NULL)) != -1) {
        if (option == 'p')
            server->port = atoi(optarg);
        else if (option == 'v')
            server->version = optarg;
        else
            errx(2, "usage: hello [--port N] [--version-name V]");
    }
    if (optind < argc || server->port > 65535 || (server->port < 0 && server->port != -1))
        errx(2, "usage: hello [--port N] [--version-name V]");
}

static struct gapless *open_gapless(const struct server *server)
{
    struct gapless_error error;
    struct gapless *g = gapless_open(server->version, OPEN_TIMEOUT_MS, &error);
    if (!g && error.code != ENOENT)
        errx(EXIT_FAILURE, "%s", error.message);
    if (!g && server->port < 0)
        errx(2, "not started by gapless: --port N is needed");
    return g;
}

static void serve(struct server *server, struct gapless_http *http)
{
    struct gapless_error error;
    gapless_http_set_gencb(http, NULL, NULL); /* 404 */
    gapless_http_set_cb(http, "/", answer_hello, server);
    gapless_http_set_cb(http, "/slow", answer_slow, server);
    gapless_http_set_cb(http, "/version", answer_version, server);
    gapless_http_set_cb(http, "/pid", answer_pid, server);

    int r;
    if (gapless_event_gapless(server->gapless)) {
        r = gapless_http_listen(http, NULL, &error);
    } else {
        int fd = listen_on(server->port);
        r = gapless_http_listen_fd(http, &fd, &error);
    }
    if (r < 0 || gapless_event_ready(server->gapless, &error) < 0)
        errx(EXIT_FAILURE, "%s", error.message);
    event_base_dispatch(server->base);
}

int main(int argc, char *argv[])
{
    struct server server = {0};
    parse_arguments(&server, argc, argv);
    struct gapless *g = open_gapless(&server);

    signal(SIGPIPE, SIG_IGN);
    /* What libevent puts back when the loop has ended: the master's stop signal then finds an orderly end
     * under way. */
    signal(SIGTERM, SIG_IGN);
    server.base = event_base_new();
    struct evhttp *evhttp = evhttp_new(server.base);
    server.gapless = gapless_event_new(server.base, g);
    struct gapless_http *http = gapless_http_new(server.gapless, evhttp);
    struct event *term = evsignal_new(server.base, SIGTERM, on_stop_signal, &server);
    struct event *interrupt = evsignal_new(server.base, SIGINT, on_stop_signal, &server);
    event_add(term, NULL);
    event_add(interrupt, NULL);

    serve(&server, http); /* until everything is answered after a drain */

    event_free(term);
    event_free(interrupt);
    gapless_event_free(server.gapless);
    evhttp_free(evhttp);
    event_base_free(server.base);
    return EXIT_SUCCESS;
}
