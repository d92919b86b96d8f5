/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/state_offer.h"

#include "worker/state_blob.h"
#include "worker/state_event.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define BYTES_MAX (16u << 20)
/* What is longer goes in a memory file. */
#define INLINE_MAX (16u << 10)
#define PACKET_BYTES (48u << 10)
#define PACKET_FDS 32
/* A few, so that the sender's queue and the other's descriptors stay small. */
#define UNANSWERED_MAX 8

struct offered {
    struct offered *next;
    uint64_t offer; /* that it was sent with; 0: not sent */
    int fd;
    size_t listener_size, input_size, state_size;
    char bytes[]; /* these, the first with its NUL */
};

struct state_offers {
    struct offered *first;
    struct offered **last;
    struct offered *unsent; /* the first of these */
    size_t count;
    uint64_t sent;    /* offers, ever: the last one's number */
    uint64_t message; /* … that it went by (gapless_given()); it may wait still, those before it don't */
    uint64_t repeat;  /* from this number on they are to be sent again; 0: none */
    unsigned unanswered;
    uint64_t *taken; /* numbers of offers of others that were taken here, ever */
    size_t taken_count;
};

/* One packet. */
struct batch {
    Gapless__Control__Connection connections[PACKET_FDS];
    Gapless__Control__Connection *pointers[PACKET_FDS];
    struct fd_list memory; /* files made for it */
    int fds[PACKET_FDS];
    unsigned count, fd_count;
    size_t bytes;
};

struct state_offers *state_offers_new(void)
{
    struct state_offers *offers = calloc(1, sizeof *offers);
    if (offers)
        offers->last = &offers->first;
    return offers;
}

static void free_offered(struct offered *offered)
{
    fd_close(&offered->fd);
    free(offered);
}

void state_offers_free(struct state_offers *offers)
{
    while (offers && offers->first) {
        struct offered *offered = offers->first;
        offers->first = offered->next;
        free_offered(offered);
    }
    if (offers)
        free(offers->taken);
    free(offers);
}

static struct offered *new_offered(int *fd, const struct gapless_connection *connection)
{
    const char *listener = connection->listener ? connection->listener : "";
    size_t listener_size = strlen(listener) + 1;
    struct offered *offered =
        malloc(sizeof *offered + listener_size + connection->input_size + connection->state_size);
    if (!offered)
        return NULL;
    *offered = (struct offered){.fd = fd_take(fd),
        .listener_size = listener_size,
        .input_size = connection->input_size,
        .state_size = connection->state_size};
    memcpy(offered->bytes, listener, listener_size);
    if (connection->input_size > 0)
        memcpy(offered->bytes + listener_size, connection->input, connection->input_size);
    if (connection->state_size > 0)
        memcpy(offered->bytes + listener_size + connection->input_size, connection->state,
            connection->state_size);
    return offered;
}

int gapless_offer(struct gapless_state *state, int *fd, const struct gapless_connection *connection,
    struct gapless_error *error)
{
    if (state->holder != STATE_RELEASED || !state_takes(state) || !state_channel_open(state))
        return gapless_fail(error, EPERM, "nobody is there to take a connection");
    if (connection->input_size > BYTES_MAX || connection->state_size > BYTES_MAX - connection->input_size ||
        (connection->listener && strlen(connection->listener) > INLINE_MAX))
        return gapless_fail(error, EMSGSIZE, "a connection with %zu bytes of input and %zu of state",
            connection->input_size, connection->state_size);
    struct state_offers *offers = state->offers;
    struct offered *offered = new_offered(fd, connection);
    if (!offered) {
        fd_close(fd);
        return gapless_fail(error, ENOMEM, "offering a connection: out of memory");
    }
    *offers->last = offered;
    offers->last = &offered->next;
    if (!offers->unsent)
        offers->unsent = offered;
    offers->count++;
    /* Those that are offered by one hook go together. */
    state_enter(state);
    state_leave(state);
    if (state->listeners && state->listeners->offered)
        state->listeners->offered(state->listeners->arg);
    return 0;
}

size_t gapless_offers(const struct gapless_state *state)
{
    return state->offers->count;
}

static ProtobufCBinaryData part(const struct offered *offered, size_t from, size_t size)
{
    return (ProtobufCBinaryData){.len = size, .data = (uint8_t *)(uintptr_t)offered->bytes + from};
}

/* 1: it is in the packet; 0: there is no room. */
static int add(struct batch *batch, const struct offered *offered, struct error *error)
{
    Gapless__Control__Connection *connection = &batch->connections[batch->count];
    size_t size = offered->input_size + offered->state_size;
    bool memory = size > INLINE_MAX;
    size_t bytes = offered->listener_size + (memory ? 0 : size) + 64;
    unsigned fd_count = memory ? 2 : 1;
    if (batch->fd_count + fd_count > PACKET_FDS || (batch->count > 0 && batch->bytes + bytes > PACKET_BYTES))
        return 0;
    const struct iovec parts = {
        .iov_base = (char *)(uintptr_t)offered->bytes + offered->listener_size, .iov_len = size};
    int file = memory ? state_blob_from(&parts, 1, error) : -1;
    if (memory && file < 0)
        return file;
    gapless__control__connection__init(connection);
    connection->listener = (char *)(uintptr_t)offered->bytes;
    connection->memory = memory;
    batch->fds[batch->fd_count++] = offered->fd;
    if (memory) {
        connection->input_size = offered->input_size;
        connection->state_size = offered->state_size;
        batch->fds[batch->fd_count++] = file;
        fd_list_add(&batch->memory, &file);
    } else {
        connection->input = part(offered, offered->listener_size, offered->input_size);
        connection->state = part(offered, offered->listener_size + offered->input_size, offered->state_size);
    }
    batch->pointers[batch->count++] = connection;
    batch->bytes += bytes;
    return 1;
}

static int say(struct gapless_state *state, struct batch *batch, uint64_t number, struct error *error)
{
    Gapless__Control__Offer message = GAPLESS__CONTROL__OFFER__INIT;
    message.offer = number;
    message.connections = batch->pointers;
    message.n_connections = batch->count;
    return state_say_offer(state, &message, batch->fds, batch->fd_count, error);
}

/* Sends one packet. False: not now. */
static bool send_batch(struct gapless_state *state)
{
    struct state_offers *offers = state->offers;
    struct batch batch = {.count = 0};
    struct error error = {.code = 0};
    struct offered *end = offers->unsent;
    int r = 1;
    while (end && (r = add(&batch, end, &error)) == 1)
        end = end->next;
    /* Out of memory or descriptors: what is in it so far goes, the rest in a moment. */
    bool sent = batch.count > 0 && say(state, &batch, offers->sent + 1, &error) == 0;
    fd_list_done(&batch.memory);
    if (!sent)
        return false;
    offers->sent++;
    offers->message = gapless_given(state->g);
    offers->unanswered++;
    for (; offers->unsent != end; offers->unsent = offers->unsent->next)
        offers->unsent->offer = offers->sent;
    return r >= 0;
}

/* Sends the next one that is to be repeated. False: not now. */
static bool repeat_one(struct gapless_state *state)
{
    struct state_offers *offers = state->offers;
    struct offered *offered = offers->first;
    while (offered && offered->offer != 0 && offered->offer < offers->repeat)
        offered = offered->next;
    uint64_t number = offered ? offered->offer : 0;
    if (number == 0) {
        offers->repeat = 0;
        return true;
    }
    struct batch batch = {.count = 0};
    struct error error = {.code = 0};
    int r = 1;
    for (; offered && offered->offer == number && r == 1; offered = offered->next)
        r = add(&batch, offered, &error);
    /* As much is in a packet as was the first time. */
    bool sent = r == 1 && say(state, &batch, number, &error) == 0;
    fd_list_done(&batch.memory);
    if (sent)
        offers->repeat = number + 1;
    return sent;
}

void state_offers_repeat(struct gapless_state *state)
{
    state->offers->repeat = 1;
}

void state_offers_send(struct gapless_state *state)
{
    struct state_offers *offers = state->offers;
    bool sent = true;
    while (sent && state_channel_free(state) &&
           (offers->repeat || (offers->unsent && offers->unanswered < UNANSWERED_MAX)))
        sent = offers->repeat ? repeat_one(state) : send_batch(state);
    if (!sent)
        state_retry(state);
}

static void take_out(struct state_offers *offers, struct offered **link)
{
    struct offered *offered = *link;
    *link = offered->next;
    if (offers->last == &offered->next)
        offers->last = link;
    if (offers->unsent == offered)
        offers->unsent = offered->next;
    offers->count--;
}

void state_offers_taken(struct gapless_state *state, uint64_t offer)
{
    struct state_offers *offers = state->offers;
    bool any = false;
    for (struct offered **link = &offers->first; *link && (*link)->offer != 0;) {
        struct offered *offered = *link;
        if (offered->offer == offer) {
            take_out(offers, link);
            free_offered(offered);
            any = true;
        } else {
            link = &offered->next;
        }
    }
    if (any)
        offers->unanswered--;
}

void state_offers_return(struct gapless_state *state, bool all)
{
    struct state_offers *offers = state->offers;
    struct offered **link = &offers->first;
    if (all)
        offers->unanswered = 0;
    while (*link) {
        struct offered *offered = *link;
        if (offered->offer != 0 && !all) {
            link = &offered->next;
            continue;
        }
        const struct gapless_connection connection = {.listener = offered->bytes,
            .input = offered->bytes + offered->listener_size,
            .input_size = offered->input_size,
            .state = offered->bytes + offered->listener_size + offered->input_size,
            .state_size = offered->state_size};
        take_out(offers, link);
        state_take_one(state, &connection, &offered->fd);
        free_offered(offered);
    }
}

void state_offers_lost(struct gapless_state *state, uint64_t sent)
{
    struct state_offers *offers = state->offers;
    for (struct offered *offered = offers->first; offered && offers->message > sent; offered = offered->next)
        if (offered->offer == offers->sent)
            offered->offer = 0;
    state_offers_return(state, false);
    while (offers->first) {
        struct offered *offered = offers->first;
        take_out(offers, &offers->first);
        free_offered(offered);
    }
    offers->unanswered = 0;
}

bool state_offers_has_taken(const struct gapless_state *state, uint64_t offer)
{
    const struct state_offers *offers = state->offers;
    for (size_t i = offers->taken_count; i > 0; i--)
        if (offers->taken[i - 1] == offer)
            return true;
    return false;
}

int state_offers_note_taken(struct gapless_state *state, uint64_t offer, struct error *error)
{
    struct state_offers *offers = state->offers;
    uint64_t *longer = reallocarray(offers->taken, offers->taken_count + 1, sizeof *longer);
    if (!longer)
        return error_errno(error, ENOMEM, BLAME_OURS, "taking connections");
    offers->taken = longer;
    offers->taken[offers->taken_count++] = offer;
    return 0;
}
