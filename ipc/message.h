/* SPDX-License-Identifier: BSD-2-Clause */
/* What protobuf-c has nothing for. */
#ifndef GAPLESS_MESSAGE_H
#define GAPLESS_MESSAGE_H

#include <protobuf-c/protobuf-c.h>

/* A copy with all that the message has, the caller's (protobuf_c_message_free_unpacked(), or the type's own
 * free_unpacked()); NULL: out of memory. */
ProtobufCMessage *message_copy(const ProtobufCMessage *message);

#endif
