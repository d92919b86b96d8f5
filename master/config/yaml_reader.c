/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/yaml_reader.h"

#include "master/config/quote.h"
#include "master/config/yaml.h"

#include <errno.h>
#include <string.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* What all values together may come to, in bytes. A file without aliases can't reach it; an alias that is
 * used again and again can, and would make memory of it. */
#define EXPANSION_MAX (4 * (size_t)YAML_TEXT_MAX)

int reader_at(struct reader *reader, const yaml_node_t *node, int result)
{
    error_prefix(reader->error, "%s:%zu:%zu%s%s", quote_path(reader->file).text, node->start_mark.line + 1,
        node->start_mark.column + 1, *reader->path ? ": " : "", reader->path);
    return result;
}

size_t reader_enter(struct reader *reader, const char *name)
{
    size_t length = strlen(reader->path);
    snprintf(reader->path + length, sizeof reader->path - length, "%s%s", length ? "." : "",
        quote_text(name).text);
    return length;
}

size_t reader_enter_item(struct reader *reader, size_t index)
{
    size_t length = strlen(reader->path);
    snprintf(reader->path + length, sizeof reader->path - length, "[%zu]", index);
    return length;
}

void reader_leave(struct reader *reader, size_t length)
{
    reader->path[length] = '\0';
}

static yaml_node_t *reader_node(const struct reader *reader, int id)
{
    return yaml_document_get_node(reader->document, id);
}

size_t reader_item_count(const yaml_node_t *node)
{
    return node->type == YAML_SEQUENCE_NODE
               ? (size_t)(node->data.sequence.items.top - node->data.sequence.items.start)
               : (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
}

yaml_node_t *reader_item(const struct reader *reader, const yaml_node_t *list, size_t index)
{
    return reader_node(reader, list->data.sequence.items.start[index]);
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

int reader_wrong_kind(struct reader *reader, const yaml_node_t *node, const char *expected)
{
    return reader_at(reader, node,
        error_set(reader->error, EINVAL, BLAME_USER, "%s is expected here, not %s", expected, kind_of(node)));
}

/* A tag that changes what a value is has no meaning here; those of YAML itself say nothing new. */
int reader_check_tag(struct reader *reader, const yaml_node_t *node)
{
    static const char *const known[] = {
        YAML_STR_TAG, YAML_INT_TAG, YAML_FLOAT_TAG, YAML_BOOL_TAG, YAML_NULL_TAG, YAML_SEQ_TAG, YAML_MAP_TAG};
    static const char yaml_org[] = "tag:yaml.org,2002:";
    const char *tag = node->tag ? (const char *)node->tag : "!";
    for (size_t i = 0; i < LENGTH(known); i++)
        if (strcmp(tag, known[i]) == 0)
            return 0;
    bool standard = strncmp(tag, yaml_org, strlen(yaml_org)) == 0;
    return reader_at(reader, node,
        error_set(reader->error, EINVAL, BLAME_USER, "the tag %s%s has no meaning here", standard ? "!!" : "",
            quote_text(standard ? tag + strlen(yaml_org) : tag).text));
}

int reader_check_room(struct reader *reader, const struct config_key *key, const yaml_node_t *node)
{
    if ((int64_t)reader_item_count(node) <= key->maximum)
        return 0;
    return reader_at(reader, node,
        error_set(reader->error, EINVAL, BLAME_USER, "more than %lld entries", (long long)key->maximum));
}

const char *reader_scalar(struct reader *reader, const yaml_node_t *node, const char *what)
{
    if (node->type != YAML_SCALAR_NODE) {
        reader_wrong_kind(reader, node, what);
        return NULL;
    }
    if (reader_check_tag(reader, node) < 0)
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
    reader_at(reader, node, result);
    return NULL;
}

int reader_entry(struct reader *reader, const yaml_node_t *map, size_t index, struct entry *ret_entry)
{
    const yaml_node_pair_t *pairs = map->data.mapping.pairs.start;
    struct entry entry = {
        .key = reader_node(reader, pairs[index].key), .value = reader_node(reader, pairs[index].value)};
    entry.name = reader_scalar(reader, entry.key, "a key that is a single value");
    if (!entry.name)
        return -EINVAL;
    for (size_t i = 0; i < index; i++) {
        const yaml_node_t *earlier = reader_node(reader, pairs[i].key);
        if (strcmp((const char *)earlier->data.scalar.value, entry.name) != 0)
            continue;
        size_t length = reader_enter(reader, entry.name);
        reader_at(reader, entry.key,
            error_set(reader->error, EINVAL, BLAME_USER, "the key is there twice, first in line %zu",
                earlier->start_mark.line + 1));
        reader_leave(reader, length);
        return -EINVAL;
    }
    *ret_entry = entry;
    return 0;
}

yaml_node_t *reader_find(const struct reader *reader, const yaml_node_t *map, const char *name)
{
    const yaml_node_pair_t *pairs = map->data.mapping.pairs.start;
    for (size_t i = 0; map->type == YAML_MAPPING_NODE && i < reader_item_count(map); i++) {
        const yaml_node_t *key = reader_node(reader, pairs[i].key);
        if (key->type == YAML_SCALAR_NODE && strcmp((const char *)key->data.scalar.value, name) == 0)
            return reader_node(reader, pairs[i].value);
    }
    return NULL;
}
