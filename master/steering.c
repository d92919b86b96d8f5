/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/steering.h"

#include "master/unix_path_watch.h"

#include <stddef.h>

const char *steering_tier_name(enum steering_tier tier)
{
    static const char *const names[STEERING_TIER_COUNT] = {"ebpf", "cbpf", "path", "shared"};
    return (unsigned)tier < STEERING_TIER_COUNT ? names[tier] : "?";
}

unsigned steering_abilities(enum steering_tier tier)
{
    static const unsigned abilities[STEERING_TIER_COUNT] = {
        [STEERING_EBPF] =
            STEERING_CAN_GO_BACK | STEERING_CAN_SHARE | STEERING_CAN_PROBE | STEERING_CAN_MIGRATE,
        [STEERING_CBPF] = STEERING_CAN_GO_BACK | STEERING_CAN_SHARE,
        [STEERING_PATH] = STEERING_CAN_GO_BACK | STEERING_CAN_PROBE,
    };
    return (unsigned)tier < STEERING_TIER_COUNT ? abilities[tier] : 0;
}

static void open_watch(struct steering *steering)
{
    if (unix_path_watch_new(&steering->watch, NULL) < 0)
        steering->watch = NULL;
}

void steering_open(struct steering *steering)
{
    open_watch(steering);
    if (steer_open(NULL, &steering->steer, &steering->missing) < 0)
        steering->steer = NULL;
}

void steering_adopt(struct steering *steering, struct fd_list *fds)
{
    open_watch(steering);
    if (steer_adopt(fds, &steering->steer, &steering->missing) < 0)
        steering->steer = NULL;
}

void steering_close(struct steering *steering)
{
    steer_close(steering->steer);
    unix_path_watch_free(steering->watch);
    steering->watch = NULL;
    steering->steer = NULL;
}
