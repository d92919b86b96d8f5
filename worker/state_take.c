/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/state_blob.h"
#include "worker/state_offer.h"

#include <errno.h>
#include <sys/mman.h>

/* A connection that came, with its memory file mapped. */
struct arrival {
    struct gapless_connection connection;
    int fd;
    void *map; /* NULL: none */
    size_t map_size;
};

static int map_memory(
    struct arrival *arrival, const Gapless__Control__Connection *from, int memory, struct error *error)
{
    uint64_t size = from->input_size + from->state_size;
    if (size == 0 || size < from->input_size || size > SIZE_MAX)
        return error_set(error, EPROTO, BLAME_PEER, "a connection with memory of no possible size");
    int r = state_blob_check(memory, size, error);
    if (r < 0)
        return r;
    void *map = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, memory, 0);
    if (map == MAP_FAILED)
        return error_errno(error, errno, BLAME_SYSTEM, "mapping what was read from a connection");
    arrival->map = map;
    arrival->map_size = (size_t)size;
    arrival->connection.input = map;
    arrival->connection.input_size = (size_t)from->input_size;
    arrival->connection.state = (const char *)map + from->input_size;
    arrival->connection.state_size = (size_t)from->state_size;
    return 0;
}

static int open_arrival(struct arrival *arrival, const Gapless__Control__Connection *from, int *fd,
    int memory, struct error *error)
{
    *arrival = (struct arrival){.connection = {.listener = from->listener,
                                    .input = from->input.data,
                                    .input_size = from->input.len,
                                    .state = from->state.data,
                                    .state_size = from->state.len},
        .fd = fd_take(fd)};
    return from->memory ? map_memory(arrival, from, memory, error) : 0;
}

static void close_arrival(struct arrival *arrival)
{
    if (arrival->map)
        munmap(arrival->map, arrival->map_size);
    fd_close(&arrival->fd);
}

static int check_offer(const struct gapless_state *state, const Gapless__Control__Offer *offer,
    const struct fd_list *fds, struct error *error)
{
    size_t needed = 0;
    for (size_t i = 0; i < offer->n_connections; i++)
        needed += offer->connections[i]->memory ? 2 : 1;
    if (needed == 0 || needed != fds->count)
        return error_set(error, EPROTO, BLAME_PEER, "%u descriptors for %zu connections that need %zu",
            fds->count, offer->n_connections, needed);
    if (!state_takes(state))
        return error_set(error, EPERM, BLAME_OURS, "this server takes no connections");
    if (!gapless_state_owned(state))
        return error_set(error, EPERM, BLAME_PEER, "connections came to a worker that doesn't own the state");
    return 0;
}

/* Opens all of them, so that none is taken of an offer that can't be. */
static int open_all(struct arrival *arrivals, unsigned *count, const Gapless__Control__Offer *offer,
    struct fd_list *fds, struct error *error)
{
    int r = 0;
    for (unsigned at = 0; r == 0 && *count < offer->n_connections; ++*count) {
        const Gapless__Control__Connection *from = offer->connections[*count];
        CLEANUP_FD int fd = fd_list_take(fds, at++);
        CLEANUP_FD int memory = from->memory ? fd_list_take(fds, at++) : -1;
        r = open_arrival(&arrivals[*count], from, &fd, memory, error);
    }
    return r;
}

void state_take(struct gapless_state *state, const Gapless__Control__Offer *offer, struct fd_list *fds)
{
    struct arrival arrivals[FD_LIST_MAX];
    struct error error = {.code = 0};
    unsigned count = 0;
    if (state_offers_has_taken(state, offer->offer)) {
        state_say_taken(state, offer->offer);
        return;
    }
    int r = check_offer(state, offer, fds, &error);
    if (r == 0)
        r = open_all(arrivals, &count, offer, fds, &error);
    if (r == 0)
        r = state_offers_note_taken(state, offer->offer, &error);
    for (unsigned i = 0; i < count; i++) {
        if (r == 0)
            state_take_one(state, &arrivals[i].connection, &arrivals[i].fd);
        close_arrival(&arrivals[i]);
    }
    if (r < 0)
        state_say_not_taken(state, offer->offer, &error);
    else
        state_say_taken(state, offer->offer);
}

void state_take_incomplete(struct gapless_state *state, uint64_t offer, const struct error *why)
{
    if (state_offers_has_taken(state, offer))
        state_say_taken(state, offer);
    else
        state_say_not_taken(state, offer, why);
}
