/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/transfer_wire.h"

#include <errno.h>
#include <string.h>

/* The lowest three bits of a tag. */
enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

#define TAG(number, type) (uint8_t)((number) << 3 | (type))

/* Longest varints: of a tag and a length, and of a number. */
#define VARINT32_MAX 5
#define VARINT64_MAX 10

struct cursor {
    const uint8_t *at;
    const uint8_t *end;
};

struct field {
    uint32_t number;
    enum wire_type type;
    uint64_t value; /* varint, fixed64 */
    const uint8_t *data;
    size_t size;
};

/* ── parsing ── */

static int bad(struct error *error, const char *why)
{
    error_set(error, EBADMSG, BLAME_PEER, "a frame of a transfer can't be read: %s", why);
    return -EBADMSG;
}

static int read_long_varint(struct cursor *in, unsigned int longest, uint64_t *ret_value, struct error *error)
{
    uint64_t value = 0;
    for (unsigned int i = 0; i < longest; i++) {
        if (in->at == in->end)
            return bad(error, "a number is cut off");
        uint8_t byte = *in->at++;
        /* 4 bits are left of 32 in the fifth byte, and 1 of 64 in the tenth. */
        if (i == longest - 1 && byte < 0x80 && byte > (longest == VARINT32_MAX ? 0x0f : 0x01))
            return bad(error, "a number is too large");
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *ret_value = value;
            return 0;
        }
    }
    return bad(error, "a number has no end");
}

static inline int read_varint(
    struct cursor *in, unsigned int longest, uint64_t *ret_value, struct error *error)
{
    if (in->at < in->end && *in->at < 0x80) {
        *ret_value = *in->at++;
        return 0;
    }
    return read_long_varint(in, longest, ret_value, error);
}

static int read_span(struct cursor *in, uint64_t size, struct field *field, struct error *error)
{
    if (size > (size_t)(in->end - in->at))
        return bad(error, "a field is cut off");
    field->data = in->at;
    field->size = (size_t)size;
    in->at += size;
    return 0;
}

static uint64_t load64(const uint8_t *data)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | data[i];
    return value;
}

static inline int read_field(struct cursor *in, struct field *ret_field, struct error *error)
{
    uint64_t tag = 0, size = 0;
    int r = read_varint(in, VARINT32_MAX, &tag, error);
    if (r < 0)
        return r;
    ret_field->number = (uint32_t)(tag >> 3);
    ret_field->type = tag & 7;
    if (ret_field->number == 0)
        return bad(error, "a field has number 0");
    switch (ret_field->type) {
    case WIRE_VARINT:
        return read_varint(in, VARINT64_MAX, &ret_field->value, error);
    case WIRE_BYTES:
        r = read_varint(in, VARINT32_MAX, &size, error);
        return r < 0 ? r : read_span(in, size, ret_field, error);
    case WIRE_FIXED64:
        r = read_span(in, 8, ret_field, error);
        if (r == 0)
            ret_field->value = load64(ret_field->data);
        return r;
    case WIRE_FIXED32:
        return read_span(in, 4, ret_field, error);
    default:
        return bad(error, "a field is of a type that isn't used");
    }
}

static inline int take_uint32(const struct field *field, uint32_t *ret_value, struct error *error)
{
    if (field->type != WIRE_VARINT)
        return bad(error, "a field isn't of its type");
    if (field->value > UINT32_MAX)
        return bad(error, "a number is too large");
    *ret_value = (uint32_t)field->value;
    return 0;
}

static inline int take_uint64(
    const struct field *field, enum wire_type type, uint64_t *ret_value, struct error *error)
{
    if (field->type != type)
        return bad(error, "a field isn't of its type");
    *ret_value = field->value;
    return 0;
}

static inline int take_bytes(
    const struct field *field, const uint8_t **ret_data, size_t *ret_size, struct error *error)
{
    if (field->type != WIRE_BYTES)
        return bad(error, "a field isn't of its type");
    *ret_data = field->data;
    *ret_size = field->size;
    return 0;
}

/* A field of Record. */
static inline int take_of_record(
    const struct field *field, struct transfer_record *record, struct error *error)
{
    switch (field->number) {
    case 1:
        return take_uint32(field, &record->segment, error);
    case 2:
        return take_bytes(field, &record->key, &record->key_size, error);
    case 3:
        return take_uint32(field, &record->version, error);
    case 4:
        return take_bytes(field, &record->value, &record->value_size, error);
    default:
        return 0;
    }
}

static int take_of_blob(const struct field *field, struct transfer_record *record, struct error *error)
{
    uint64_t size = record->value_size;
    int r = 0;
    switch (field->number) {
    case 4:
        return take_uint64(field, WIRE_VARINT, &record->blob, error);
    case 5:
        r = take_uint64(field, WIRE_VARINT, &size, error);
        if (r == 0 && size > SIZE_MAX)
            r = bad(error, "a number is too large");
        record->value_size = (size_t)size;
        return r;
    default:
        return take_of_record(field, record, error);
    }
}

/* Of Mark and End. */
static int take_of_sum(const struct field *field, struct transfer_wire *wire, struct error *error)
{
    switch (field->number) {
    case 1:
        return take_uint64(field, WIRE_VARINT, &wire->frames, error);
    case 2:
        return take_uint64(field, WIRE_FIXED64, &wire->checksum, error);
    default:
        return 0;
    }
}

static int parse_record(struct cursor in, struct transfer_record *record, struct error *error)
{
    struct field field;
    int r = 0;
    while (r == 0 && in.at < in.end) {
        r = read_field(&in, &field, error);
        if (r == 0)
            r = take_of_record(&field, record, error);
    }
    return r;
}

static int parse_rare(struct cursor in, struct transfer_wire *wire, struct error *error)
{
    struct field field;
    int r = 0;
    while (r == 0 && in.at < in.end) {
        r = read_field(&in, &field, error);
        if (r == 0)
            r = wire->kind == TRANSFER_BLOB ? take_of_blob(&field, &wire->record, error)
                                            : take_of_sum(&field, wire, error);
    }
    return r;
}

static int parse_body(const struct field *field, struct transfer_wire *wire, struct error *error)
{
    if (wire->kind != TRANSFER_UNKNOWN)
        return bad(error, "it has more than one body");
    if (field->type != WIRE_BYTES)
        return bad(error, "a field isn't of its type");
    wire->kind = (enum transfer_kind)(field->number - 1);
    struct cursor in = {field->data, field->data + field->size};
    if (wire->kind == TRANSFER_BEGIN) {
        wire->begin = field->data;
        wire->begin_size = field->size;
        return 0;
    }
    if (wire->kind <= TRANSFER_DELTA)
        return parse_record(in, &wire->record, error);
    return parse_rare(in, wire, error);
}

int transfer_wire_parse(const uint8_t *data, size_t size, struct transfer_wire *ret_wire, struct error *error)
{
    static const uint8_t none[1];
    *ret_wire = (struct transfer_wire){.kind = TRANSFER_UNKNOWN, .record = {.key = none, .value = none}};
    struct cursor in = {data, data + size};
    struct field field;
    int r = 0;
    while (r == 0 && in.at < in.end) {
        r = read_field(&in, &field, error);
        /* The bodies have the numbers of their kinds, plus one. */
        if (r == 0 && field.number <= TRANSFER_UNKNOWN)
            r = parse_body(&field, ret_wire, error);
    }
    return r;
}

/* ── packing ── */

static inline size_t varint_size(uint64_t value)
{
    return (size_t)(70 - __builtin_clzll(value | 1)) / 7;
}

static inline uint8_t *put_varint(uint8_t *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *out++ = (uint8_t)(value | 0x80);
    *out++ = (uint8_t)value;
    return out;
}

static inline size_t number_size(uint64_t value)
{
    return value ? 1 + varint_size(value) : 0;
}

static inline uint8_t *put_number(uint8_t *out, unsigned int number, uint64_t value)
{
    if (!value)
        return out;
    *out++ = TAG(number, WIRE_VARINT);
    return put_varint(out, value);
}

static inline size_t bytes_size(size_t size)
{
    return size ? 1 + varint_size(size) + size : 0;
}

static inline uint8_t *put_bytes(uint8_t *out, unsigned int number, const uint8_t *data, size_t size)
{
    if (!size)
        return out;
    *out++ = TAG(number, WIRE_BYTES);
    out = put_varint(out, size);
    memcpy(out, data, size);
    return out + size;
}

/* The frame's length, and tag and length of its body of `size` bytes. */
static inline uint8_t *put_frame(uint8_t *out, enum transfer_kind kind, size_t size)
{
    out += frame_header((uint32_t)(1 + varint_size(size) + size), out);
    *out++ = TAG(kind + 1, WIRE_BYTES);
    return put_varint(out, size);
}

uint8_t *transfer_wire_record(uint8_t *out, enum transfer_kind kind, const struct transfer_record *record)
{
    bool blob = kind == TRANSFER_BLOB;
    size_t rest =
        blob ? number_size(record->blob) + number_size(record->value_size) : bytes_size(record->value_size);
    out = put_frame(out, kind,
        number_size(record->segment) + bytes_size(record->key_size) + number_size(record->version) + rest);
    out = put_number(out, 1, record->segment);
    out = put_bytes(out, 2, record->key, record->key_size);
    out = put_number(out, 3, record->version);
    if (!blob)
        return put_bytes(out, 4, record->value, record->value_size);
    out = put_number(out, 4, record->blob);
    return put_number(out, 5, record->value_size);
}

uint8_t *transfer_wire_sum(uint8_t *out, enum transfer_kind kind, uint64_t frames, uint64_t checksum)
{
    out = put_frame(out, kind, number_size(frames) + (checksum ? 9 : 0));
    out = put_number(out, 1, frames);
    if (!checksum)
        return out;
    *out++ = TAG(2, WIRE_FIXED64);
    for (int i = 0; i < 8; i++)
        *out++ = (uint8_t)(checksum >> (8 * i));
    return out;
}

uint8_t *transfer_wire_begin(uint8_t *out, size_t size)
{
    return put_frame(out, TRANSFER_BEGIN, size);
}
