/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/status_table.h"

#include "cli/table.h"
#include "master/config/value.h"

#include <inttypes.h>
#include <stdint.h>
#include <string.h>

#define UNKNOWN "-"
#define COUNT(columns) (sizeof(columns) / sizeof *(columns))

static const char *text_or_unknown(const char *text)
{
    return text && *text ? text : UNKNOWN;
}

static void print_text(FILE *out, const char *before, const char *text, const char *after)
{
    fputs(before, out);
    table_put_text(out, text_or_unknown(text));
    fputs(after, out);
}

static void print_uptime(FILE *out, double uptime_s)
{
    uint64_t s = uptime_s > 0 ? (uint64_t)uptime_s : 0;
    if (s < 60)
        fprintf(out, "%" PRIu64 " s", s);
    else if (s < 3600)
        fprintf(out, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
    else if (s < 86400)
        fprintf(out, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
    else
        fprintf(out, "%" PRIu64 " d %" PRIu64 " h", s / 86400, s / 3600 % 24);
}

static void print_master(FILE *out, const Gapless__Admin__Master *master)
{
    print_text(out, "gapless ", master->version, "");
    fprintf(out, ", pid %d, up ", master->pid);
    print_uptime(out, master->uptime_s);
    fputc('\n', out);
}

/* --- one service --- */

static void add_count(struct table *table, bool known, uint64_t count)
{
    if (known)
        table_add(table, "%" PRIu64, count);
    else
        table_add(table, UNKNOWN);
}

static void add_bytes(struct table *table, bool known, uint64_t bytes)
{
    if (!known || bytes < 1024)
        add_count(table, known, bytes);
    else
        table_add(table, "%s", value_size_text(bytes).text);
}

static bool print_listeners(FILE *out, const Gapless__Admin__Service *service)
{
    static const struct table_column columns[] = {
        {.title = "LISTENER"}, {.title = "ADDRESS"}, {.title = "STEERING"}};
    if (service->n_listeners == 0)
        return true;
    struct table *table = table_new(columns, COUNT(columns));
    if (!table)
        return false;
    for (size_t i = 0; i < service->n_listeners; i++) {
        const Gapless__Admin__Listener *listener = service->listeners[i];
        table_add(table, "%s", text_or_unknown(listener->name));
        table_add(table, "%s", text_or_unknown(listener->address));
        if (listener->reason && *listener->reason)
            table_add(table, "%s (%s)", text_or_unknown(listener->steering), listener->reason);
        else
            table_add(table, "%s", text_or_unknown(listener->steering));
    }
    bool done = table_print(table, out, 2);
    table_free(table);
    return done;
}

/* Cells that add_worker() adds. */
#define WORKER_COLUMNS 7

static void add_worker(struct table *table, const Gapless__Admin__Worker *worker)
{
    table_add(table, "%d", worker->pid);
    table_add(table, "%s", text_or_unknown(worker->state));
    add_count(table, worker->has_connections, worker->connections);
    add_count(table, worker->has_in_flight, worker->in_flight);
    add_count(table, worker->has_requests, worker->requests);
    add_bytes(table, worker->has_bytes_in, worker->bytes_in);
    add_bytes(table, worker->has_bytes_out, worker->bytes_out);
}

static void add_generation(struct table *table, const Gapless__Admin__Generation *generation)
{
    /* One without a worker has a row as well. */
    for (size_t i = 0; i < generation->n_workers || i == 0; i++) {
        table_add(table, "%" PRIu64, generation->id);
        table_add(table, "%s", text_or_unknown(generation->state));
        table_add(table, "%s", text_or_unknown(generation->version));
        if (i < generation->n_workers)
            add_worker(table, generation->workers[i]);
        else
            for (unsigned column = 0; column < WORKER_COLUMNS; column++)
                table_add(table, UNKNOWN);
    }
}

static bool print_generations(FILE *out, const Gapless__Admin__Service *service)
{
    static const struct table_column columns[] = {{.title = "GENERATION", .right = true}, {.title = "STATE"},
        {.title = "VERSION"}, {.title = "WORKER", .right = true}, {.title = "STATE"},
        {.title = "CONNECTIONS", .right = true}, {.title = "IN FLIGHT", .right = true},
        {.title = "REQUESTS", .right = true}, {.title = "IN", .right = true},
        {.title = "OUT", .right = true}};
    if (service->n_generations == 0)
        return true;
    struct table *table = table_new(columns, COUNT(columns));
    if (!table)
        return false;
    for (size_t i = 0; i < service->n_generations; i++)
        add_generation(table, service->generations[i]);
    bool done = table_print(table, out, 2);
    table_free(table);
    return done;
}

bool status_is_rolled_back(const char *reason)
{
    static const char words[] = "rolled back";
    return strncmp(reason, words, sizeof words - 1) == 0;
}

static void print_running(FILE *out, const Gapless__Admin__Upgrade *upgrade)
{
    print_text(out, "  upgrade ", upgrade->state, "");
    if (upgrade->has_from && upgrade->has_to)
        fprintf(out, ", %" PRIu64 " to %" PRIu64, upgrade->from, upgrade->to);
    else if (upgrade->has_to)
        fprintf(out, ", to %" PRIu64, upgrade->to);
    print_text(out, ", phase ", upgrade->phase, "");
    if (upgrade->has_ends_in_s)
        fprintf(out, " for another %.1f s", upgrade->ends_in_s > 0 ? upgrade->ends_in_s : 0);
    print_text(out, ", since ", upgrade->started_at, "\n");
}

static void print_upgrade(FILE *out, const Gapless__Admin__Upgrade *upgrade)
{
    if (upgrade->phase)
        print_running(out, upgrade);
    if (upgrade->previous && *upgrade->previous)
        print_text(out, "  a rollback goes back to ", upgrade->previous, "\n");
    if (!upgrade->reason || !*upgrade->reason)
        return;
    if (status_is_rolled_back(upgrade->reason))
        print_text(out, "  the last upgrade was ", upgrade->reason, "\n");
    else
        print_text(out, "  the last upgrade failed: ", upgrade->reason, "\n");
}

/* " (why)" and the end of the line. */
static void print_reason(FILE *out, const char *reason)
{
    if (reason && *reason)
        print_text(out, " (", reason, ")\n");
    else
        fputs("\n", out);
}

static void print_keepalive(FILE *out, const Gapless__Admin__Keepalive *keepalive)
{
    if (!keepalive->name) {
        fputs("  clients of kept connections aren't told to close", out);
        print_reason(out, keepalive->reason);
    } else if (strcmp(keepalive->name, "native") == 0) {
        fputs("  clients of kept connections are told to close by the workers\n", out);
    } else {
        print_text(out, "  clients of kept connections are told to close by ", keepalive->name, "");
        print_reason(out, keepalive->reason);
    }
}

static bool print_service(FILE *out, const Gapless__Admin__Service *service)
{
    print_text(out, "\n", service->name, "");
    print_text(out, ": ", service->state, ", generation ");
    if (service->has_generation)
        fprintf(out, "%" PRIu64 "\n", service->generation);
    else
        fputs(UNKNOWN "\n", out);
    if (service->upgrade)
        print_upgrade(out, service->upgrade);
    if (service->tracker && service->tracker->name) {
        print_text(out, "  in flight by ", service->tracker->name, "");
        print_text(out, ", ", service->tracker->precision, "");
        print_reason(out, service->tracker->reason);
    }
    if (service->keepalive)
        print_keepalive(out, service->keepalive);
    return print_listeners(out, service) && print_generations(out, service);
}

bool status_table_print(FILE *out, const Gapless__Admin__Status *status)
{
    if (status->master)
        print_master(out, status->master);
    if (status->n_services == 0)
        fputs("\nno services\n", out);
    for (size_t i = 0; i < status->n_services; i++)
        if (!print_service(out, status->services[i]))
            return false;
    return true;
}
