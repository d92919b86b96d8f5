/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client: so many flows at any time, one loop for all of them.
 */
#include "bench/load/clock.h"
#include "bench/load/timer_queue.h"
#include "tests/helpers/datagrams/datagrams.h"
#include "tests/helpers/datagrams/flow.h"
#include "tests/helpers/datagrams/header.h"
#include "tests/helpers/datagrams/ledger.h"

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#define FLOWS_MAX 20000
#define LIFE_MAX_MS 86400000
#define EVENTS 256
#define WAIT_MAX_NS (3600 * NS_PER_S)
#define BEHIND_NS (100 * NS_PER_MS) /* what is so late isn't made up for */

static struct {
    const char *to;
    uint64_t flows, rate;
    uint64_t duration_ns;             /* 0: until standard input closes */
    uint64_t life_least, life_spread; /* in ns; 0: a flow lives to the end */
    uint64_t id_length, seed;
    bool until_stdin_closes, migrate;
} options;

/* A place for one flow after the other. */
struct slot {
    struct timer timer; /* the next datagram */
    struct flow *flow;  /* NULL: the first has not begun */
    uint64_t ends_ns, migrates_ns;
};

static struct ledger ledger;
static struct flow_world world = {.ledger = &ledger};
static struct slot *slots;
static struct timer_queue sending;
static bool stopped;

/* ── the flows ── */

static void begin_flow(struct slot *slot, uint64_t now_ns)
{
    slot->flow = flow_begin(now_ns);
    slot->ends_ns = slot->migrates_ns = UINT64_MAX;
    if (options.life_least == 0)
        return;
    uint64_t life = options.life_least + (uint64_t)(drand48() * (double)options.life_spread);
    slot->ends_ns = now_ns + life;
    if (options.migrate)
        slot->migrates_ns = now_ns + life / 2;
}

static void act(struct slot *slot, uint64_t now_ns)
{
    uint64_t due_ns = slot->timer.due_ns;
    if (slot->flow && now_ns >= slot->ends_ns) {
        flow_end(slot->flow);
        slot->flow = NULL;
    }
    if (!slot->flow)
        begin_flow(slot, now_ns);
    if (now_ns >= slot->migrates_ns && flow_migrate(slot->flow))
        slot->migrates_ns = UINT64_MAX;
    flow_send(slot->flow, now_ns);
    timer_arm(&slot->timer, &sending, now_ns - due_ns > BEHIND_NS ? now_ns : due_ns);
}

/* One after the other in the time between two datagrams of a flow, so that they don't send all at once. */
static void begin(uint64_t now_ns)
{
    uint64_t interval_ns = NS_PER_S / options.rate;
    slots = calloc(options.flows, sizeof *slots);
    if (!slots)
        err(1, "flows");
    timer_queue_init(&sending, interval_ns);
    for (uint64_t i = 0; i < options.flows; i++)
        timer_arm(&slots[i].timer, &sending, now_ns - interval_ns + interval_ns * i / options.flows);
}

static void stop(void)
{
    stopped = true;
    for (uint64_t i = 0; i < options.flows; i++) {
        timer_disarm(&slots[i].timer);
        if (slots[i].flow)
            flow_end(slots[i].flow);
    }
}

/* ── the loop ── */

static void watch_stdin(void)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(world.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event) < 0)
        err(64, "standard input must be a pipe");
}

/* Each line asks for a report; the end is the end. */
static void read_stdin(void)
{
    char text[256];
    ssize_t n = read(STDIN_FILENO, text, sizeof text);
    if (n < 0 && errno == EINTR)
        return;
    for (ssize_t i = 0; i < n; i++)
        if (text[i] == '\n')
            ledger_print(&ledger, clock_now_ns());
    if (n <= 0) {
        epoll_ctl(world.epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
        stop();
    }
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void wait_for_events(uint64_t next_ns)
{
    struct epoll_event events[EVENTS];
    uint64_t now_ns = clock_now_ns();
    uint64_t most_ns = earlier(next_ns > now_ns ? next_ns - now_ns : 0, WAIT_MAX_NS);
    int timeout_ms = (int)((most_ns + NS_PER_MS - 1) / NS_PER_MS);
    int count = epoll_wait(world.epoll, events, EVENTS, timeout_ms);
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr)
            flow_receive(events[i].data.ptr);
        else
            read_stdin();
    }
}

static void run(void)
{
    uint64_t now_ns = ledger.started_ns = clock_now_ns();
    uint64_t end_ns = options.until_stdin_closes ? UINT64_MAX : now_ns + options.duration_ns;
    begin(now_ns);
    for (;;) {
        struct timer *timer;
        now_ns = clock_now_ns();
        if (!stopped && now_ns >= end_ns)
            stop();
        while ((timer = timer_queue_expire(&sending, now_ns)))
            act((struct slot *)((char *)timer - offsetof(struct slot, timer)), now_ns);
        uint64_t next_ns = earlier(flow_expire(now_ns), timer_queue_next_ns(&sending));
        if (flow_reap() == 0 && stopped)
            break;
        wait_for_events(earlier(next_ns, stopped ? UINT64_MAX : end_ns));
    }
    ledger_print(&ledger, clock_now_ns());
}

/* ── the program ── */

static void parse_life(char *text)
{
    char *colon = strchr(text, ':');
    if (!colon)
        errx(64, "%s: LO:HI", text);
    *colon = 0;
    uint64_t least = datagrams_parse_number(text, 1, LIFE_MAX_MS);
    uint64_t most = datagrams_parse_number(colon + 1, least, LIFE_MAX_MS);
    options.life_least = least * NS_PER_MS;
    options.life_spread = (most - least) * NS_PER_MS;
}

static void parse(int argc, char *argv[])
{
    static const struct option known[] = {{"to", required_argument, NULL, 't'},
        {"flows", required_argument, NULL, 'f'}, {"rate", required_argument, NULL, 'r'},
        {"duration", required_argument, NULL, 'd'}, {"until-stdin-closes", no_argument, NULL, 'u'},
        {"flow-life", required_argument, NULL, 'l'}, {"connection-id", required_argument, NULL, 'c'},
        {"migrate", no_argument, NULL, 'm'}, {"seed", required_argument, NULL, 's'}, {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (option == 't')
            options.to = optarg;
        else if (option == 'f')
            options.flows = datagrams_parse_number(optarg, 1, FLOWS_MAX);
        else if (option == 'r')
            options.rate = datagrams_parse_number(optarg, 1, FLOW_RATE_MAX);
        else if (option == 'd')
            options.duration_ns = datagrams_parse_number(optarg, 1, LIFE_MAX_MS) * NS_PER_MS;
        else if (option == 'u')
            options.until_stdin_closes = true;
        else if (option == 'l')
            parse_life(optarg);
        else if (option == 'c')
            options.id_length = datagrams_parse_number(optarg, 1, CONNECTION_ID_MAX);
        else if (option == 'm')
            options.migrate = true;
        else if (option == 's')
            options.seed = datagrams_parse_number(optarg, 0, UINT64_MAX);
        else
            exit(64);
    }
    if (optind != argc || !options.to || !options.flows || !options.rate ||
        options.until_stdin_closes == (options.duration_ns > 0))
        errx(64,
            "--to, --flows, --rate, and --duration or --until-stdin-closes are needed, and nothing else is");
    if (options.flows * options.rate > FLOW_RATE_MAX)
        errx(64, "more than %d datagrams a second", FLOW_RATE_MAX);
    if (options.migrate && (options.id_length == 0 || options.life_least == 0))
        errx(64, "--migrate needs --connection-id and --flow-life");
}

static void require_loopback(void)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)&world.to;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&world.to;
    if (world.to.ss_family == AF_INET ? ntohl(in->sin_addr.s_addr) >> 24 != IN_LOOPBACKNET
                                      : !IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr))
        errx(64, "%s is not this machine's loopback", options.to);
}

int datagrams_flows(int argc, char *argv[])
{
    options.seed = clock_now_ns() ^ (uint64_t)getpid() << 40;
    parse(argc, argv);
    world.to_size = datagrams_parse_address(options.to, &world.to);
    require_loopback();
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    world.id_length = (uint8_t)options.id_length;
    world.seed = options.seed;
    world.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (world.epoll < 0)
        err(1, "epoll");
    srand48((long)options.seed);
    flow_init(&world);
    if (options.until_stdin_closes)
        watch_stdin();
    run();
    return 0;
}
