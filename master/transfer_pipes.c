/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pipes of a transfer: one from each exporter to each importer. The master makes them, hands out both
 * ends, and has none of them afterwards: a worker that ends is seen by the others.
 */
#include "master/generation.h"
#include "master/handover.h"
#include "master/service.h"
#include "master/transaction_phases.h"
#include "master/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef Gapless__Control__Control Control;

/* As large as an unprivileged user may have one (pipe(7), fs.pipe-max-size). */
#define PIPE_BYTES (1 << 20)
/* More would be too many descriptors at once, in the master and in the workers. */
#define PIPES_MAX 4096

uint64_t transfer_number(const struct service *service, enum transfer_way way)
{
    return service->transaction.to * 2 + (way == TRANSFER_BACK);
}

bool transfer_has(const struct worker *worker)
{
    const struct handover *handover = worker->handover;
    return handover && handover->transfer &&
           handover->transfer == worker->generation->service->transaction.to;
}

static struct generation *exporters_of(const struct service *service, enum transfer_way way)
{
    return way == TRANSFER_FORTH ? transaction_old_generation(service) : transaction_new_generation(service);
}

static struct generation *importers_of(const struct service *service, enum transfer_way way)
{
    return exporters_of(service, way == TRANSFER_FORTH ? TRANSFER_BACK : TRANSFER_FORTH);
}

/* The first that takes part; from `after` on. */
static struct worker *next_of(const struct generation *generation, const struct worker *after)
{
    struct worker *worker = after ? after->next : generation ? generation->workers : NULL;
    while (worker && !transfer_has(worker))
        worker = worker->next;
    return worker;
}

static unsigned count_of(const struct generation *generation)
{
    unsigned count = 0;
    for (const struct worker *worker = next_of(generation, NULL); worker;
         worker = next_of(generation, worker))
        count++;
    return count;
}

static const Gapless__Control__Describe *description_of(const struct generation *generation)
{
    const struct worker *worker = next_of(generation, NULL);
    return worker ? worker->handover->described : NULL;
}

static void close_all(int *fds, size_t count)
{
    for (size_t i = 0; fds && i < count; i++)
        fd_close(&fds[i]);
}

void transfer_close_ends(struct transfer *transfer)
{
    close_all(transfer->ends, (size_t)transfer->exporters * transfer->importers);
    free(transfer->ends);
    transfer->ends = NULL;
}

/* Room for so many, none of which is there yet. NULL when out of memory. */
static int *make_room(size_t count)
{
    int *fds = calloc(count, sizeof *fds);
    for (size_t i = 0; fds && i < count; i++)
        fds[i] = -1;
    return fds;
}

static int make_pipes(int *reads, int *writes, size_t count, struct error *error)
{
    for (size_t i = 0; i < count; i++) {
        int pair[2];
        if (pipe2(pair, O_CLOEXEC | O_NONBLOCK) < 0)
            return error_errno(error, errno, BLAME_SYSTEM, "cannot make a pipe for the state");
        reads[i] = pair[0];
        writes[i] = pair[1];
        fcntl(pair[1], F_SETPIPE_SZ, PIPE_BYTES); /* a smaller one is slower, no more */
    }
    return 0;
}

/* ── the importers ── */

static void fill_import(
    const struct service *service, enum transfer_way way, Gapless__Control__Import *import)
{
    const Gapless__Control__Describe *theirs = description_of(exporters_of(service, way));
    gapless__control__import__init(import);
    import->transfer = transfer_number(service, way);
    import->changes_only = way == TRANSFER_BACK;
    import->n_segments = theirs ? theirs->n_segments : 0;
    import->segments = theirs ? theirs->segments : NULL;
    /* Steered: nothing but tests comes before the switch. */
    const struct generation *old = transaction_old_generation(service);
    import->serve_at_mark = old && generation_is_steered(old);
}

/* `reads` in rows of exporters. */
static int tell_importer(const struct worker *worker, Gapless__Control__Import *import, const int *reads,
    unsigned importers, struct error *error)
{
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_IMPORT;
    message.import = import;
    for (import->first = 0; import->first < import->exporters; import->first += FD_LIST_MAX) {
        int fds[FD_LIST_MAX];
        unsigned count = 0;
        for (unsigned e = import->first; e < import->exporters && count < FD_LIST_MAX; e++)
            fds[count++] = reads[e * importers + worker->handover->place];
        int r = worker_control_send((struct worker *)worker, &message, fds, count, error);
        if (r < 0)
            return r;
    }
    return 0;
}

int transfer_open_pipes(struct service *service, enum transfer_way way, struct error *error)
{
    struct transfer *transfer = &service->transaction.transfer;
    const struct generation *to = importers_of(service, way);
    unsigned exporters = count_of(exporters_of(service, way)), importers = count_of(to);
    size_t count = (size_t)exporters * importers;
    if (!count || count > PIPES_MAX)
        return error_set(error, count ? E2BIG : ENOENT, BLAME_USER,
            "the state of %u workers can't go to %u: %s", exporters, importers,
            count ? "at most 4096 pipes are made" : "nobody is there");
    transfer_close_ends(transfer);
    transfer->exporters = exporters;
    transfer->importers = importers;
    int *reads = make_room(count);
    transfer->ends = make_room(count);
    int r = reads && transfer->ends ? make_pipes(reads, transfer->ends, count, error)
                                    : error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    Gapless__Control__Import import;
    fill_import(service, way, &import);
    import.exporters = exporters;
    for (struct worker *worker = next_of(to, NULL); r == 0 && worker; worker = next_of(to, worker))
        r = tell_importer(worker, &import, reads, importers, error);
    close_all(reads, count);
    free(reads);
    if (r < 0 && transfer->ends)
        transfer_close_ends(transfer);
    return r;
}

/* ── the exporters ── */

static int tell_exporter(
    const struct worker *worker, Gapless__Control__Export *export, const int *ends, struct error *error)
{
    Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_EXPORT;
    message.export = export;
    for (export->first = 0; export->first < export->importers; export->first += FD_LIST_MAX) {
        unsigned left = export->importers - export->first;
        const int *row = &ends[(size_t)worker->handover->place * export->importers + export->first];
        int r = worker_control_send(
            (struct worker *)worker, &message, row, left < FD_LIST_MAX ? left : FD_LIST_MAX, error);
        if (r < 0)
            return r;
    }
    return 0;
}

int transfer_begin_export(struct service *service, enum transfer_way way, struct error *error)
{
    struct transfer *transfer = &service->transaction.transfer;
    const struct generation *from = exporters_of(service, way);
    const Gapless__Control__Describe *theirs = description_of(importers_of(service, way));
    Gapless__Control__Export export;
    gapless__control__export__init(&export);
    export.transfer = transfer_number(service, way);
    export.importers = transfer->importers;
    export.changes_only = way == TRANSFER_BACK;
    export.n_segments = theirs ? theirs->n_segments : 0;
    export.segments = theirs ? theirs->segments : NULL;
    if (way == TRANSFER_FORTH && transfer->accepted) {
        export.n_convert = transfer->accepted->n_convert;
        export.convert = transfer->accepted->convert;
    }
    int r = 0;
    for (struct worker *worker = next_of(from, NULL); r == 0 && worker; worker = next_of(from, worker))
        r = tell_exporter(worker, &export, transfer->ends, error);
    transfer_close_ends(transfer);
    return r;
}
