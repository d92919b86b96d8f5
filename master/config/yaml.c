/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/yaml.h"

#include "master/config/quote.h"
#include "master/config/service.h"
#include "master/config/value.h"
#include "master/config/yaml_reader.h"
#include "master/config/yaml_text.h"
#include "master/spelling.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

#define LISTENERS_MAX 1024

static int assign(struct reader *reader, const struct config_key *key, void *object, const yaml_node_t *node,
    const char *text)
{
    int result = config_assign(key, object, text, reader->error);
    return result < 0 ? reader_at(reader, node, result) : 0;
}

static int assign_scalar(struct reader *reader, const struct config_key *key, void *object,
    const yaml_node_t *node, const char *what)
{
    const char *text = reader_scalar(reader, node, what);
    return text ? assign(reader, key, object, node, text) : -EINVAL;
}

/* A list with an item of the key's kind in each place. */
static int read_list(
    struct reader *reader, const struct config_key *key, void *object, const yaml_node_t *list)
{
    int result = reader_check_tag(reader, list);
    if (result == 0)
        result = reader_check_room(reader, key, list);
    if (result == 0 && key->type == TYPE_COMMAND && reader_item_count(list) == 0)
        result =
            reader_at(reader, list, error_set(reader->error, EINVAL, BLAME_USER, "the command is empty"));
    if (result == 0)
        result = config_assign_empty(key, object, reader->error);
    for (size_t i = 0; result == 0 && i < reader_item_count(list); i++) {
        size_t length = reader_enter_item(reader, i);
        result = assign_scalar(reader, key, object, reader_item(reader, list, i), "a single value");
        reader_leave(reader, length);
    }
    return result;
}

/* One name with its value, assigned as NAME=VALUE. */
static int read_pair(
    struct reader *reader, const struct config_key *key, void *object, const struct entry *entry)
{
    const char *value = reader_scalar(reader, entry->value, "a single value");
    if (!value)
        return -EINVAL;
    if (strchr(entry->name, '='))
        return reader_at(
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
    int result = reader_check_tag(reader, map);
    if (result == 0)
        result = reader_check_room(reader, key, map);
    for (size_t i = 0; result == 0 && i < reader_item_count(map); i++) {
        struct entry entry;
        result = reader_entry(reader, map, i, &entry);
        if (result < 0)
            break;
        size_t length = reader_enter(reader, entry.name);
        result = read_pair(reader, key, object, &entry);
        reader_leave(reader, length);
    }
    return result;
}

/* A command as one string. */
static int read_words(
    struct reader *reader, const struct config_key *key, void *object, const yaml_node_t *node)
{
    const char *text = reader_scalar(reader, node, "a list or a single value");
    if (!text)
        return -EINVAL;
    int result = config_assign_words(key, object, text, reader->error);
    return result < 0 ? reader_at(reader, node, result) : 0;
}

/* The value that the service has under the path, or in what that leads through; NULL: the key isn't there. */
static const yaml_node_t *find_value(
    const struct reader *reader, const yaml_node_t *service, const char *path)
{
    char group[64];
    size_t length = strcspn(path, ".");
    snprintf(group, sizeof group, "%.*s", (int)length, path);
    const yaml_node_t *value = reader_find(reader, service, group);
    return value && path[length] ? reader_find(reader, value, path + length + 1) : value;
}

/* What doesn't fit together is at the key that is named, or at the service where that has its default. */
static int misfit(struct reader *reader, const struct entry *entry, const char *path, int result)
{
    const yaml_node_t *value = path ? find_value(reader, entry->value, path) : NULL;
    size_t length = path ? reader_enter(reader, path) : strlen(reader->path);
    reader_at(reader, value ? value : entry->key, result);
    reader_leave(reader, length);
    return result;
}

static int read_service(struct reader *reader, const struct entry *entry)
{
    struct config *config = reader->config;
    /* Counted before it is filled, so that whatever is in it is freed with the configuration. */
    struct config_service *service = &config->services[config->service_count++];
    /* The first of its keys to be looked at: it says what all others begin with. What is wrong about it shows
     * when it is read. */
    const yaml_node_t *preset = reader_find(reader, entry->value, "preset");
    int result = config_service_init(service,
        preset && preset->type == YAML_SCALAR_NODE ? (const char *)preset->data.scalar.value : NULL,
        reader->error);
    if (result < 0)
        return result;
    if (value_check_name(entry->name, reader->error) < 0)
        return reader_at(reader, entry->key, -EINVAL);
    service->name = strdup(entry->name);
    if (!service->name)
        return error_set(reader->error, ENOMEM, BLAME_OURS, "out of memory");
    if (entry->value->type != YAML_MAPPING_NODE)
        return reader_wrong_kind(reader, entry->value, "a map");
    result = reader_map(reader, entry->value, SCOPE_SERVICE, "", service);
    if (result < 0)
        return result;
    const char *path;
    result = config_service_check(service, config->services, config->service_count - 1, &path, reader->error);
    return result < 0 ? misfit(reader, entry, path, result) : 0;
}

static int read_services(struct reader *reader, const struct config_key *key, const yaml_node_t *map)
{
    if (map->type != YAML_MAPPING_NODE)
        return reader_wrong_kind(reader, map, "a map of services by name");
    int result = reader_check_tag(reader, map);
    if (result == 0)
        result = reader_check_room(reader, key, map);
    if (result == 0 && reader_item_count(map) == 0)
        result =
            reader_at(reader, map, error_set(reader->error, EINVAL, BLAME_USER, "there is no service in it"));
    if (result < 0)
        return result;
    reader->config->services = calloc(reader_item_count(map), sizeof *reader->config->services);
    if (!reader->config->services)
        return error_set(reader->error, ENOMEM, BLAME_OURS, "out of memory");
    size_t listeners = 0;
    for (size_t i = 0; result == 0 && i < reader_item_count(map); i++) {
        struct entry entry;
        result = reader_entry(reader, map, i, &entry);
        if (result < 0)
            break;
        size_t length = reader_enter(reader, entry.name);
        result = read_service(reader, &entry);
        listeners += reader->config->services[i].listener_count;
        if (result == 0 && listeners > LISTENERS_MAX)
            result = reader_at(reader, entry.key,
                error_set(reader->error, EINVAL, BLAME_USER, "more than %d listeners in all", LISTENERS_MAX));
        reader_leave(reader, length);
    }
    return result;
}

static int read_value(
    struct reader *reader, const struct config_key *key, void *object, const yaml_node_t *node)
{
    if (key->type == TYPE_SERVICES)
        return read_services(reader, key, node);
    if (key->type == TYPE_STEPS)
        return reader_steps(reader, key, object, node);
    if (!config_key_collects(key))
        return assign_scalar(reader, key, object, node, "a single value");
    if (node->type == YAML_SEQUENCE_NODE && key->type != TYPE_RLIMITS)
        return read_list(reader, key, object, node);
    if (node->type == YAML_MAPPING_NODE && (key->type == TYPE_ENVIRONMENT || key->type == TYPE_RLIMITS))
        return read_pairs(reader, key, object, node);
    if (key->type == TYPE_COMMAND)
        return read_words(reader, key, object, node);
    if (key->type == TYPE_LISTENERS || key->type == TYPE_TEXTS || key->type == TYPE_CANARY)
        return assign_scalar(reader, key, object, node, "a list or a single value");
    return reader_wrong_kind(reader, node,
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
    bool in_service = scope != SCOPE_INSTANCE;
    enum config_scope elsewhere = in_service ? SCOPE_INSTANCE : SCOPE_SERVICE;
    const struct config_key *inside = *prefix ? NULL : flattened(scope, entry->name);
    int result;
    if (strcmp(entry->name, "<<") == 0)
        result =
            error_set(error, EINVAL, BLAME_USER, "merging is not read: let an alias stand for a whole value");
    else if (inside)
        result = error_set(error, EINVAL, BLAME_USER, "unknown key; did you mean %.*s: {%s: ...}?",
            (int)strcspn(inside->path, "."), inside->path, strchr(inside->path, '.') + 1);
    else if (!*prefix && scope != SCOPE_STEP &&
             (config_key_find(elsewhere, entry->name) || config_key_is_group(elsewhere, entry->name)))
        result = error_set(error, EINVAL, BLAME_USER, "the key belongs %s",
            in_service ? "at the top, not in a service" : "in a service: services: {NAME: {...}}");
    else
        result =
            error_set(error, EINVAL, BLAME_USER, "unknown key%s", key_hint(scope, prefix, entry->name).text);
    return reader_at(reader, entry->key, result);
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
        return reader_wrong_kind(reader, entry->value, "a map");
    snprintf(full, sizeof full, "%s%s.", prefix, entry->name);
    return reader_map(reader, entry->value, scope, full, object);
}

int reader_map(
    struct reader *reader, yaml_node_t *map, enum config_scope scope, const char *prefix, void *object)
{
    int result = reader_check_tag(reader, map);
    for (size_t i = 0; result == 0 && i < reader_item_count(map); i++) {
        struct entry entry;
        result = reader_entry(reader, map, i, &entry);
        if (result < 0)
            break;
        size_t length = reader_enter(reader, entry.name);
        result = read_entry(reader, &entry, scope, prefix, object);
        reader_leave(reader, length);
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
        return reader_wrong_kind(reader, root, "a map (services: ...)");
    int result = reader_map(reader, root, SCOPE_INSTANCE, "", reader->config);
    if (result == 0 && reader->config->service_count == 0)
        result = reader_at(
            reader, root, error_set(reader->error, EINVAL, BLAME_USER, "the key services is missing"));
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
