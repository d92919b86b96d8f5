/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/state_internal.h"

#include <errno.h>

_Static_assert((int)GAPLESS_MERGE_OWN == GAPLESS__TRANSFER__MERGE__MERGE_OWN &&
                   (int)GAPLESS_UNKNOWN_DROP == GAPLESS__TRANSFER__UNKNOWN__UNKNOWN_DROP,
    "what is said in messages has the numbers of the API");

void state_describe_segment(const struct state_segment *segment, Gapless__Transfer__Segment *ret_description)
{
    const struct gapless_segment *about = &segment->about;
    gapless__transfer__segment__init(ret_description);
    ret_description->name = (char *)(uintptr_t)about->name;
    ret_description->version = about->version;
    ret_description->replicated = (about->flags & GAPLESS_SEGMENT_REPLICATED) != 0;
    ret_description->read_only = (about->flags & GAPLESS_SEGMENT_READ_ONLY) != 0;
    ret_description->merge = (Gapless__Transfer__Merge)about->merge;
    ret_description->unknown = (Gapless__Transfer__Unknown)about->unknown;
}

int state_put(struct gapless_state *state, unsigned segment, const struct transfer_record *key,
    const struct gapless_value *value, struct error *error)
{
    const struct gapless_segment *about = &state->segments[segment]->about;
    struct gapless_error reason = {.code = 0};
    int r = about->put(key->key, key->key_size, value, about->arg, &reason);
    return r == 0 ? 0 : state_callback_failed(error, r, &reason, "put");
}

int state_remove(
    struct gapless_state *state, unsigned segment, const struct transfer_record *key, struct error *error)
{
    const struct gapless_segment *about = &state->segments[segment]->about;
    struct gapless_error reason = {.code = 0};
    int r = about->remove(key->key, key->key_size, about->arg, &reason);
    return r == 0 ? 0 : state_callback_failed(error, r, &reason, "remove");
}

int state_read(struct gapless_state *state, unsigned segment, const struct transfer_record *key,
    struct gapless_value *ret_value, struct error *error)
{
    const struct gapless_segment *about = &state->segments[segment]->about;
    struct gapless_error reason = {.code = 0};
    *ret_value = (struct gapless_value){.blob = -1};
    int r = about->read(key->key, key->key_size, ret_value, about->arg, &reason);
    return r >= 0 ? r > 0 : state_callback_failed(error, r, &reason, "read");
}

int state_convert(struct conversion_space *space, struct state_segment *segment, uint32_t to,
    struct gapless_value *value, struct error *error)
{
    const struct converter_chain *chain;
    if (value->version == to)
        return 0;
    int r = converters_chain(&segment->converters, value->version, to, &chain, error);
    if (r == -ENOENT)
        return error_set(error, ENOENT, BLAME_USER, "no converter from version %u to %u", value->version, to);
    return r < 0 ? r : converter_chain_run(chain, space, value, error);
}
