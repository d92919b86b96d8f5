/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The converters of one segment, and values on their way through a chain of them. The shortest chain is
 * taken; among several, that of the converters which were registered first.
 */
#ifndef GAPLESS_WORKER_STATE_CONVERT_H
#define GAPLESS_WORKER_STATE_CONVERT_H

#include "ipc/error.h"
#include "worker/gapless_state.h"

struct converter {
    uint32_t from, to;
    gapless_convert_cb convert;
    void *arg;
};

struct converter_chain;

struct converters {
    struct converter *items;
    unsigned count;
    struct converter_chain *chains; /* those that were asked for */
};

/* -EINVAL: from is to, or one of them 0; -EEXIST; -ENOMEM. */
int converters_add(struct converters *converters, const struct converter *converter, struct error *error);
void converters_done(struct converters *converters);

/* The chain between two versions that differ. -ENOENT: there is none (no message: the caller knows what it
 * was for); -ENOMEM. */
int converters_chain(struct converters *converters, uint32_t from, uint32_t to,
    const struct converter_chain **ret_chain, struct error *error);

/* "1 and 2": what can be made `to`, that itself first; for messages. */
void converters_readable(struct converters *converters, uint32_t to, char *text, size_t size);

/* What a converter answers. */
struct gapless_conversion {
    uint8_t *data;
    size_t size, capacity;
    int blob; /* -1: none */
    bool given;
};

/* Where values are while they are converted: kept from one to the next, so that nothing is allocated for
 * each. */
struct conversion_space {
    struct gapless_conversion side[2];
};

void conversion_space_init(struct conversion_space *space);
void conversion_space_done(struct conversion_space *space);

/* Makes *value one of the last version of the chain, lent until the next conversion. An error is the
 * converter's. */
int converter_chain_run(const struct converter_chain *chain, struct conversion_space *space,
    struct gapless_value *value, struct error *error);

#endif
