/* SPDX-License-Identifier: BSD-2-Clause */
#include "counters.h"

#include <string.h>

static const char *const names[COUNTER_COUNT] = {
    [COUNTER_CMD_GET] = "cmd_get",
    [COUNTER_GET_HITS] = "get_hits",
    [COUNTER_GET_MISSES] = "get_misses",
    [COUNTER_CMD_SET] = "cmd_set",
    [COUNTER_TOTAL_ITEMS] = "total_items",
    [COUNTER_CAS_HITS] = "cas_hits",
    [COUNTER_CAS_MISSES] = "cas_misses",
    [COUNTER_CAS_BADVAL] = "cas_badval",
    [COUNTER_DELETE_HITS] = "delete_hits",
    [COUNTER_DELETE_MISSES] = "delete_misses",
    [COUNTER_INCR_HITS] = "incr_hits",
    [COUNTER_INCR_MISSES] = "incr_misses",
    [COUNTER_DECR_HITS] = "decr_hits",
    [COUNTER_DECR_MISSES] = "decr_misses",
    [COUNTER_CMD_TOUCH] = "cmd_touch",
    [COUNTER_TOUCH_HITS] = "touch_hits",
    [COUNTER_TOUCH_MISSES] = "touch_misses",
    [COUNTER_CMD_FLUSH] = "cmd_flush",
    [COUNTER_TOTAL_CONNECTIONS] = "total_connections",
    [COUNTER_BYTES_READ] = "bytes_read",
    [COUNTER_BYTES_WRITTEN] = "bytes_written",
};

const char *counter_name(enum counter counter)
{
    return names[counter];
}

enum counter counter_find(const char *name, size_t size)
{
    unsigned i = 0;
    while (i < COUNTER_COUNT && (strlen(names[i]) != size || memcmp(names[i], name, size) != 0))
        i++;
    return (enum counter)i;
}
