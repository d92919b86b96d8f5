/* SPDX-License-Identifier: BSD-2-Clause */
/* What clients have in common: the texts of their requests, and their timers. */
#include "bench/load/client.h"
#include "bench/load/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long a server may take to close a connection after it said so. */
#define LINGER_NS NS_PER_S

static int make_request(struct client_request *request, const struct load_options *options,
    const struct target *target, enum load_group group)
{
    const char *path = target->path ? target->path : options->path;
    if (group == GROUP_SLOW && options->slow_path)
        path = options->slow_path;
    FILE *file = open_memstream(&request->text, &request->length);
    if (!file)
        return -ENOMEM;
    fprintf(file, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: gapless-load\r\nAccept: */*\r\n", path,
        target->host);
    for (unsigned i = 0; i < options->header_count; i++)
        fprintf(file, "%s\r\n", options->headers[i]);
    fprintf(file, "%s\r\n", group == GROUP_KEEPALIVE ? "" : "Connection: close\r\n");
    bool failed = ferror(file) != 0;
    return fclose(file) != 0 || failed ? -ENOMEM : 0;
}

static void init_timers(struct client_shared *shared)
{
    const struct load_options *options = shared->options;
    timer_queue_init(&shared->timeouts, options->timeout_ns);
    timer_queue_init(&shared->lingers, LINGER_NS);
    timer_queue_init(&shared->retries, options->retry_ns);
    timer_queue_init(&shared->intervals, options->interval_ns);
    timer_queue_init(&shared->pieces, options->slow_time_ns / (options->slow_pieces - 1));
}

int client_shared_init(struct client_shared *shared, const struct load_options *options,
    struct ledger *ledger, int epoll_fd, struct error *error)
{
    *shared = (struct client_shared){
        .options = options,
        .ledger = ledger,
        .epoll_fd = epoll_fd,
        .tag_source = {.header = options->by_header, .body = options->by_body},
        .requests_left = options->requests ? options->requests : UINT64_MAX,
    };
    init_timers(shared);
    for (unsigned target = 0; target < options->target_count; target++) {
        for (unsigned group = 0; group < GROUP_COUNT; group++) {
            if (make_request(&shared->requests[target][group], options, &options->targets[target], group) <
                0) {
                client_shared_done(shared);
                return error_set(error, ENOMEM, BLAME_OURS, "no memory for the requests");
            }
        }
    }
    return 0;
}

void client_shared_done(struct client_shared *shared)
{
    for (unsigned target = 0; target < LEDGER_TARGET_MAX; target++) {
        for (unsigned group = 0; group < GROUP_COUNT; group++)
            free(shared->requests[target][group].text);
    }
    memset(shared->requests, 0, sizeof(shared->requests));
}
