/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A protobuf message as JSON, by its descriptor: what is added to the .proto is in the JSON without a line of
 * code.
 *
 *   key              the field's name as in the .proto (snake_case), in the order of the .proto
 *   absent           null; but the members of a oneof are keys only when they are set
 *   repeated         a list, [] when it is empty
 *   message          an object
 *   64-bit numbers   numbers; beyond 2^63-1, which JSON libraries don't hold exactly, a real number
 *   nan, infinity    null
 *   enum             its name; a number that has none stays a number
 *   bytes            base64
 *   string           what isn't UTF-8 in it (protobuf-c doesn't look) is replaced by U+FFFD
 */
#ifndef GAPLESS_CLI_STATUS_JSON_H
#define GAPLESS_CLI_STATUS_JSON_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdio.h>

/* A new reference; NULL when out of memory. */
json_t *status_json(const ProtobufCMessage *message);

/* Prints it and a newline; `pretty`: over many lines, indented. False: out of memory, or writing failed. */
bool status_json_print(FILE *out, const ProtobufCMessage *message, bool pretty);

#endif
