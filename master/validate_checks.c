/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/validate_checks.h"

#include "ipc/fd.h"
#include "master/child.h"
#include "master/config.h"
#include "master/forked.h"
#include "master/headroom.h"
#include "master/pin.h"
#include "master/program.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void send_packet(int fd, const struct validate_packet *packet)
{
    while (send(fd, packet, sizeof *packet, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

static __attribute__((format(printf, 3, 4))) void say(
    int fd, enum validate_packet_kind kind, const char *format, ...)
{
    struct validate_packet packet = {.kind = kind};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(packet.error.message, sizeof packet.error.message, format, arguments);
    va_end(arguments);
    send_packet(fd, &packet);
}

/* Of a script that was replaced, say: a worker that crashes, or a rollback, would run what is there now. */
static void look_at_serving(const struct validate_request *request, int fd)
{
    struct pin_change change;
    say(fd, VALIDATE_LOOKING, "the files of the version that serves");
    if (pin_is_lost(request->serving, &change))
        say(fd, VALIDATE_FOUND_WARNING, "generation %" PRIu64 " can't be started again as it was: %s %s",
            request->from, pin_change_path(request->serving, &change), pin_lost_text(change.kind));
}

/* Before the user changes, who may not look into all of the processes. */
static int check_memory(const struct validate_request *request, int fd, struct error *error)
{
    struct headroom headroom;
    char text[HEADROOM_TEXT];
    if (request->service->check_memory == CONFIG_MEMORY_OFF)
        return 0;
    say(fd, VALIDATE_LOOKING, "the memory");
    headroom_read("/proc", "/sys/fs/cgroup", request->workers, request->worker_count, &headroom);
    enum headroom_verdict verdict =
        headroom_judge(&headroom, request->worker_count, request->new_workers, text);
    if (verdict == HEADROOM_SHORT && request->service->check_memory == CONFIG_MEMORY_REFUSE)
        return error_set(error, ENOMEM, BLAME_SYSTEM,
            "too little memory: %.300s (check_memory: warn goes on all the same)", text);
    bool refused_if_known =
        verdict == HEADROOM_UNKNOWN && request->service->check_memory == CONFIG_MEMORY_REFUSE;
    say(fd, verdict == HEADROOM_SHORT || refused_if_known ? VALIDATE_FOUND_WARNING : VALIDATE_FOUND_NOTE,
        "%s: %.450s", verdict == HEADROOM_SHORT ? "too little memory" : "memory", text);
    return 0;
}

/* As the master, which has made the digests. */
static int check_pin(const struct pin *pin, int fd, struct error *error)
{
    struct pin_change change;
    say(fd, VALIDATE_LOOKING, "the files that are pinned");
    if (!pin_is_lost(pin, &change))
        return 0;
    return error_set(error, ESTALE, BLAME_USER, "%s %s: the version can't be started again as it was",
        pin_change_path(pin, &change), pin_lost_text(change.kind));
}

static int enter(const struct validate_request *request, int fd, struct error *error)
{
    const char *cwd = request->service->cwd;
    char real[PATH_MAX];
    say(fd, VALIDATE_LOOKING, "the directory %s", cwd ? cwd : ".");
    int r = request->pin ? pin_enter(request->pin, error) : child_enter(request->service, error);
    if (r < 0 || !cwd)
        return r;
    if (request->pin && pin_is_homeless(request->pin))
        say(fd, VALIDATE_FOUND_WARNING, "the directory %s was removed: what %s leads to is entered",
            request->pin->directory_path, cwd);
    say(fd, VALIDATE_FOUND_NOTE, "directory %s", getcwd(real, sizeof real) ? real : cwd);
    return 0;
}

/* As spawn_make()'s child would find it. */
static int find_program(
    const struct validate_request *request, struct program *ret_program, struct error *error)
{
    const char *name = request->service->command[0], *path = NULL;
    int r = request->pin ? pin_find(request->pin, &path) : 0;
    if (!request->pin || (r == -EACCES && !strchr(name, '/')))
        return program_find(name, program_path(request->service->env), ret_program, error);
    if (r < 0)
        return error_set(error, -r, BLAME_USER,
            "cannot execute %s: permission denied (is it executable for that user?)", name);
    if (path)
        return program_find(path, NULL, ret_program, error);
    r = program_check(request->pin->fds[PIN_EXECUTABLE], request->pin->resolved, ret_program, error);
    if (r == 0)
        snprintf(ret_program->path, sizeof ret_program->path, "%s (what is pinned: its path leads elsewhere)",
            request->pin->resolved);
    return r;
}

static int check_program(const struct validate_request *request, int fd, struct error *error)
{
    struct program program;
    say(fd, VALIDATE_LOOKING, "the executable %s", request->service->command[0]);
    int r = find_program(request, &program, error);
    if (r < 0)
        return r;
    say(fd, VALIDATE_FOUND_NOTE, "executable %.200s%s%.200s", program.path,
        program.interpreter[0] ? ", interpreter " : "", program.interpreter);
    if (program.doubt[0])
        say(fd, VALIDATE_FOUND_WARNING, "%.200s may not be executable: %s", program.path, program.doubt);
    return 0;
}

static int become(const struct validate_request *request, int fd, struct error *error)
{
    const struct config_service *service = request->service;
    if (service->user || service->group)
        say(fd, VALIDATE_LOOKING, "the name service, for its user and group");
    int r = child_become(service, error);
    forked_die_with_master();
    if (r == 0 && service->user)
        say(fd, VALIDATE_FOUND_NOTE, "user %s%s%s", service->user, service->group ? ", group " : "",
            service->group ? service->group : "");
    return r;
}

static int check(const struct validate_request *request, int fd, struct error *error)
{
    int r = check_memory(request, fd, error);
    if (r == 0 && request->pin)
        r = check_pin(request->pin, fd, error);
    if (r == 0 && request->serving)
        look_at_serving(request, fd);
    if (r == 0)
        r = become(request, fd, error);
    if (r == 0)
        r = enter(request, fd, error);
    return r < 0 ? r : check_program(request, fd, error);
}

_Noreturn void validate_checks(const struct validate_request *request, int fd)
{
    const struct pin *pin = request->pin, *serving = request->serving;
    const int keep[] = {fd, pin ? pin->fds[PIN_EXECUTABLE] : -1, pin ? pin->fds[PIN_DIRECTORY] : -1,
        serving ? serving->fds[PIN_EXECUTABLE] : -1, serving ? serving->fds[PIN_DIRECTORY] : -1};
    struct validate_packet end = {.kind = VALIDATE_VALID};
    prctl(PR_SET_NAME, "gapless-check");
    forked_isolate(keep, sizeof keep / sizeof *keep);
    if (check(request, fd, &end.error) < 0)
        end.kind = VALIDATE_FAILED;
    send_packet(fd, &end);
    _exit(0);
}
