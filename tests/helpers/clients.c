/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * clients: connections that behave and connections that don't, against a server whose bookkeeping is tested.
 *
 *     clients [OPTIONS] ADDRESS PORT
 *       --protocol http|banner   (http)
 *       --path PATH              what is asked for (/)
 *       --requests N             ends when so many were answered (10000)
 *       --threads N              connections at the same time (32)
 *       --abort PERCENT          of the connections, at a random point of a random kind (0)
 *       --seed N                 of the randomness (the clock)
 *
 * Closed loop, one thread a connection. At the end it prints JSON: how many requests were answered whole, how
 * many connections ended in which way, and how many of those that behaved failed: then the exit code is 1.
 * Connections to 127.0.0.1 come from many addresses of 127/8, so that ports don't run out.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_S 20
#define KEPT_MAX 16 /* requests on one kept connection */
#define THREADS_MAX 1024

static struct options {
    bool banner;
    const char *path;
    uint64_t requests;
    unsigned threads;
    unsigned abort_percent;
    uint64_t seed;
    struct sockaddr_storage address;
    char request[512], last_request[512];
} options = {.path = "/", .requests = 10000, .threads = 32};

static _Atomic uint64_t answered, failed;
static char first_failure[256]; /* of a client that behaved */
static _Atomic unsigned next_source;

struct client {
    uint64_t random;
    int fd;
    size_t used; /* of what came behind the last answer */
    char buffer[65536];
};

static uint64_t random_next(struct client *client)
{
    client->random ^= client->random << 13;
    client->random ^= client->random >> 7;
    client->random ^= client->random << 17;
    return client->random;
}

static unsigned random_below(struct client *client, unsigned limit)
{
    return (unsigned)(random_next(client) >> 20) % limit;
}

/* ── steps; false: it didn't work ── */

static void bind_source(int fd)
{
    struct sockaddr_in source = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + (next_source++ % 200))};
    int on = 1;
    if (options.address.ss_family != AF_INET)
        return;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&source, sizeof source) < 0)
        err(2, "bind");
}

static bool connect_to_server(struct client *client)
{
    struct timeval timeout = {.tv_sec = TIMEOUT_S};
    int on = 1;
    client->used = 0;
    client->fd = socket(options.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0)
        err(2, "socket");
    setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(client->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    bind_source(client->fd);
    return connect(client->fd, (struct sockaddr *)&options.address, sizeof options.address) == 0;
}

static void leave(struct client *client)
{
    close(client->fd);
}

static void leave_by_reset(struct client *client)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(client->fd);
}

static bool send_part(struct client *client, const char *data, size_t size)
{
    return send(client->fd, data, size, 0) == (ssize_t)size;
}

static bool send_text(struct client *client, const char *text)
{
    return send_part(client, text, strlen(text));
}

static bool receive(struct client *client)
{
    ssize_t n = recv(client->fd, client->buffer + client->used, sizeof client->buffer - client->used, 0);
    if (n > 0)
        client->used += (size_t)n;
    return n > 0;
}

static void drop(struct client *client, size_t size)
{
    client->used -= size;
    memmove(client->buffer, client->buffer + size, client->used);
}

/* Reads up to and including `end`, copies that to `text` if it isn't NULL. */
static bool read_until(struct client *client, const char *end, char *text, size_t text_size)
{
    const char *found;
    while (!(found = memmem(client->buffer, client->used, end, strlen(end))))
        if (client->used == sizeof client->buffer || !receive(client))
            return false;
    size_t size = (size_t)(found - client->buffer) + strlen(end);
    if (text)
        snprintf(text, text_size, "%.*s", (int)size, client->buffer);
    drop(client, size);
    return true;
}

static bool read_answer(struct client *client)
{
    char head[2048];
    if (options.banner) {
        if (!read_until(client, "\r\n", head, sizeof head) || head[0] != '2')
            return false;
    } else {
        if (!read_until(client, "\r\n\r\n", head, sizeof head) || strncmp(head, "HTTP/1.1 200 ", 13) != 0)
            return false;
        const char *length = strcasestr(head, "\r\ncontent-length: ");
        uint64_t left = length ? strtoull(length + 18, NULL, 10) : UINT64_MAX;
        while (left > 0) {
            if (client->used == 0 && !receive(client))
                return false;
            size_t piece = client->used < left ? client->used : (size_t)left;
            drop(client, piece);
            left -= piece;
        }
    }
    answered++;
    return true;
}

static bool greeted(struct client *client)
{
    return !options.banner || read_until(client, "\r\n", NULL, 0);
}

static bool exchange(struct client *client)
{
    return send_text(client, options.request) && read_answer(client);
}

/* In two pieces with a moment between them: the server reads the first alone. */
static bool send_in_pieces(struct client *client, const char *request)
{
    size_t size = strlen(request), first = 1 + random_below(client, (unsigned)size - 1);
    if (!send_part(client, request, first))
        return false;
    usleep(200 + random_below(client, 1800));
    return send_part(client, request + first, size - first);
}

static bool at_end(struct client *client)
{
    return client->used == 0 && recv(client->fd, client->buffer, 1, 0) == 0;
}

/* ── clients that behave ── */

static bool one_request(struct client *client)
{
    return greeted(client) && send_text(client, options.last_request) && read_answer(client) &&
           at_end(client);
}

static bool one_in_pieces(struct client *client)
{
    return greeted(client) && send_in_pieces(client, options.last_request) && read_answer(client) &&
           at_end(client);
}

static bool kept(struct client *client)
{
    bool good = greeted(client);
    for (unsigned left = 1 + random_below(client, KEPT_MAX); good && left > 0; left--)
        good = exchange(client);
    return good;
}

static bool kept_then_last(struct client *client)
{
    bool good = greeted(client);
    for (unsigned left = random_below(client, KEPT_MAX); good && left > 0; left--)
        good = exchange(client);
    return good && send_text(client, options.last_request) && read_answer(client) && at_end(client);
}

/* Says that nothing more will come before it reads the answer. */
static bool half_closed(struct client *client)
{
    return greeted(client) && send_text(client, options.last_request) && shutdown(client->fd, SHUT_WR) == 0 &&
           read_answer(client) && at_end(client);
}

/* ── clients that leave in the middle; what they return doesn't matter ── */

static bool silent(struct client *client)
{
    return true;
}

static bool silent_a_moment(struct client *client)
{
    usleep(random_below(client, 2000));
    return true;
}

static bool half_a_request(struct client *client)
{
    size_t size = strlen(options.request);
    return send_part(client, options.request, 1 + random_below(client, (unsigned)size - 1));
}

static bool half_a_request_later(struct client *client)
{
    return greeted(client) && half_a_request(client) && silent_a_moment(client);
}

static bool unread_answer(struct client *client)
{
    return send_text(client, options.request);
}

static bool unread_answer_later(struct client *client)
{
    return unread_answer(client) && silent_a_moment(client);
}

static bool half_an_answer(struct client *client)
{
    return greeted(client) && send_text(client, options.request) &&
           recv(client->fd, client->buffer, 1 + random_below(client, 20), 0) > 0;
}

static bool many_at_once(struct client *client)
{
    for (unsigned left = 2 + random_below(client, 6); left > 0; left--)
        if (!send_text(client, options.request))
            return false;
    return random_below(client, 2) ? read_answer(client) : true;
}

static bool kept_then_half(struct client *client)
{
    return kept(client) && half_a_request(client);
}

static bool kept_then_unread(struct client *client)
{
    return kept(client) && unread_answer(client);
}

static bool half_closed_unread(struct client *client)
{
    return unread_answer(client) && shutdown(client->fd, SHUT_WR) == 0;
}

static bool half_closed_half(struct client *client)
{
    return half_a_request(client) && shutdown(client->fd, SHUT_WR) == 0;
}

struct behaviour {
    const char *name;
    bool (*act)(struct client *client);
};

static const struct behaviour good[] = {{"one_request", one_request}, {"one_in_pieces", one_in_pieces},
    {"kept", kept}, {"kept_then_last", kept_then_last}, {"half_closed", half_closed}};

static const struct behaviour bad[] = {{"silent", silent}, {"silent_a_moment", silent_a_moment},
    {"half_a_request", half_a_request}, {"half_a_request_later", half_a_request_later},
    {"unread_answer", unread_answer}, {"unread_answer_later", unread_answer_later},
    {"half_an_answer", half_an_answer}, {"many_at_once", many_at_once}, {"kept_then_half", kept_then_half},
    {"kept_then_unread", kept_then_unread}, {"half_closed_unread", half_closed_unread},
    {"half_closed_half", half_closed_half}};

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* How many connections of each behaviour ended with a FIN and with a RST. */
struct ends {
    _Atomic uint64_t closed, reset;
};

static struct ends good_ends[COUNT(good)], bad_ends[COUNT(bad)];

static void behave(struct client *client)
{
    unsigned which = random_below(client, COUNT(good));
    errno = 0;
    bool connected = connect_to_server(client);
    if (connected && good[which].act(client))
        good_ends[which].closed++;
    else if (failed++ == 0)
        snprintf(first_failure, sizeof first_failure, "%s, %s: %s, %zu bytes there", good[which].name,
            connected ? "connected" : "connecting", strerror(errno), client->used);
    leave(client);
}

static void misbehave(struct client *client)
{
    unsigned which = random_below(client, COUNT(bad));
    if (connect_to_server(client))
        bad[which].act(client);
    if (random_below(client, 2)) {
        leave_by_reset(client);
        bad_ends[which].reset++;
    } else {
        leave(client);
        bad_ends[which].closed++;
    }
}

static void *client_main(void *argument)
{
    struct client *client = argument;
    while (answered < options.requests && failed < 100) {
        if (random_below(client, 100) < options.abort_percent)
            misbehave(client);
        else
            behave(client);
    }
    free(client);
    return NULL;
}

/* ── the program ── */

static uint64_t print_ends(
    const char *key, const struct behaviour *behaviours, const struct ends *ends, size_t count)
{
    uint64_t sum = 0;
    printf("\"%s\": {", key);
    for (size_t i = 0; i < count; i++) {
        uint64_t closed = ends[i].closed, reset = ends[i].reset;
        printf("%s\"%s\": [%" PRIu64 ", %" PRIu64 "]", i ? ", " : "", behaviours[i].name, closed, reset);
        sum += closed + reset;
    }
    printf("}, ");
    return sum;
}

static void report(void)
{
    printf("{");
    uint64_t behaved = print_ends("behaved", good, good_ends, COUNT(good));
    uint64_t aborted = print_ends("aborted", bad, bad_ends, COUNT(bad));
    printf("\"answered\": %" PRIu64 ", \"failed\": %" PRIu64 ", \"connections_behaved\": %" PRIu64
           ", \"connections_aborted\": %" PRIu64 ", \"first_failure\": \"%s\", \"seed\": %" PRIu64 "}\n",
        answered, failed, behaved, aborted, first_failure, options.seed);
}

static uint64_t parse_number(const char *text, uint64_t most)
{
    char *end;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (errno || end == text || *end || number > most)
        errx(64, "%s: 0 to %" PRIu64, text, most);
    return number;
}

static void parse_address(const char *host, const char *port)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&options.address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&options.address;
    uint16_t number = htons((uint16_t)parse_number(port, 65535));
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = number;
    } else if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = number;
    } else {
        errx(64, "%s: an address", host);
    }
}

static void parse(int argc, char *argv[])
{
    static const struct option known[] = {{"protocol", required_argument, NULL, 'p'},
        {"path", required_argument, NULL, 'P'}, {"requests", required_argument, NULL, 'r'},
        {"threads", required_argument, NULL, 't'}, {"abort", required_argument, NULL, 'a'},
        {"seed", required_argument, NULL, 's'}, {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (option == 'p')
            options.banner = strcmp(optarg, "banner") == 0;
        else if (option == 'P')
            options.path = optarg;
        else if (option == 'r')
            options.requests = parse_number(optarg, UINT64_MAX);
        else if (option == 't')
            options.threads = (unsigned)parse_number(optarg, THREADS_MAX);
        else if (option == 'a')
            options.abort_percent = (unsigned)parse_number(optarg, 100);
        else if (option == 's')
            options.seed = parse_number(optarg, UINT64_MAX);
        else
            exit(64);
    }
    if (argc - optind != 2)
        errx(64, "usage: clients [OPTIONS] ADDRESS PORT");
    parse_address(argv[optind], argv[optind + 1]);
}

static void prepare_requests(void)
{
    if (options.banner) {
        snprintf(options.request, sizeof options.request, "PING\r\n");
        snprintf(options.last_request, sizeof options.last_request, "QUIT\r\n");
        return;
    }
    snprintf(options.request, sizeof options.request, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", options.path);
    snprintf(options.last_request, sizeof options.last_request,
        "GET %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", options.path);
}

int main(int argc, char *argv[])
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    options.seed = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    parse(argc, argv);
    prepare_requests();
    signal(SIGPIPE, SIG_IGN);
    pthread_t threads[THREADS_MAX];
    for (unsigned i = 0; i < options.threads; i++) {
        struct client *client = calloc(1, sizeof *client);
        if (!client)
            err(2, "a client");
        client->random = options.seed * 0x9e3779b97f4a7c15 + (i + 1) * 0xbf58476d1ce4e5b9 + 1;
        if (pthread_create(&threads[i], NULL, client_main, client) != 0)
            errx(2, "cannot make a thread");
    }
    for (unsigned i = 0; i < options.threads; i++)
        pthread_join(threads[i], NULL);
    report();
    return failed ? 1 : 0;
}
