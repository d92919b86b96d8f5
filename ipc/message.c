/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/message.h"

#include <stdlib.h>

ProtobufCMessage *message_copy(const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = malloc(size + 1); /* of one that is empty, too */
    ProtobufCMessage *ret = NULL;
    if (packed) {
        protobuf_c_message_pack(message, packed);
        ret = protobuf_c_message_unpack(message->descriptor, NULL, size, packed);
    }
    free(packed);
    return ret;
}
