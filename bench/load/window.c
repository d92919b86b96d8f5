/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench/load/window.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void gap_begin(struct gap *gap, uint64_t now_ns)
{
    gap->last_ns = now_ns;
}

void gap_mark(struct gap *gap, uint64_t now_ns)
{
    uint64_t length = now_ns - gap->last_ns;
    if (length > gap->longest_ns) {
        gap->longest_ns = length;
        gap->longest_at_ns = gap->last_ns;
    }
    gap->last_ns = now_ns;
}

int window_set_init(struct window_set *set, uint64_t now_ns)
{
    *set = (struct window_set){.outside = calloc(1, sizeof(struct window))};
    if (!set->outside)
        return -ENOMEM;
    snprintf(set->outside->name, WINDOW_NAME_SIZE, "outside");
    gap_begin(&set->gap, now_ns);
    return 0;
}

void window_set_done(struct window_set *set)
{
    for (unsigned i = 0; i < set->count; i++)
        free(set->windows[i]);
    free(set->outside);
    *set = (struct window_set){0};
}

static struct window *find(const struct window_set *set, const char *name)
{
    for (unsigned i = 0; i < set->count; i++) {
        if (strcmp(set->windows[i]->name, name) == 0)
            return set->windows[i];
    }
    return NULL;
}

static bool name_valid(const char *name)
{
    size_t length = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
    return length > 0 && length < WINDOW_NAME_SIZE && name[length] == '\0' && strcmp(name, "outside") != 0;
}

static int begin(struct window_set *set, const char *name, uint64_t now_ns, struct error *error)
{
    struct window *window = find(set, name);
    if (window && window->open)
        return error_set(error, EINVAL, BLAME_USER, "mark `begin %s`: it is open already", name);
    if (!window) {
        if (set->count == WINDOW_MAX)
            return error_set(
                error, EINVAL, BLAME_USER, "mark `begin %s`: more than %d names", name, WINDOW_MAX);
        window = calloc(1, sizeof(*window));
        if (!window)
            return error_set(error, ENOMEM, BLAME_OURS, "mark `begin %s`: no memory", name);
        snprintf(window->name, WINDOW_NAME_SIZE, "%s", name);
        set->windows[set->count++] = window;
    }
    window->open = true;
    window->times++;
    window->opened_ns = now_ns;
    gap_begin(&window->gap, now_ns);
    return 0;
}

static void close_window(struct window *window, uint64_t now_ns)
{
    window->open = false;
    window->closed_ns = now_ns;
    window->open_ns += now_ns - window->opened_ns;
    gap_mark(&window->gap, now_ns);
}

int window_set_mark(struct window_set *set, const char *line, uint64_t now_ns, struct error *error)
{
    if (set->stopped)
        return 0;
    bool begins = strncmp(line, "begin ", 6) == 0;
    bool ends = strncmp(line, "end ", 4) == 0;
    const char *name = line + (begins ? 6 : 4);
    if ((!begins && !ends) || !name_valid(name))
        return error_set(error, EINVAL, BLAME_USER, "mark `%.80s`: not `begin NAME` or `end NAME`", line);
    if (begins)
        return begin(set, name, now_ns, error);

    struct window *window = find(set, name);
    if (!window || !window->open)
        return error_set(error, EINVAL, BLAME_USER, "mark `end %s`: it isn't open", name);
    close_window(window, now_ns);
    return 0;
}

static void count_in(struct window *window, enum window_event event, uint64_t began_ns, uint64_t now_ns)
{
    if (event == WINDOW_FAILED)
        window->failed++;
    else
        window->answered++;
    if (event == WINDOW_ANSWERED)
        histogram_add(&window->latency, now_ns - began_ns);
}

void window_set_count(struct window_set *set, enum window_event event, uint64_t began_ns, uint64_t now_ns)
{
    bool inside = false;
    if (event == WINDOW_ANSWERED && !set->stopped)
        gap_mark(&set->gap, now_ns);
    for (unsigned i = 0; i < set->count; i++) {
        struct window *window = set->windows[i];
        if (window->open && event == WINDOW_ANSWERED)
            gap_mark(&window->gap, now_ns);
        /* Of several stretches the last one is enough: an earlier one that overlaps the request's life was
         * followed by a later one that began within it. */
        if (window->open || window->closed_ns >= began_ns) {
            count_in(window, event, began_ns, now_ns);
            inside = true;
        }
    }
    if (!inside)
        count_in(set->outside, event, began_ns, now_ns);
}

void window_set_stop(struct window_set *set, uint64_t now_ns)
{
    if (set->stopped)
        return;
    set->stopped = true;
    gap_mark(&set->gap, now_ns);
    for (unsigned i = 0; i < set->count; i++) {
        if (set->windows[i]->open)
            close_window(set->windows[i], now_ns);
    }
}
