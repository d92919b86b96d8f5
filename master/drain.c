/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/drain.h"

void drain_begin(struct drain *drain, int64_t now_us)
{
    *drain = (struct drain){.began_us = now_us, .idle_since_us = -1};
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* How long nothing has been written. A drain that has just begun counts as a write: what the worker accepted
 * in that moment it may not have read yet. */
static int64_t quiet_for_us(const struct drain *drain, const struct tracker_look *look, int64_t now_us)
{
    int64_t draining = now_us - drain->began_us;
    return look->last_write_us_ago < 0 ? draining : earlier(draining, look->last_write_us_ago);
}

/* Like a verdict of its own: 0 is "stop", anything else when to look again. */
static int64_t wait_until(struct drain *drain, const struct drain_settings *settings,
    const struct tracker_look *look, int64_t now_us)
{
    if (!look->known || look->busy || look->unread || look->unsent) {
        drain->idle_since_us = -1;
        return now_us + DRAIN_LOOK_US;
    }
    int64_t quiet = quiet_for_us(drain, look, now_us);
    if (quiet < settings->quiet_us) {
        drain->idle_since_us = -1;
        return now_us + settings->quiet_us - quiet;
    }
    if (!look->connections)
        return 0;
    if (drain->idle_since_us < 0)
        drain->idle_since_us = now_us;
    if (settings->idle_grace_us < 0)
        return now_us + DRAIN_LOOK_US;
    int64_t left = settings->idle_grace_us - (now_us - drain->idle_since_us);
    return left <= 0 ? 0 : now_us + earlier(left, DRAIN_LOOK_US);
}

struct drain_step drain_decide(struct drain *drain, const struct drain_settings *settings,
    const struct tracker_look *look, int64_t now_us)
{
    int64_t look_at = wait_until(drain, settings, look, now_us);
    if (!look_at)
        return (struct drain_step){.verdict = DRAIN_STOP};
    if (!settings->timeout_us)
        return (struct drain_step){.verdict = DRAIN_WAIT, .look_at_us = look_at};
    int64_t end = drain->began_us + settings->timeout_us;
    if (now_us >= end)
        return (struct drain_step){.verdict = DRAIN_TIMEOUT};
    return (struct drain_step){.verdict = DRAIN_WAIT, .look_at_us = earlier(look_at, end)};
}
