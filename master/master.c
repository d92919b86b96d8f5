/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/master.h"

#include "bpf/waiting.h"
#include "ipc/fd.h"
#include "master/admin.h"
#include "master/admin_path.h"
#include "master/clock.h"
#include "master/command.h"
#include "master/history.h"
#include "master/history_events.h"
#include "master/keepalive.h"
#include "master/limits.h"
#include "master/log.h"
#include "master/path_guard.h"
#include "master/pid_file.h"
#include "master/requests.h"
#include "master/service.h"
#include "master/state.h"
#include "master/tracking.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

/* How long the keeper may take to give back its store, and to take what the master says last. */
#define KEEPER_TIMEOUT_MS 10000
/* How long the end waits for the history, at most: for the disk. */
#define HISTORY_TIMEOUT_MS 2000

#define EXIT_OK 0
#define EXIT_FAILED 1
#define EXIT_USAGE 2

/* ── what follows from changes ── */

void master_changed(struct master *master)
{
    if (!master->ended)
        event_active(master->settle, EV_TIMEOUT, 0);
}

/* Undos may run longer than the workers. */
static bool has_ended(const struct service *service)
{
    return service->upgrade.state == UPGRADE_STOPPED && !service->generations;
}

static void free_removed(struct master *master)
{
    for (struct service **link = &master->services; *link;) {
        struct service *service = *link;
        if (!service->removed || !has_ended(service)) {
            link = &service->next;
            continue;
        }
        *link = service->next;
        log_event(LOG_INFO, "service removed", LOG_S("service", service->name));
        service_free(service);
    }
}

/* Says the last words. What is sent now is what the operator and the service manager see. */
static void end(struct master *master, int code)
{
    master->ended = true;
    log_event(LOG_INFO, "ended", LOG_I("code", code));
    history_stopped(master, code);
    requests_stopped(master);
    admin_close(master->admin);
    master->admin = NULL;
    pid_file_remove(master->config->pid_file, master->main_pid);
    struct error error = {.code = 0};
    if (!master->keeper_lost &&
        (keeper_link_finish(master->keeper, code, &error) < 0 ||
            keeper_link_flush_blocking(master->keeper, KEEPER_TIMEOUT_MS, &error) < 0))
        log_event(LOG_ERROR, "the keeper was not told of the end", LOG_S("reason", error.message));
    history_finish(master->history, HISTORY_TIMEOUT_MS);
    event_base_loopbreak(master->base);
}

static void end_if_all_have(struct master *master)
{
    int code = EXIT_OK;
    for (const struct service *service = master->services; service; service = service->next) {
        if (!has_ended(service))
            return;
        if (service->finished && service->exit_code > code)
            code = service->exit_code;
    }
    end(master, master->stopping ? EXIT_OK : code);
}

static void on_settle(evutil_socket_t fd, short what, void *ctx)
{
    struct master *master = ctx;
    if (master->ended)
        return;
    free_removed(master);
    path_guard_look(master->path_guard);
    master_announce(master);
    vaulting_saved(master, master_save(master));
    history_saved(master->history);
    end_if_all_have(master);
}

/* ── operators ── */

struct service *master_find(const struct master *master, const char *name)
{
    for (struct service *service = master->services; service; service = service->next)
        if (!service->removed && strcmp(service->name, name) == 0)
            return service;
    return NULL;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static void open_log(const struct config *config)
{
    log_open(config->log == LOG_JSON);
    log_set_level(config->log_level);
}

int master_read_config(const struct master *master, struct config **ret_config, struct error *error)
{
    enum config_action action;
    return config_load(master->argc, master->argv, NULL, ret_config, &action, error);
}

int master_reload(struct master *master, struct error *error)
{
    struct config *config;
    int r = master_read_config(master, &config, error);
    if (r < 0)
        return r;
    if (!same_text(config->name, master->config->name) ||
        !same_text(config->admin_path, master->config->admin_path) ||
        !same_text(config->pid_file, master->config->pid_file) ||
        !same_text(config->history, master->config->history) ||
        config->history_size != master->config->history_size || config->tracker != master->config->tracker)
        log_event(LOG_WARNING,
            "name, admin, pid_file, history, history_size and tracker change only with a new start");
    open_log(config);
    config_unref(master->config);
    master->config = config;
    return 0;
}

static struct service *add_service(struct master *master, const char *name)
{
    struct service *service = service_new(master, name);
    struct service **end_of_list = &master->services;
    while (*end_of_list)
        end_of_list = &(*end_of_list)->next;
    *end_of_list = service;
    return service;
}

/* Services that the configuration has and the master doesn't. */
static void start_new(struct master *master)
{
    for (size_t i = 0; i < master->config->service_count; i++) {
        const char *name = master->config->services[i].name;
        if (master_find(master, name))
            continue;
        struct error error = {.code = ENOMEM, .message = "out of memory"};
        struct service *service = add_service(master, name);
        if (service && service_start(service, &error) == 0)
            continue;
        log_event(LOG_ERROR, "service could not be started", LOG_S("service", name),
            LOG_S("reason", error.message));
        if (service) {
            service->removed = true;
            service_stop(service);
        }
    }
}

void master_hangup(struct master *master, const struct history_who *who)
{
    struct error error = {.code = 0};
    if (master->stopping)
        return;
    if (master_reload(master, &error) < 0) {
        log_event(LOG_ERROR, "configuration refused, nothing changes", LOG_S("reason", error.message));
        history_refused(master, NULL, who, error.message);
        return;
    }
    for (struct service *service = master->services; service; service = service->next) {
        if (service->removed)
            continue;
        if (config_find(master->config, service->name)) {
            service_hangup(service, who);
        } else {
            service->removed = true;
            service_stop(service);
        }
    }
    start_new(master);
    master_changed(master);
}

void master_stop(struct master *master, const struct history_who *who, const char *why)
{
    if (master->stopping)
        return;
    master->stopping = true;
    master->stopped_ms = clock_monotonic_ms();
    master->stopped_by = *who;
    snprintf(master->stop_reason, sizeof master->stop_reason, "%s", why);
    log_event(LOG_INFO, "stopping", LOG_S("reason", why));
    if (!master->keeper_lost)
        master_notify(master, "STOPPING=1\nSTATUS=draining");
    for (struct service *service = master->services; service; service = service->next)
        service_stop(service);
    master_changed(master);
}

void master_quit(struct master *master, const struct history_who *who, const char *why)
{
    master_stop(master, who, why);
    master->stopped_by = *who;
    snprintf(master->stop_reason, sizeof master->stop_reason, "%s", why);
    log_event(LOG_WARNING, "ending at once: requests in flight are cut", LOG_S("reason", why));
    for (struct service *service = master->services; service; service = service->next)
        service_kill(service);
}

/* ── start ── */

static int make_events(struct master *master, struct error *error)
{
    master->settle = event_new(master->base, -1, 0, on_settle, master);
    if (!master->settle || master_watch_keeper(master) < 0 || master_watch_itself(master) < 0)
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    return 0;
}

/* The admin socket that the last master had, or a new one. Without a path that was asked for the service runs
 * all the same: it is only less comfortable. */
static int open_admin(struct master *master, struct error *error)
{
    struct admin_path_context context;
    char path[ADMIN_PATH_MAX];
    bool asked;
    admin_path_context_get(&context);
    int r = admin_path_for_master(
        &context, master->config->admin_path, master->config->name, path, &asked, error);
    if (r < 0)
        return r;
    struct keeper_entry *kept = keeper_link_take(master->keeper, "admin");
    if (kept)
        master->admin = admin_adopt(master->base, &kept->fds, path, &requests_ops, master, error);
    keeper_entry_free(kept);
    if (!master->admin)
        master->admin = admin_open(master->base, path, &requests_ops, master, error);
    if (!master->admin && (asked || error->code == EADDRINUSE))
        return -error->code;
    if (!master->admin)
        log_event(LOG_WARNING, "no admin socket: gapless status, upgrade and stop can't reach this master",
            LOG_S("reason", error->message));
    else
        master_store(master, "admin", 0, admin_fds(master->admin), ADMIN_FD_COUNT);
    return 0;
}

static void store_socket(void *ctx, uint64_t id, int fd)
{
    char name[32];
    snprintf(name, sizeof name, "listener/%" PRIu64, id);
    master_store(ctx, name, 0, &fd, 1);
}

static void forget_socket(void *ctx, uint64_t id)
{
    char name[32];
    snprintf(name, sizeof name, "listener/%" PRIu64, id);
    master_forget(ctx, name);
}

void master_keep_steering(struct master *master)
{
    unsigned count = 0;
    const int *fds = master->steering.steer ? steer_fds(master->steering.steer, &count) : NULL;
    if (count > master->steering_kept)
        master_store(master, "steering", 0, fds, count);
    master->steering_kept = count;
}

/* What isn't there is said where it is missed. */
static void open_steering(struct master *master)
{
    struct keeper_entry *kept = keeper_link_take(master->keeper, "steering");
    master->steering.store = store_socket;
    master->steering.forget = forget_socket;
    master->steering.ctx = master;
    if (kept) {
        steering_adopt(&master->steering, &kept->fds);
        keeper_entry_free(kept);
        if (master->steering.steer)
            steer_fds(master->steering.steer, &master->steering_kept);
    } else {
        steering_open(&master->steering);
        master_keep_steering(master);
    }
    if (waiting_open(&master->waiting, NULL) < 0)
        master->waiting = NULL;
    master->path_guard = path_guard_new(master->base, &master->steering);
}

static int start_services(struct master *master, struct error *error)
{
    for (size_t i = 0; i < master->config->service_count; i++) {
        struct service *service = add_service(master, master->config->services[i].name);
        int r =
            service ? service_start(service, error) : error_set(error, ENOMEM, BLAME_OURS, "out of memory");
        if (r < 0)
            return r;
    }
    return 0;
}

static int start_first(struct master *master, struct error *error)
{
    open_log(master->config);
    master->started_at_ms = clock_realtime_ms();
    master->history = history_open(master);
    int r = open_admin(master, error);
    if (r == 0 && master->config->pid_file)
        r = pid_file_write(master->config->pid_file, master->main_pid, error);
    if (r == 0)
        r = tracking_open(master, error);
    if (r < 0)
        return r;
    master->keepalive = keepalive_open(master);
    open_steering(master);
    return start_services(master, error);
}

/* Exits that were not told to the last master. */
static void tell_restored_exits(struct master *master)
{
    for (bool found = true; found;) {
        found = false;
        for (struct service *s = master->services; s && !found; s = s->next)
            for (struct generation *g = s->generations; g && !found; g = g->next)
                for (struct worker *w = g->workers; w && !found; w = w->next)
                    if (w->restored_exit && worker_is_alive(w)) {
                        found = true;
                        worker_exited(w, w->restored_status);
                    }
    }
}

/* Processes that a master started and died before it had saved that: they wait for their release and end by
 * themselves. */
static void drop_unknown(struct master *master)
{
    struct error error = {.code = 0};
    keeper_link_drop_rest(master->keeper, "", &error);
}

static int start_again(struct master *master, struct keeper_entry *state, struct error *error)
{
    CLEANUP_FD int fd = fd_list_take(&state->fds, 0);
    open_steering(master);
    int r = state_restore(master, fd, error);
    if (r < 0)
        return r;
    open_log(master->config);
    log_event(LOG_WARNING, "the master was restarted and goes on",
        LOG_U("start", keeper_link_starts(master->keeper)));
    history_restarted(master);
    r = open_admin(master, error);
    if (r < 0)
        return r;
    vaulting_drop_unknown(master);
    drop_unknown(master);
    tell_restored_exits(master);
    for (struct service *service = master->services; service; service = service->next)
        service_resume(service);
    return 0;
}

static int read_config(struct master *master, bool *ret_help, struct error *error)
{
    enum config_action action;
    int r = config_load(master->argc, master->argv, NULL, &master->config, &action, error);
    *ret_help = r == 0 && action == CONFIG_HELP;
    return r;
}

static int start(struct master *master, bool *ret_help, struct error *error)
{
    int r = keeper_link_restore(master->keeper, KEEPER_TIMEOUT_MS, error);
    if (r == 0)
        r = make_events(master, error);
    if (r == 0 && !(master->limits = limits_open(master)))
        r = error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    if (r < 0)
        return r;
    struct keeper_entry *state = keeper_link_take(master->keeper, "state");
    if (state) {
        r = start_again(master, state, error);
        keeper_entry_free(state);
    } else {
        r = read_config(master, ret_help, error);
        if (r == 0 && !*ret_help)
            r = start_first(master, error);
        if (r == 0 && !*ret_help)
            history_started(master);
        if (r == 0)
            drop_unknown(master);
    }
    if (r < 0 || *ret_help)
        return r;
    master_keeper_sent(
        master, keeper_link_serving(master->keeper, master->config->log == LOG_JSON, error), error);
    master_changed(master);
    return 0;
}

static void free_event(struct event *event)
{
    if (event)
        event_free(event);
}

static void release(struct master *master)
{
    master->ended = true; /* nothing follows from what is freed now */
    for (struct service *service = master->services, *next; service; service = next) {
        next = service->next;
        service_free(service);
    }
    admin_close(master->admin);
    path_guard_free(master->path_guard);
    steering_close(&master->steering);
    waiting_close(master->waiting);
    keepalive_close(master->keepalive);
    limits_close(master->limits);
    tracking_close(master->tracking);
    history_close(master->history);
    free_event(master->keeper_read);
    free_event(master->keeper_write);
    free_event(master->settle);
    free_event(master->watchdog);
    free_event(master->orphaned);
    keeper_link_close(master->keeper);
    config_unref(master->config);
    if (master->base) {
        command_forget_all(master->base);
        event_base_free(master->base);
    }
    libevent_global_shutdown();
}

static int fail(struct master *master, const struct error *error)
{
    fprintf(stderr, "gapless: %s\n", error->message);
    /* A file of ours is at that path only if it was written: pid_file_remove() looks. */
    if (master->config)
        pid_file_remove(master->config->pid_file, master->main_pid);
    return !master->config && error->blame == BLAME_USER ? EXIT_USAGE : EXIT_FAILED;
}

/* Timers to the microsecond: a drain's stop signal has its moment (drain.h). */
static struct event_base *make_base(void)
{
    struct event_config *config = event_config_new();
    if (!config)
        return NULL;
    event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

int master_main(int channel_fd, int run_argc, char *const run_argv[])
{
    struct master master = {.argc = run_argc, .argv = run_argv, .main_pid = getppid()};
    struct error error = {.code = 0};
    bool help = false;
    int code = EXIT_OK;
    prctl(PR_SET_NAME, "gapless-master"); /* executed by descriptor, it would be called by its number */
    (void)!getrandom(&master.random, sizeof master.random, GRND_NONBLOCK);
    master.random |= 1;
    master.base = make_base();
    int r = master.base ? keeper_link_open(&channel_fd, &master.keeper, &error)
                        : error_set(&error, ENOMEM, BLAME_OURS, "out of memory");
    if (r == 0)
        r = start(&master, &help, &error);
    if (r < 0)
        code = fail(&master, &error);
    else if (help)
        config_help(stdout);
    else
        event_base_dispatch(master.base);
    release(&master);
    return code;
}
