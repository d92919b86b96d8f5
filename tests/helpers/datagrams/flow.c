/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/datagrams/flow.h"

#include "bench/load/clock.h"
#include "tests/helpers/datagrams/datagrams.h"
#include "tests/helpers/datagrams/header.h"

#include <err.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <unistd.h>

#define FIRST_ID_BYTES 8
#define AWAITED_MAX 262144 /* FLOW_RATE_MAX for FLOW_TIMEOUT_NS, and some */

struct flow_path {
    struct flow *flow;
    int fd; /* -1: closed, or not opened yet */
    uint32_t awaited;
};

struct flow {
    SLIST_ENTRY(flow) dead;
    uint64_t number, began_ns;
    uint32_t next_sequence;
    bool over;
    struct flow_path paths[2]; /* the second: migrated */
    unsigned current;
    struct connection_id first_id, server_id; /* server_id without a length: not told yet */
    bool server_id_answered;                  /* a datagram that had it was answered */
    struct ledger_place *place;               /* of the first answer; NULL: none yet */
    uint64_t instance;
    bool known, misdelivered; /* known: the server has said first */
    uint32_t highest;         /* sequence number that was answered */
};

enum fate { AWAITED, ANSWERED, LOST };

/* What was sent. Its ticket is its number, of all flows; the newest AWAITED_MAX are remembered. */
struct sent {
    struct flow_path *path; /* valid while it is awaited */
    uint64_t flow, sent_ns;
    uint32_t sequence;
    enum fate fate;
};

static const struct flow_world *world;
static struct ledger_counts *counts;
static struct sent sent[AWAITED_MAX];
static uint64_t next_ticket, oldest_awaited;
static uint64_t random_state, first_number, alive;
static SLIST_HEAD(, flow) dead = SLIST_HEAD_INITIALIZER(dead);

/* splitmix64 */
static uint64_t random_next(void)
{
    uint64_t value = random_state += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

void flow_init(const struct flow_world *the_world)
{
    world = the_world;
    counts = &world->ledger->counts;
    random_state = world->seed;
    first_number = random_next();
}

/* ── sockets ── */

static void path_open(struct flow_path *path)
{
    path->fd = socket(world->to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = path};
    if (path->fd < 0 || connect(path->fd, (const struct sockaddr *)&world->to, world->to_size) < 0 ||
        epoll_ctl(world->epoll, EPOLL_CTL_ADD, path->fd, &event) < 0)
        err(1, "a flow's socket");
}

static void path_close_if_done(struct flow_path *path)
{
    struct flow *flow = path->flow;
    if (path->fd < 0 || path->awaited > 0 || (!flow->over && path == &flow->paths[flow->current]))
        return;
    close(path->fd);
    path->fd = -1;
    if (flow->over && flow->paths[0].fd < 0 && flow->paths[1].fd < 0) {
        counts->flows_ended++;
        alive--;
        SLIST_INSERT_HEAD(&dead, flow, dead);
    }
}

static void settle(struct sent *one, enum fate fate)
{
    one->fate = fate;
    counts->waiting--;
    one->path->awaited--;
    path_close_if_done(one->path);
}

/* ── the flow ── */

struct flow *flow_begin(uint64_t now_ns)
{
    struct flow *flow = calloc(1, sizeof *flow);
    if (!flow)
        err(1, "a flow");
    flow->number = first_number + counts->flows_begun++;
    flow->began_ns = now_ns;
    flow->paths[0] = flow->paths[1] = (struct flow_path){.flow = flow, .fd = -1};
    flow->first_id.length = FIRST_ID_BYTES;
    uint64_t random = random_next();
    memcpy(flow->first_id.bytes, &random, sizeof random);
    path_open(&flow->paths[0]);
    alive++;
    return flow;
}

void flow_end(struct flow *flow)
{
    flow->over = true;
    path_close_if_done(&flow->paths[0]);
    path_close_if_done(&flow->paths[1]);
}

bool flow_migrate(struct flow *flow)
{
    if (flow->current == 1 || !flow->server_id_answered)
        return false;
    path_open(&flow->paths[1]);
    flow->current = 1;
    counts->flows_migrated++;
    path_close_if_done(&flow->paths[0]);
    return true;
}

uint64_t flow_reap(void)
{
    struct flow *flow;
    while ((flow = SLIST_FIRST(&dead))) {
        SLIST_REMOVE_HEAD(&dead, dead);
        free(flow);
    }
    return alive;
}

/* ── what it sends ── */

static size_t compose(const struct flow *flow, uint8_t *out)
{
    struct datagram_request request = {.magic = DATAGRAM_MAGIC,
        .sequence = flow->next_sequence,
        .flow = flow->number,
        .ticket = next_ticket};
    struct header header = {.kind = HEADER_NONE};
    if (world->id_length > 0 && flow->server_id.length > 0)
        header = (struct header){.kind = HEADER_SHORT, .to = flow->server_id};
    else if (world->id_length > 0)
        header = (struct header){.kind = HEADER_LONG, .to = flow->first_id};
    size_t length = header_write(&header, out);
    memcpy(out + length, &request, sizeof request);
    return length + sizeof request;
}

void flow_send(struct flow *flow, uint64_t now_ns)
{
    struct flow_path *path = &flow->paths[flow->current];
    uint8_t data[HEADER_MAX + sizeof(struct datagram_request)];
    size_t size = compose(flow, data);
    ssize_t n = send(path->fd, data, size, 0);
    if (n < 0 && errno == ECONNREFUSED) { /* of an earlier one; this one wasn't sent */
        counts->refused++;
        n = send(path->fd, data, size, 0);
    }
    if (n < 0) {
        counts->unsent++;
        return;
    }
    if (next_ticket - oldest_awaited == AWAITED_MAX)
        errx(1, "more is awaited than there is room for");
    sent[next_ticket++ % AWAITED_MAX] = (struct sent){
        .path = path, .flow = flow->number, .sent_ns = now_ns, .sequence = flow->next_sequence++};
    path->awaited++;
    counts->sent++;
    counts->waiting++;
}

uint64_t flow_expire(uint64_t now_ns)
{
    for (; oldest_awaited < next_ticket; oldest_awaited++) {
        struct sent *one = &sent[oldest_awaited % AWAITED_MAX];
        if (one->fate != AWAITED)
            continue;
        if (one->sent_ns + FLOW_TIMEOUT_NS > now_ns)
            return one->sent_ns + FLOW_TIMEOUT_NS;
        counts->lost++;
        settle(one, LOST);
    }
    return UINT64_MAX;
}

/* ── what comes ── */

/* Who answered: the one who first did? */
static void judge_place(struct flow *flow, const struct datagram_answer *answer)
{
    struct ledger_place *place = ledger_place(world->ledger, answer->generation, answer->worker);
    bool forgotten = answer->first && flow->known;
    place->answers++;
    flow->known = flow->known || answer->first;
    if (!flow->place) {
        flow->place = place;
        flow->instance = answer->instance;
        counts->flows_answered++;
        place->flows++;
        if (flow->began_ns < place->first_flow_ns)
            place->first_flow_ns = flow->began_ns;
        if (flow->began_ns > place->last_flow_ns)
            place->last_flow_ns = flow->began_ns;
        return;
    }
    if (flow->instance == answer->instance && !forgotten)
        return;
    if (place->generation != flow->place->generation)
        counts->other_generation++;
    else if (place->worker != flow->place->worker)
        counts->other_worker++;
    else if (flow->instance != answer->instance)
        counts->other_process++;
    else
        counts->forgotten++;
    counts->misdelivered++;
    counts->flows_misdelivered += !flow->misdelivered;
    flow->misdelivered = true;
}

static void judge_order(struct flow *flow, const struct datagram_answer *answer)
{
    if (!answer->first && answer->previous + 1 != answer->sequence)
        counts->gaps++;
    if (flow->place && answer->sequence < flow->highest)
        counts->out_of_order++;
    else
        flow->highest = answer->sequence;
}

/* Reads an answer and its header; false: it is none. */
static bool read_answer(
    const uint8_t *data, size_t size, struct header *ret_header, struct datagram_answer *ret_answer)
{
    size_t length = header_read(data, size, 0, ret_header);
    if (length == HEADER_MALFORMED || size - length != sizeof *ret_answer)
        return false;
    if (ret_header->kind == HEADER_LONG ? ret_header->from.length != world->id_length
                                        : (ret_header->kind == HEADER_NONE) != (world->id_length == 0))
        return false;
    memcpy(ret_answer, data + length, sizeof *ret_answer);
    return ret_answer->magic == DATAGRAM_MAGIC;
}

/* What the answer answers; NULL: nothing that is remembered. */
static struct sent *find_sent(const struct flow *flow, const struct datagram_answer *answer)
{
    if (answer->ticket >= next_ticket || next_ticket - answer->ticket > AWAITED_MAX)
        return NULL;
    struct sent *one = &sent[answer->ticket % AWAITED_MAX];
    bool same =
        answer->flow == flow->number && one->flow == flow->number && one->sequence == answer->sequence;
    return same ? one : NULL;
}

static void take(struct flow *flow, const uint8_t *data, size_t size)
{
    struct header header;
    struct datagram_answer answer;
    struct sent *one = read_answer(data, size, &header, &answer) ? find_sent(flow, &answer) : NULL;
    if (!one) {
        counts->malformed++;
    } else if (one->fate == ANSWERED) {
        counts->duplicates++;
    } else if (one->fate == LOST) {
        counts->late++;
    } else {
        counts->answered++;
        histogram_add(&world->ledger->latency, clock_now_ns() - one->sent_ns);
        if (header.kind == HEADER_LONG && flow->server_id.length == 0)
            flow->server_id = header.from;
        flow->server_id_answered = flow->server_id_answered || header.kind == HEADER_SHORT;
        judge_order(flow, &answer);
        judge_place(flow, &answer);
        settle(one, ANSWERED);
    }
}

void flow_receive(struct flow_path *path)
{
    while (path->fd >= 0) {
        uint8_t data[2048];
        ssize_t n = recv(path->fd, data, sizeof data, 0);
        if (n >= 0)
            take(path->flow, data, (size_t)n);
        else if (errno == ECONNREFUSED)
            counts->refused++;
        else
            return;
    }
}
