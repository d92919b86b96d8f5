/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What kv hands over to its next version: the items, the statistics, and the connections. Everything that
 * has to do with gapless_state.h is in this file.
 *
 * Segment "items": a record an item (record.h), in the schema of this version; nobody but the owner changes
 * them, so there is nothing to merge. Segment "stats": a counter each, 8 bytes; what an old version still
 * counts while its last answers leave is added to the new one's (GAPLESS_MERGE_SUM).
 */
#ifndef KV_HANDOVER_H
#define KV_HANDOVER_H

#include "commands.h"
#include "connection.h"
#include "record.h"

#include <gapless_state.h>

struct handover;

struct handover_parts {
    struct store *store;
    struct counters *counters;
    struct commands *commands;
    struct connections *connections;
    enum record_schema schema;
};

/* Between gapless_open() and gapless_event_ready(). What the parts point to must live longer. g may be NULL:
 * then nothing is handed over. NULL: *error says why. */
struct handover *handover_new(
    struct gapless *g, const struct handover_parts *parts, struct gapless_error *error);
/* Behind gapless_event_free(). NULL is allowed. */
void handover_free(struct handover *handover);

/* Without gapless, in place of gapless_event_ready(). */
int handover_start(struct handover *handover, struct gapless_error *error);

/* The item of that key has changed, came or went. */
void handover_item_changed(struct handover *handover, const char *key, size_t key_size);
/* May what has changed be answered? If not, connections_settled() follows. */
bool handover_settle(struct handover *handover);
/* Now and then: what was counted since. */
void handover_tell_counters(struct handover *handover);
/* A flush has ended. */
void handover_flushed(struct handover *handover);
/* Gives a connection to the new version; *fd is given (-1), or left as it was if nobody is there. */
void handover_offer(struct handover *handover, const struct connection_parcel *parcel, int *fd);

#endif
