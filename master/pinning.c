/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/pinning.h"

#include "ipc/fd.h"
#include "master/arena.h"
#include "master/clock.h"
#include "master/forked.h"
#include "master/generation.h"
#include "master/log.h"
#include "master/master.h"
#include "master/pin.h"
#include "master/program.h"
#include "master/service.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pinning {
    struct generation *generation;
    struct pin *pin;
    struct event *timer;    /* begins a look, after everything that is started at the same time */
    bool look;              /* a worker was started since the last one began */
    int pidfd;              /* of the copy that looks; -1: none does */
    int fd;                 /* … and what it has found, or -1 */
    struct event *readable; /* … */
};

#define GENERATION_FIELDS(generation)                                                                        \
    LOG_S("service", (generation)->service->name), LOG_U("generation", (generation)->id)

static void entry_name(const struct generation *generation, char name[KEEPER_NAME_MAX + 1])
{
    snprintf(name, KEEPER_NAME_MAX + 1, "pin/%s/%" PRIu64, generation->service->name, generation->id);
}

static void look_soon(struct pinning *pinning)
{
    timer_set_us(pinning->timer, 0);
}

/* ── the look, in a copy of the master ── */

static _Noreturn void examine(const struct pinning *pinning, bool look, int fd)
{
    struct pin_findings findings;
    _Static_assert(sizeof findings <= PIPE_BUF, "it is written as a whole");
    const int keep[] = {fd, pinning->pin->fds[PIN_EXECUTABLE], pinning->pin->fds[PIN_DIRECTORY]};
    forked_isolate(keep, sizeof keep / sizeof *keep);
    pin_examine(pinning->pin, look, &findings);
    _exit(write(fd, &findings, sizeof findings) == sizeof findings ? 0 : 1);
}

static void forget_pass(struct pinning *pinning)
{
    if (pinning->readable)
        event_free(pinning->readable);
    pinning->readable = NULL;
    fd_close(&pinning->fd);
    forked_abandon(&pinning->pidfd, pinning->generation->service->master->base);
}

static void not_looked(const struct pinning *pinning, const char *reason)
{
    log_event(LOG_WARNING, "whether files of the version have changed can't be seen now",
        GENERATION_FIELDS(pinning->generation), LOG_S("reason", reason));
}

static void tell(const struct pinning *pinning, const struct pin_change *change)
{
    bool same = change->kind == PIN_ELSEWHERE;
    log_event(same ? LOG_INFO : LOG_WARNING,
        same ? "a worker is started from what is pinned" : "the version can't be started again as it was",
        GENERATION_FIELDS(pinning->generation), LOG_S("file", pin_change_path(pinning->pin, change)),
        LOG_S("reason", pin_change_text(change->kind)));
}

static void on_readable(evutil_socket_t fd, short what, void *ctx)
{
    struct pinning *pinning = ctx;
    struct pin_findings findings;
    ssize_t n = read(fd, &findings, sizeof findings);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    forget_pass(pinning);
    if (n == (ssize_t)sizeof findings) {
        pin_learn(pinning->pin, &findings);
        for (unsigned i = 0; i < findings.change_count; i++)
            tell(pinning, &findings.changes[i]);
        master_changed(pinning->generation->service->master);
    } else {
        not_looked(pinning, "the process that looks was killed");
    }
    if (pinning->look)
        look_soon(pinning);
}

static int begin_pass(struct pinning *pinning, bool look)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    pinning->fd = ends[0];
    int r = forked_begin(&pinning->pidfd);
    if (r == 0)
        examine(pinning, look, ends[1]);
    close(ends[1]);
    if (r < 0)
        return r;
    pinning->readable = event_new(
        pinning->generation->service->master->base, pinning->fd, EV_READ | EV_PERSIST, on_readable, pinning);
    return pinning->readable && event_add(pinning->readable, NULL) == 0 ? 0 : -ENOMEM;
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct pinning *pinning = ctx;
    bool look = pinning->look;
    if (pinning->pidfd >= 0 || (!look && !pin_is_unread(pinning->pin)))
        return; /* the one that is under way is followed by another, if need be */
    pinning->look = false;
    int r = begin_pass(pinning, look);
    if (r == 0)
        return;
    forget_pass(pinning);
    not_looked(pinning, strerror(-r));
}

/* ── generations ── */

/* Takes the pin. */
static bool begin(struct generation *generation, struct pin *pin)
{
    struct pinning *pinning = calloc(1, sizeof *pinning);
    if (pinning) {
        *pinning = (struct pinning){.generation = generation, .pin = pin, .pidfd = -1, .fd = -1};
        pinning->timer = evtimer_new(generation->service->master->base, on_timer, pinning);
    }
    if (!pinning || !pinning->timer) {
        free(pinning);
        pin_free(pin);
        return false;
    }
    generation->pinning = pinning;
    look_soon(pinning);
    return true;
}

static void not_pinned(const struct generation *generation, const char *reason)
{
    log_event(LOG_WARNING, "not pinned: a worker that is started again runs what is there then",
        GENERATION_FIELDS(generation), LOG_S("reason", reason));
}

/* Takes the pin. */
static void hold(struct generation *generation, struct pin *pin)
{
    char name[KEEPER_NAME_MAX + 1];
    if (!begin(generation, pin)) {
        not_pinned(generation, "out of memory");
        return;
    }
    entry_name(generation, name);
    master_store(generation->service->master, name, 0, pin->fds, PIN_PLACE_COUNT);
}

void pinning_make(struct generation *generation)
{
    const struct config_service *settings = generation->settings;
    struct pin_request request = {
        .command = settings->command, .cwd = settings->cwd, .path = program_path(settings->env)};
    struct error error = {.code = 0};
    struct pin *pin = NULL;
    if (pin_make(&request, &pin, &error) == 0)
        hold(generation, pin);
    else if (error.blame != BLAME_USER)
        not_pinned(generation, error.message);
}

void pinning_copy(struct generation *generation, const struct generation *version)
{
    const struct pin *from = pinning_of(version);
    struct pin *pin = NULL;
    int r = from ? pin_copy(from, &pin) : -ENOENT;
    if (r == 0)
        hold(generation, pin);
    else
        not_pinned(generation, from ? strerror(-r) : "the version itself wasn't pinned");
}

const struct pin *pinning_of(const struct generation *generation)
{
    return generation && generation->pinning ? generation->pinning->pin : NULL;
}

const struct pin *pinning_look(struct generation *generation, const char *command)
{
    struct pinning *pinning = generation->pinning;
    if (!pinning || !command || strcmp(command, pinning->pin->command) != 0)
        return NULL;
    pinning->look = true;
    look_soon(pinning);
    return pinning->pin;
}

const char *pinning_path(const struct generation *generation)
{
    return generation->pinning ? generation->pinning->pin->resolved : NULL;
}

void pinning_forget(struct generation *generation)
{
    char name[KEEPER_NAME_MAX + 1];
    if (!generation->pinning)
        return;
    entry_name(generation, name);
    master_forget(generation->service->master, name);
}

void pinning_free(struct pinning *pinning)
{
    if (!pinning)
        return;
    forget_pass(pinning);
    event_free(pinning->timer);
    pin_free(pinning->pin);
    free(pinning);
}

/* ── a later master ── */

static Gapless__State__PinIdentity *save_identity(struct arena *arena, const struct pin_identity *identity)
{
    Gapless__State__PinIdentity *ret = arena_take(arena, 1, sizeof *ret);
    if (!ret)
        return NULL;
    gapless__state__pin_identity__init(ret);
    ret->device = identity->device;
    ret->inode = identity->inode;
    ret->size = identity->size;
    ret->modified_ns = identity->modified_ns;
    return ret;
}

static void save_files(struct arena *arena, const struct pin *pin, Gapless__State__Pin *ret)
{
    ret->files = arena_take(arena, pin->file_count, sizeof *ret->files);
    for (size_t i = 0; ret->files && i < pin->file_count; i++) {
        const struct pin_file *file = &pin->files[i];
        Gapless__State__PinFile *item = arena_take(arena, 1, sizeof *item);
        if (!item)
            return;
        gapless__state__pin_file__init(item);
        item->path = file->path;
        item->identity = save_identity(arena, &file->identity);
        item->looked = save_identity(arena, &file->known.looked);
        item->digest = file->known.digest;
        item->digested = file->known.digested;
        ret->files[ret->n_files++] = item;
    }
}

Gapless__State__Pin *pinning_save(const struct generation *generation, struct arena *arena)
{
    const struct pin *pin = generation->pinning ? generation->pinning->pin : NULL;
    Gapless__State__Pin *ret = pin ? arena_take(arena, 1, sizeof *ret) : NULL;
    if (!ret)
        return NULL;
    gapless__state__pin__init(ret);
    ret->command = pin->command;
    ret->found = pin->places[PIN_EXECUTABLE].path;
    ret->run = pin->run;
    ret->resolved = pin->resolved;
    ret->directory_path = pin->directory_path;
    ret->cwd = pin->places[PIN_DIRECTORY].path ? pin->places[PIN_DIRECTORY].path : (char *)"";
    ret->by_descriptor = pin->by_descriptor;
    ret->directory_told = pin->directory_told;
    ret->executable_looked = save_identity(arena, &pin->places[PIN_EXECUTABLE].looked);
    ret->directory_looked = save_identity(arena, &pin->places[PIN_DIRECTORY].looked);
    save_files(arena, pin, ret);
    return ret;
}

static struct pin_identity restore_identity(const Gapless__State__PinIdentity *from)
{
    return from ? (struct pin_identity){.device = from->device,
                      .inode = from->inode,
                      .size = from->size,
                      .modified_ns = from->modified_ns}
                : (struct pin_identity){.inode = 0};
}

static bool restore_files(struct pin *pin, const Gapless__State__Pin *from)
{
    pin->files = calloc(from->n_files + 1, sizeof *pin->files);
    if (!pin->files || !from->n_files || from->n_files > PIN_FILES_MAX)
        return false;
    for (size_t i = 0; i < from->n_files; i++) {
        const Gapless__State__PinFile *item = from->files[i];
        struct pin_file *file = &pin->files[pin->file_count++];
        *file = (struct pin_file){.path = strdup(item->path),
            .identity = restore_identity(item->identity),
            .known = {.looked = restore_identity(item->looked),
                .digest = item->digest,
                .digested = item->digested,
                .tried = item->digested || (i == 0 && from->by_descriptor)}};
        if (!file->path)
            return false;
    }
    return true;
}

static struct pin *restore(struct keeper_entry *entry, const Gapless__State__Pin *from)
{
    struct pin *pin = calloc(1, sizeof *pin);
    if (!pin)
        return NULL;
    for (unsigned i = 0; i < PIN_PLACE_COUNT; i++)
        pin->fds[i] = fd_list_take(&entry->fds, i);
    pin->directory = pin_identity_of(pin->fds[PIN_DIRECTORY]);
    pin->command = strdup(from->command);
    pin->places[PIN_EXECUTABLE].path = strdup(from->found);
    pin->run = strdup(from->run);
    pin->resolved = strdup(from->resolved);
    pin->directory_path = strdup(from->directory_path);
    bool cwd = *from->cwd != 0;
    pin->places[PIN_DIRECTORY].path = cwd ? strdup(from->cwd) : NULL;
    pin->by_descriptor = from->by_descriptor;
    pin->directory_told = from->directory_told;
    pin->places[PIN_EXECUTABLE].looked = restore_identity(from->executable_looked);
    pin->places[PIN_DIRECTORY].looked = restore_identity(from->directory_looked);
    bool whole = pin->command && pin->places[PIN_EXECUTABLE].path && pin->run && pin->resolved &&
                 pin->directory_path && (!cwd || pin->places[PIN_DIRECTORY].path) &&
                 pin->fds[PIN_EXECUTABLE] >= 0 && pin->fds[PIN_DIRECTORY] >= 0 && restore_files(pin, from);
    if (whole)
        return pin;
    pin_free(pin);
    return NULL;
}

void pinning_restore(struct generation *generation, const Gapless__State__Pin *from)
{
    char name[KEEPER_NAME_MAX + 1];
    entry_name(generation, name);
    if (!from)
        return;
    struct keeper_entry *entry = keeper_link_take(generation->service->master->keeper, name);
    struct pin *pin = entry ? restore(entry, from) : NULL;
    keeper_entry_free(entry);
    if (!pin || !begin(generation, pin))
        not_pinned(generation, "its pin was not kept");
}
