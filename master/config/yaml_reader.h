/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What reads a YAML document: where it is, for messages, and the nodes of libyaml as the configuration takes
 * them. Private to the configuration: yaml.c and yaml_steps.c.
 */
#ifndef GAPLESS_MASTER_CONFIG_YAML_READER_H
#define GAPLESS_MASTER_CONFIG_YAML_READER_H

#include "ipc/error.h"
#include "master/config/schema.h"

#include <stddef.h>
#include <yaml.h>

/* Where the reader is, and what it may still take. */
struct reader {
    const char *file;
    yaml_document_t *document;
    struct config *config;
    size_t expansion; /* bytes taken so far */
    char path[256];   /* of the key being read: services.web.drain */
    struct error *error;
};

/* An entry of a map: the text of its key, lent, and both nodes. */
struct entry {
    const char *name;
    yaml_node_t *key;
    yaml_node_t *value;
};

/* Puts the place before the message that is there. Returns `result`. */
int reader_at(struct reader *reader, const yaml_node_t *node, int result);

/* Appends ".name" to the path, or "[index]"; reader_leave() with what it returns takes it away again. */
size_t reader_enter(struct reader *reader, const char *name);
size_t reader_enter_item(struct reader *reader, size_t index);
void reader_leave(struct reader *reader, size_t length);

/* Of a list or a map. */
size_t reader_item_count(const yaml_node_t *node);
yaml_node_t *reader_item(const struct reader *reader, const yaml_node_t *list, size_t index);

/* The value of the first key of that name in what may be a map, before anything of it is checked; NULL: there
 * is none. */
yaml_node_t *reader_find(const struct reader *reader, const yaml_node_t *map, const char *name);

/* "EXPECTED is expected here, not …": -EINVAL. */
int reader_wrong_kind(struct reader *reader, const yaml_node_t *node, const char *expected);

/* A tag that changes what a value is has no meaning here: -EINVAL. */
int reader_check_tag(struct reader *reader, const yaml_node_t *node);

/* A list or map has no more items than the row allows; else -EINVAL. */
int reader_check_room(struct reader *reader, const struct config_key *key, const yaml_node_t *node);

/* The text of a single value, lent; `what` is what else would have fitted, for the message. NULL: it is none,
 * and the error says so (EINVAL). */
const char *reader_scalar(struct reader *reader, const yaml_node_t *node, const char *what);

/* Entry `index` of a map, whose key must be a single value that is not there before it. */
int reader_entry(struct reader *reader, const yaml_node_t *map, size_t index, struct entry *ret_entry);

/* A map whose keys are rows of the table that begin with `prefix`, into `object` of that scope (yaml.c). */
int reader_map(
    struct reader *reader, yaml_node_t *map, enum config_scope scope, const char *prefix, void *object);

/* The steps of an upgrade into `service` (yaml_steps.c). */
int reader_steps(struct reader *reader, const struct config_key *key, struct config_service *service,
    const yaml_node_t *list);

#endif
