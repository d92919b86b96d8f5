/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/yaml.h"

#include "master/config/quote.h"
#include "master/config/schema.h"
#include "master/config/service.h"
#include "master/config/value.h"
#include "master/config/yaml_text.h"
#include "master/spelling.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* What all values together may come to, in bytes. A file without aliases can't reach it; an alias that is
 * used again and again can, and would make memory of it. */
#define EXPANSION_MAX (4 * (size_t)YAML_TEXT_MAX)
#define LISTENERS_MAX 1024

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

static int read_map(
    struct reader *reader, yaml_node_t *map, enum config_scope scope, const char *prefix, void *object);

/* Puts the place before the message that is there. Returns `result`. */
static int at(struct reader *reader, const yaml_node_t *node, int result)
{
    error_prefix(reader->error, "%s:%zu:%zu%s%s", quote_path(reader->file).text, node->start_mark.line + 1,
        node->start_mark.column + 1, *reader->path ? ": " : "", reader->path);
    return result;
}

/* Appends ".name" to the path; path_leave() with what it returns takes it away again. */
static size_t path_enter(struct reader *reader, const char *name)
{
    size_t length = strlen(reader->path);
    snprintf(reader->path + length, sizeof reader->path - length, "%s%s", length ? "." : "",
        quote_text(name).text);
    return length;
}

static size_t path_enter_item(struct reader *reader, size_t index)
{
    size_t length = strlen(reader->path);
    snprintf(reader->path + length, sizeof reader->path - length, "[%zu]", index);
    return length;
}

static void path_leave(struct reader *reader, size_t length)
{
    reader->path[length] = '\0';
}

static yaml_node_t *node_of(const struct reader *reader, int id)
{
    return yaml_document_get_node(reader->document, id);
}

static size_t item_count(const yaml_node_t *node)
{
    return node->type == YAML_SEQUENCE_NODE
               ? (size_t)(node->data.sequence.items.top - node->data.sequence.items.start)
               : (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
}

static yaml_node_t *item_at(const struct reader *reader, const yaml_node_t *list, size_t index)
{
    return node_of(reader, list->data.sequence.items.start[index]);
}

static bool is_null(const yaml_node_t *node)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (size_t i = 0; i < LENGTH(words); i++)
        if (strcmp((const char *)node->data.scalar.value, words[i]) == 0)
            return true;
    return false;
}

/* "a list", as a message says what it found. */
static const char *kind_of(const yaml_node_t *node)
{
    switch (node->type) {
    case YAML_SEQUENCE_NODE:
        return "a list";
    case YAML_MAPPING_NODE:
        return "a map";
    case YAML_SCALAR_NODE:
        return is_null(node) ? "nothing" : "a single value";
    case YAML_NO_NODE:
        break;
    }
    return "nothing";
}

static int wrong_kind(struct reader *reader, const yaml_node_t *node, const char *expected)
{
    return at(reader, node,
        error_set(reader->error, EINVAL, BLAME_USER, "%s is expected here, not %s", expected, kind_of(node)));
}

/* A tag that changes what a value is has no meaning here; those of YAML itself say nothing new. */
static int check_tag(struct reader *reader, const yaml_node_t *node)
{
    static const char *const known[] = {
        YAML_STR_TAG, YAML_INT_TAG, YAML_FLOAT_TAG, YAML_BOOL_TAG, YAML_NULL_TAG, YAML_SEQ_TAG, YAML_MAP_TAG};
    static const char yaml_org[] = "tag:yaml.org,2002:";
    const char *tag = node->tag ? (const char *)node->tag : "!";
    for (size_t i = 0; i < LENGTH(known); i++)
        if (strcmp(tag, known[i]) == 0)
            return 0;
    bool standard = strncmp(tag, yaml_org, strlen(yaml_org)) == 0;
    return at(reader, node,
        error_set(reader->error, EINVAL, BLAME_USER, "the tag %s%s has no meaning here", standard ? "!!" : "",
            quote_text(standard ? tag + strlen(yaml_org) : tag).text));
}

/* The text of a single value, lent; `what` is what else would have fitted, for the message. NULL: it is none,
 * and the error says so (EINVAL). */
static const char *take_scalar(struct reader *reader, const yaml_node_t *node, const char *what)
{
    if (node->type != YAML_SCALAR_NODE) {
        wrong_kind(reader, node, what);
        return NULL;
    }
    if (check_tag(reader, node) < 0)
        return NULL;
    const char *text = (const char *)node->data.scalar.value;
    reader->expansion += node->data.scalar.length + 1;
    int result = 0;
    if (is_null(node))
        result = error_set(reader->error, EINVAL, BLAME_USER,
            "%s: leave the key out, or write \"\" for an empty text",
            *text ? "null is no value" : "there is no value");
    else if (strlen(text) != node->data.scalar.length)
        result = error_set(reader->error, EINVAL, BLAME_USER, "there is a NUL character in it");
    else if (reader->expansion > EXPANSION_MAX)
        result = error_set(reader->error, EINVAL, BLAME_USER, "the aliases expand to more than %zu MiB",
            EXPANSION_MAX >> 20);
    if (result == 0)
        return text;
    at(reader, node, result);
    return NULL;
}

/* Entry `index` of a map, whose key must be a single value that is not there before it. */
static int take_entry(struct reader *reader, const yaml_node_t *map, size_t index, struct entry *ret_entry)
{
    const yaml_node_pair_t *pairs = map->data.mapping.pairs.start;
    struct entry entry = {
        .key = node_of(reader, pairs[index].key), .value = node_of(reader, pairs[index].value)};
    entry.name = take_scalar(reader, entry.key, "a key that is a single value");
    if (!entry.name)
        return -EINVAL;
    for (size_t i = 0; i < index; i++) {
        const yaml_node_t *earlier = node_of(reader, pairs[i].key);
        if (strcmp((const char *)earlier->data.scalar.value, entry.name) != 0)
            continue;
        size_t length = path_enter(reader, entry.name);
        at(reader, entry.key,
            error_set(reader->error, EINVAL, BLAME_USER, "the key is there twice, first in line %zu",
                earlier->start_mark.line + 1));
        path_leave(reader, length);
        return -EINVAL;
    }
    *ret_entry = entry;
    return 0;
}

static int assign(struct reader *reader, const struct config_key *key, void *object, const yaml_node_t *node,
    const char *text)
{
    int result = config_assign(key, object, text, reader->error);
    return result < 0 ? at(reader, node, result) : 0;
}

static int assign_scalar(struct reader *reader, const struct config_key *key, void *object,
    const yaml_node_t *node, const char *what)
{
    const char *text = take_scalar(reader, node, what);
    return text ? assign(reader, key, object, node, text) : -EINVAL;
}

static int check_room(struct reader *reader, const struct config_key *key, const yaml_node_t *node)
{
    if ((int64_t)item_count(node) <= key->maximum)
        return 0;
    return at(reader, node,
        error_set(reader->error, EINVAL, BLAME_USER, "more than %lld entries", (long long)key->maximum));
}

/* A list with an item of the key's kind in each place. */
static int read_list(
    struct reader *reader, const struct config_key *key, void *object, const yaml_node_t *list)
{
    int result = check_tag(reader, list);
    if (result == 0)
        result = check_room(reader, key, list);
    if (result == 0 && key->type == TYPE_COMMAND && item_count(list) == 0)
        result = at(reader, list, error_set(reader->error, EINVAL, BLAME_USER, "the command is empty"));
    if (result == 0)
        result = config_assign_empty(key, object, reader->error);
    for (size_t i = 0; result == 0 && i < item_count(list); i++) {
        size_t length = path_enter_item(reader, i);
        result = assign_scalar(reader, key, object, item_at(reader, list, i), "a single value");
        path_leave(reader, length);
    }
    return result;
}

/* One name with its value, assigned as NAME=VALUE. */
static int read_pair(
    struct reader *reader, const struct config_key *key, void *object, const struct entry *entry)
{
    const char *value = take_scalar(reader, entry->value, "a single value");
    if (!value)
        return -EINVAL;
    if (strchr(entry->name, '='))
        return at(
            reader, entry->key, error_set(reader->error, EINVAL, BLAME_USER, "there is '=' in the name"));
    char *pair;
    if (asprintf(&pair, "%s=%s", entry->name, value) < 0)
        return error_set(reader->error, ENOMEM, BLAME_OURS, "out of memory");
    int result = assign(reader, key, object, entry->value, pair);
    free(pair);
    return result;
}

static int read_pairs(
    struct reader *reader, const struct config_key *key, void *object, const yaml_node_t *map)
{
    int result = check_tag(reader, map);
    if (result == 0)
        result = check_room(reader, key, map);
    for (size_t i = 0; result == 0 && i < item_count(map); i++) {
        struct entry entry;
        result = take_entry(reader, map, i, &entry);
        if (result < 0)
            break;
        size_t length = path_enter(reader, entry.name);
        result = read_pair(reader, key, object, &entry);
        path_leave(reader, length);
    }
    return result;
}

/* A command as one string. */
static int read_words(
    struct reader *reader, const struct config_key *key, void *object, const yaml_node_t *node)
{
    char **words = NULL;
    const char *text = take_scalar(reader, node, "a list or a single value");
    if (!text)
        return -EINVAL;
    int result = value_words(text, &words, reader->error);
    if (result == 0 && !words[0])
        result = error_set(reader->error, EINVAL, BLAME_USER, "the command is empty");
    if (result < 0)
        at(reader, node, result);
    for (size_t i = 0; result == 0 && words[i]; i++)
        result = assign(reader, key, object, node, words[i]);
    value_free_words(words);
    return result;
}

static int read_service(struct reader *reader, const struct entry *entry)
{
    struct config *config = reader->config;
    /* Counted before it is filled, so that whatever is in it is freed with the configuration. */
    struct config_service *service = &config->services[config->service_count++];
    int result = config_service_init(service, reader->error);
    if (result < 0)
        return result;
    if (value_check_name(entry->name, reader->error) < 0)
        return at(reader, entry->key, -EINVAL);
    service->name = strdup(entry->name);
    if (!service->name)
        return error_set(reader->error, ENOMEM, BLAME_OURS, "out of memory");
    if (entry->value->type != YAML_MAPPING_NODE)
        return wrong_kind(reader, entry->value, "a map");
    result = read_map(reader, entry->value, SCOPE_SERVICE, "", service);
    if (result < 0)
        return result;
    const char *path;
    result = config_service_check(service, config->services, config->service_count - 1, &path, reader->error);
    if (result == 0)
        return 0;
    size_t length = path ? path_enter(reader, path) : strlen(reader->path);
    at(reader, entry->key, result);
    path_leave(reader, length);
    return result;
}

static int read_services(struct reader *reader, const struct config_key *key, const yaml_node_t *map)
{
    if (map->type != YAML_MAPPING_NODE)
        return wrong_kind(reader, map, "a map of services by name");
    int result = check_tag(reader, map);
    if (result == 0)
        result = check_room(reader, key, map);
    if (result == 0 && item_count(map) == 0)
        result = at(reader, map, error_set(reader->error, EINVAL, BLAME_USER, "there is no service in it"));
    if (result < 0)
        return result;
    reader->config->services = calloc(item_count(map), sizeof *reader->config->services);
    if (!reader->config->services)
        return error_set(reader->error, ENOMEM, BLAME_OURS, "out of memory");
    size_t listeners = 0;
    for (size_t i = 0; result == 0 && i < item_count(map); i++) {
        struct entry entry;
        result = take_entry(reader, map, i, &entry);
        if (result < 0)
            break;
        size_t length = path_enter(reader, entry.name);
        result = read_service(reader, &entry);
        listeners += reader->config->services[i].listener_count;
        if (result == 0 && listeners > LISTENERS_MAX)
            result = at(reader, entry.key,
                error_set(reader->error, EINVAL, BLAME_USER, "more than %d listeners in all", LISTENERS_MAX));
        path_leave(reader, length);
    }
    return result;
}

static int read_value(
    struct reader *reader, const struct config_key *key, void *object, const yaml_node_t *node)
{
    if (key->type == TYPE_SERVICES)
        return read_services(reader, key, node);
    if (!config_key_collects(key))
        return assign_scalar(reader, key, object, node, "a single value");
    if (node->type == YAML_SEQUENCE_NODE && key->type != TYPE_RLIMITS)
        return read_list(reader, key, object, node);
    if (node->type == YAML_MAPPING_NODE && (key->type == TYPE_ENVIRONMENT || key->type == TYPE_RLIMITS))
        return read_pairs(reader, key, object, node);
    if (key->type == TYPE_COMMAND)
        return read_words(reader, key, object, node);
    if (key->type == TYPE_LISTENERS)
        return assign_scalar(reader, key, object, node, "a list or a single value");
    return wrong_kind(reader, node,
        key->type == TYPE_RLIMITS       ? "a map of limits by name"
        : key->type == TYPE_ENVIRONMENT ? "a map, or a list of NAME=VALUE,"
                                        : "a list");
}

/* The key in a group that was written as one word, drain_timeout or drain.timeout, or NULL. */
static const struct config_key *flattened(enum config_scope scope, const char *name)
{
    size_t count;
    const struct config_key *keys = config_keys(&count);
    for (size_t i = 0; i < count; i++) {
        const char *path = keys[i].scope == scope ? keys[i].path : NULL;
        const char *dot = path ? strchr(path, '.') : NULL;
        size_t length = dot ? (size_t)(dot - path) : 0;
        if (dot && strncmp(path, name, length) == 0 && name[length] && strchr("._-", name[length]) &&
            strcmp(dot + 1, name + length + 1) == 0)
            return &keys[i];
    }
    return NULL;
}

/* Names that could stand where `name` does: the parts of the paths behind `prefix`, up to the next dot. */
static struct spelling_hint key_hint(enum config_scope scope, const char *prefix, const char *name)
{
    size_t count, length = strlen(prefix);
    const struct config_key *keys = config_keys(&count);
    const char *names[CONFIG_KEYS_MAX] = {NULL};
    char parts[CONFIG_KEYS_MAX][24];
    for (size_t i = 0; i < count; i++) {
        if (keys[i].scope != scope || !keys[i].path || strncmp(keys[i].path, prefix, length) != 0)
            continue;
        const char *part = keys[i].path + length;
        snprintf(parts[i], sizeof parts[i], "%.*s", (int)strcspn(part, "."), part);
        names[i] = parts[i];
    }
    return spelling_hint(name, "", names, LENGTH(names));
}

/* A key that the table doesn't have; `prefix` is the group that it stands in. */
static int unknown_key(
    struct reader *reader, const struct entry *entry, enum config_scope scope, const char *prefix)
{
    struct error *error = reader->error;
    bool in_service = scope == SCOPE_SERVICE;
    enum config_scope elsewhere = in_service ? SCOPE_INSTANCE : SCOPE_SERVICE;
    const struct config_key *inside = *prefix ? NULL : flattened(scope, entry->name);
    int result;
    if (strcmp(entry->name, "<<") == 0)
        result =
            error_set(error, EINVAL, BLAME_USER, "merging is not read: let an alias stand for a whole value");
    else if (inside)
        result = error_set(error, EINVAL, BLAME_USER, "unknown key; did you mean %.*s: {%s: ...}?",
            (int)strcspn(inside->path, "."), inside->path, strchr(inside->path, '.') + 1);
    else if (!*prefix &&
             (config_key_find(elsewhere, entry->name) || config_key_is_group(elsewhere, entry->name)))
        result = error_set(error, EINVAL, BLAME_USER, "the key belongs %s",
            in_service ? "at the top, not in a service" : "in a service: services: {NAME: {...}}");
    else
        result =
            error_set(error, EINVAL, BLAME_USER, "unknown key%s", key_hint(scope, prefix, entry->name).text);
    return at(reader, entry->key, result);
}

static int read_entry(struct reader *reader, const struct entry *entry, enum config_scope scope,
    const char *prefix, void *object)
{
    char full[64];
    int length = snprintf(full, sizeof full, "%s%s", prefix, entry->name);
    /* A dot in a key would find its way around the groups: one form only. */
    bool plain = length < (int)sizeof full && !strchr(entry->name, '.');
    const struct config_key *key = plain ? config_key_find(scope, full) : NULL;
    if (key)
        return read_value(reader, key, object, entry->value);
    if (!plain || !config_key_is_group(scope, full))
        return unknown_key(reader, entry, scope, prefix);
    if (entry->value->type != YAML_MAPPING_NODE)
        return wrong_kind(reader, entry->value, "a map");
    snprintf(full, sizeof full, "%s%s.", prefix, entry->name);
    return read_map(reader, entry->value, scope, full, object);
}

/* A map whose keys are rows of the table that begin with `prefix`. */
static int read_map(
    struct reader *reader, yaml_node_t *map, enum config_scope scope, const char *prefix, void *object)
{
    int result = check_tag(reader, map);
    for (size_t i = 0; result == 0 && i < item_count(map); i++) {
        struct entry entry;
        result = take_entry(reader, map, i, &entry);
        if (result < 0)
            break;
        size_t length = path_enter(reader, entry.name);
        result = read_entry(reader, &entry, scope, prefix, object);
        path_leave(reader, length);
    }
    return result;
}

static int read_document(struct reader *reader)
{
    yaml_node_t *root = yaml_document_get_root_node(reader->document);
    if (!root)
        return error_set(
            reader->error, EINVAL, BLAME_USER, "%s: the file is empty", quote_path(reader->file).text);
    if (root->type != YAML_MAPPING_NODE)
        return wrong_kind(reader, root, "a map (services: ...)");
    int result = read_map(reader, root, SCOPE_INSTANCE, "", reader->config);
    if (result == 0 && reader->config->service_count == 0)
        result =
            at(reader, root, error_set(reader->error, EINVAL, BLAME_USER, "the key services is missing"));
    return result;
}

int config_yaml_read(const char *file, const char *text, struct config *config, struct error *error)
{
    yaml_document_t document;
    int result = config_yaml_load(file, text, &document, error);
    if (result < 0)
        return result;
    struct reader reader = {.file = file, .document = &document, .config = config, .error = error};
    result = read_document(&reader);
    yaml_document_delete(&document);
    return result;
}
