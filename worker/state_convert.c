/* SPDX-License-Identifier: BSD-2-Clause */
#include "worker/state_convert.h"

#include "ipc/fd.h"
#include "worker/state_blob.h"
#include "worker/state_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct converter_chain {
    struct converter_chain *next;
    uint32_t from, to;
    unsigned length;
    struct converter steps[];
};

int converters_add(struct converters *converters, const struct converter *converter, struct error *error)
{
    if (!converter->convert || converter->from == 0 || converter->to == 0 || converter->from == converter->to)
        return error_set(
            error, EINVAL, BLAME_OURS, "a converter from %u to %u", converter->from, converter->to);
    for (unsigned i = 0; i < converters->count; i++) {
        if (converters->items[i].from == converter->from && converters->items[i].to == converter->to)
            return error_set(error, EEXIST, BLAME_OURS, "there is a converter from %u to %u already",
                converter->from, converter->to);
    }
    struct converter *larger =
        reallocarray(converters->items, converters->count + 1, sizeof *converters->items);
    if (!larger)
        return error_errno(error, ENOMEM, BLAME_OURS, "adding a converter");
    converters->items = larger;
    converters->items[converters->count++] = *converter;
    return 0;
}

void converters_done(struct converters *converters)
{
    while (converters->chains) {
        struct converter_chain *chain = converters->chains;
        converters->chains = chain->next;
        free(chain);
    }
    free(converters->items);
    *converters = (struct converters){.items = NULL};
}

/* A search in breadth: the converters by which versions were reached first, in that order. */
struct reached {
    unsigned converter;
    unsigned length;
    const struct reached *before;
};

static bool is_reached(
    const struct converters *converters, const struct reached *reached, unsigned count, uint32_t version)
{
    for (unsigned i = 0; i < count; i++) {
        if (converters->items[reached[i].converter].to == version)
            return true;
    }
    return false;
}

static const struct reached *search(
    const struct converters *converters, uint32_t from, uint32_t to, struct reached *reached)
{
    unsigned count = 0;
    const struct reached *before = NULL;
    for (unsigned at = 0;; at++) {
        uint32_t here = before ? converters->items[before->converter].to : from;
        if (here == to)
            return before;
        for (unsigned i = 0; i < converters->count; i++) {
            const struct converter *c = &converters->items[i];
            if (c->from != here || c->to == from || is_reached(converters, reached, count, c->to))
                continue;
            reached[count++] =
                (struct reached){.converter = i, .length = before ? before->length + 1 : 1, .before = before};
        }
        if (at == count)
            return NULL;
        before = &reached[at];
    }
}

static struct converter_chain *make_chain(const struct converters *converters, const struct reached *last)
{
    struct converter_chain *chain = malloc(sizeof *chain + last->length * sizeof chain->steps[0]);
    if (!chain)
        return NULL;
    chain->length = last->length;
    for (; last; last = last->before)
        chain->steps[last->length - 1] = converters->items[last->converter];
    chain->from = chain->steps[0].from;
    chain->to = chain->steps[chain->length - 1].to;
    return chain;
}

int converters_chain(struct converters *converters, uint32_t from, uint32_t to,
    const struct converter_chain **ret_chain, struct error *error)
{
    for (struct converter_chain *chain = converters->chains; chain; chain = chain->next) {
        if (chain->from == from && chain->to == to) {
            *ret_chain = chain;
            return 0;
        }
    }
    if (converters->count == 0)
        return -ENOENT;
    struct reached *reached = calloc(converters->count, sizeof *reached);
    const struct reached *last = reached ? search(converters, from, to, reached) : NULL;
    struct converter_chain *chain = last ? make_chain(converters, last) : NULL;
    bool no_memory = !reached || (last && !chain);
    free(reached);
    if (no_memory)
        return error_errno(error, ENOMEM, BLAME_OURS, "looking for a converter");
    if (!chain)
        return -ENOENT;
    chain->next = converters->chains;
    converters->chains = chain;
    *ret_chain = chain;
    return 0;
}

void converters_readable(struct converters *converters, uint32_t to, char *text, size_t size)
{
    size_t length = (size_t)snprintf(text, size, "%u", to);
    for (unsigned i = 0; i < converters->count && length < size; i++) {
        uint32_t from = converters->items[i].from;
        const struct converter_chain *chain;
        bool again = from == to;
        for (unsigned j = 0; j < i; j++)
            again = again || converters->items[j].from == from;
        if (!again && converters_chain(converters, from, to, &chain, NULL) == 0)
            length += (size_t)snprintf(text + length, size - length, ", %u", from);
    }
}

void conversion_space_init(struct conversion_space *space)
{
    *space = (struct conversion_space){.side = {{.blob = -1}, {.blob = -1}}};
}

void conversion_space_done(struct conversion_space *space)
{
    for (int i = 0; i < 2; i++) {
        free(space->side[i].data);
        fd_close(&space->side[i].blob);
    }
    conversion_space_init(space);
}

int converter_chain_run(const struct converter_chain *chain, struct conversion_space *space,
    struct gapless_value *value, struct error *error)
{
    for (unsigned i = 0; i < chain->length; i++) {
        const struct converter *step = &chain->steps[i];
        struct gapless_conversion *to = &space->side[i % 2];
        struct gapless_error reason = {.code = 0};
        fd_close(&to->blob);
        to->given = false;
        int r = step->convert(value, to, step->arg, &reason);
        if (r != 0)
            return state_callback_failed(
                error, r, &reason, "converting a value from %u to %u", step->from, step->to);
        if (!to->given)
            return error_set(error, EINVAL, BLAME_OURS,
                "the converter from %u to %u gave no value: it must call gapless_convert()", step->from,
                step->to);
        *value = (struct gapless_value){
            .data = to->blob < 0 ? to->data : NULL, .size = to->size, .version = step->to, .blob = to->blob};
    }
    return 0;
}

int gapless_convert(struct gapless_conversion *to, const void *data, size_t size)
{
    if (to->given)
        return -EALREADY;
    if (size > to->capacity || !to->data) {
        size_t capacity = size < 256 ? 256 : size + size / 2;
        uint8_t *larger = realloc(to->data, capacity);
        if (!larger)
            return -ENOMEM;
        to->data = larger;
        to->capacity = capacity;
    }
    if (size > 0)
        memcpy(to->data, data, size);
    to->size = size;
    to->given = true;
    return 0;
}

int gapless_convert_blob(struct gapless_conversion *to, int blob, size_t size)
{
    if (to->given)
        return -EALREADY;
    int r = state_blob_check(blob, size, NULL);
    if (r < 0)
        return r;
    int copy = fd_dup(blob);
    if (copy < 0)
        return copy;
    to->blob = copy;
    to->size = size;
    to->given = true;
    return 0;
}
