/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/status_json.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* --- strings --- */

/* Length of the UTF-8 sequence at the start of the text, 0 if there is none (RFC 3629: no overlong form, no
 * surrogate). */
static size_t utf8_sequence(const unsigned char *text)
{
    if (text[0] < 0x80)
        return 1;
    size_t length = text[0] >= 0xc2 && text[0] <= 0xdf ? 2
                    : (text[0] & 0xf0) == 0xe0         ? 3
                    : (text[0] & 0xf8) == 0xf0         ? 4
                                                       : 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    if (length == 3 && ((text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] > 0x9f)))
        return 0;
    if (length == 4 &&
        ((text[0] == 0xf0 && text[1] < 0x90) || text[0] > 0xf4 || (text[0] == 0xf4 && text[1] > 0x8f)))
        return 0;
    return length;
}

static json_t *string_json(const char *text)
{
    static const char replacement[] = "\xef\xbf\xbd";
    json_t *json = json_string(text);
    if (json)
        return json;
    char *clean = malloc(3 * strlen(text) + 1);
    if (!clean)
        return NULL;
    size_t size = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        size_t length = utf8_sequence(p);
        memcpy(clean + size, length ? (const char *)p : replacement, length ? length : 3);
        size += length ? length : 3;
        p += length ? length : 1;
    }
    json = json_stringn(clean, size);
    free(clean);
    return json;
}

static json_t *bytes_json(const ProtobufCBinaryData *bytes)
{
    /* The last one is the padding. */
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";
    char *text = malloc((bytes->len + 2) / 3 * 4 + 1);
    if (!text)
        return NULL;
    size_t size = 0;
    for (size_t i = 0; i < bytes->len; i += 3) {
        size_t left = bytes->len - i;
        uint32_t word = (uint32_t)bytes->data[i] << 16;
        word |= left > 1 ? (uint32_t)bytes->data[i + 1] << 8 : 0;
        word |= left > 2 ? bytes->data[i + 2] : 0;
        text[size++] = digits[word >> 18];
        text[size++] = digits[word >> 12 & 63];
        text[size++] = digits[left > 1 ? word >> 6 & 63 : 64];
        text[size++] = digits[left > 2 ? word & 63 : 64];
    }
    json_t *json = json_stringn(text, size);
    free(text);
    return json;
}

/* --- numbers --- */

static json_t *uint64_json(uint64_t value)
{
    return value <= INT64_MAX ? json_integer((json_int_t)value) : json_real((double)value);
}

static json_t *real_json(double value)
{
    json_t *json = json_real(value);
    return json ? json : json_null(); /* nan and infinity are no JSON */
}

static json_t *enum_json(const ProtobufCEnumDescriptor *type, int value)
{
    const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value(type, value);
    return known ? json_string(known->name) : json_integer(value);
}

/* --- fields --- */

/* One value of the field's type. */
static json_t *value_json(const ProtobufCFieldDescriptor *field, const void *value)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return json_integer(*(const int32_t *)value);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return json_integer(*(const int64_t *)value);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return json_integer(*(const uint32_t *)value);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return uint64_json(*(const uint64_t *)value);
    case PROTOBUF_C_TYPE_FLOAT:
        return real_json((double)*(const float *)value);
    case PROTOBUF_C_TYPE_DOUBLE:
        return real_json(*(const double *)value);
    case PROTOBUF_C_TYPE_BOOL:
        return json_boolean(*(const protobuf_c_boolean *)value);
    case PROTOBUF_C_TYPE_ENUM:
        return enum_json(field->descriptor, *(const int *)value);
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(const char *const *)value;
        return string_json(text ? text : "");
    }
    case PROTOBUF_C_TYPE_BYTES:
        return bytes_json(value);
    case PROTOBUF_C_TYPE_MESSAGE: {
        const ProtobufCMessage *message = *(const ProtobufCMessage *const *)value;
        return message ? status_json(message) : json_null();
    }
    }
    assert(!"a field type that protobuf-c has not had until now");
    return NULL;
}

/* Bytes that one value takes in a repeated field's array. */
static size_t value_size(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return 4;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_ENUM:
        return sizeof(int);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    }
    assert(!"a field type that protobuf-c has not had until now");
    return 0;
}

static json_t *list_json(const ProtobufCFieldDescriptor *field, const char *base)
{
    size_t count = *(const size_t *)(const void *)(base + field->quantifier_offset);
    const char *values = *(const char *const *)(const void *)(base + field->offset);
    json_t *list = json_array();
    for (size_t i = 0; list && i < count; i++) {
        if (json_array_append_new(list, value_json(field, values + i * value_size(field))) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static bool is_oneof(const ProtobufCFieldDescriptor *field)
{
    return field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;
}

/* Whether an optional field, or a member of a oneof, is set. */
static bool is_set(const ProtobufCFieldDescriptor *field, const char *base)
{
    const void *quantifier = base + field->quantifier_offset;
    if (is_oneof(field))
        return *(const uint32_t *)quantifier == field->id;
    if (field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_MESSAGE)
        return *(const void *const *)(const void *)(base + field->offset) != NULL;
    return *(const protobuf_c_boolean *)quantifier;
}

static json_t *field_json(const ProtobufCFieldDescriptor *field, const char *base)
{
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return list_json(field, base);
    /* Without a label (proto3) it is there with its default; in a oneof it has no label either, but may be
     * absent. */
    if (field->label == PROTOBUF_C_LABEL_OPTIONAL && !is_set(field, base))
        return json_null();
    return value_json(field, base + field->offset);
}

json_t *status_json(const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    const char *base = (const char *)message;
    json_t *object = json_object();
    for (unsigned i = 0; object && i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        if (is_oneof(field) && !is_set(field, base))
            continue;
        if (json_object_set_new(object, field->name, field_json(field, base)) < 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

bool status_json_print(FILE *out, const ProtobufCMessage *message, bool pretty)
{
    json_t *json = status_json(message);
    if (!json)
        return false;
    size_t flags = JSON_REAL_PRECISION(15) | (pretty ? JSON_INDENT(2) : 0);
    bool done = json_dumpf(json, out, flags) == 0 && fputc('\n', out) != EOF && fflush(out) == 0;
    json_decref(json);
    return done;
}
