/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/handoff.h"

#include "ipc/fd.h"

#include <errno.h>
#include <inttypes.h>

void handoff_init(struct handoff *handoff, unsigned total)
{
    *handoff = (struct handoff){.total = total};
}

bool handoff_next(struct handoff *handoff, unsigned *ret_first, unsigned *ret_count)
{
    if (handoff->waiting || handoff_done(handoff))
        return false;
    unsigned rest = handoff->total - handoff->acknowledged;
    handoff->under_way = rest < FD_LIST_MAX ? rest : FD_LIST_MAX;
    handoff->waiting = true;
    handoff->batch++;
    *ret_first = handoff->acknowledged;
    *ret_count = handoff->under_way;
    return true;
}

int handoff_acknowledge(struct handoff *handoff, uint64_t batch, unsigned received, struct error *error)
{
    if (!handoff->waiting || batch != handoff->batch)
        return error_set(
            error, EPROTO, BLAME_PEER, "acknowledged batch %" PRIu64 ", which isn't under way", batch);
    if (received > handoff->under_way)
        return error_set(error, EPROTO, BLAME_PEER,
            "acknowledged %u descriptors of batch %" PRIu64 ", which has %u", received, batch,
            handoff->under_way);
    if (received < handoff->under_way)
        return error_set(error, EMFILE, BLAME_PEER,
            "took %u of the %u descriptors of batch %" PRIu64 ": raise its limit of open files (nofile)",
            received, handoff->under_way, batch);
    handoff->acknowledged += received;
    handoff->under_way = 0;
    handoff->waiting = false;
    return 0;
}

bool handoff_done(const struct handoff *handoff)
{
    return handoff->batch > 0 && !handoff->waiting && handoff->acknowledged == handoff->total;
}
