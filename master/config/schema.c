/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/schema.h"

#include "master/config/value.h"
#include "master/upgrade_phase.h"

#include <assert.h>
#include <string.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))
#define INSTANCE(member) .scope = SCOPE_INSTANCE, .offset = offsetof(struct config, member)
#define STEP(member) .scope = SCOPE_STEP, .offset = offsetof(struct config_step, member)
#define SERVICE(member) .scope = SCOPE_SERVICE, .offset = offsetof(struct config_service, member)

#define SECOND INT64_C(1000)
#define MEBIBYTE (INT64_C(1) << 20)
#define HOUR (3600 * SECOND)
#define DAY (24 * HOUR)

static const char *const log_choices[LOG_FORMAT_COUNT + 1] = {[LOG_TEXT] = "text", [LOG_JSON] = "json"};
static const char *const restart_choices[RESTART_COUNT + 1] = {
    [RESTART_ALWAYS] = "always", [RESTART_ON_FAILURE] = "on-failure", [RESTART_NO] = "no"};
static const char *const activation_choices[ACTIVATION_COUNT + 1] = {
    [ACTIVATION_AUTO] = "auto", [ACTIVATION_EINHORN] = "einhorn", [ACTIVATION_NONE] = "none"};
static const char *const capture_choices[CAPTURE_COUNT + 1] = {
    [CAPTURE_AUTO] = "auto", [CAPTURE_ON] = "on", [CAPTURE_OFF] = "off"};
static const char *const answer_choices[ANSWER_COUNT + 1] = {[ANSWER_NO] = "no", [ANSWER_YES] = "yes"};
static const char *const level_choices[LOG_LEVEL_COUNT + 1] = {
    [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARNING] = "warning", [LOG_ERROR] = "error"};
static const char *const tracker_choices[CONFIG_TRACKER_COUNT + 1] = {
    [CONFIG_TRACKER_AUTO] = "auto", [CONFIG_TRACKER_EBPF] = "ebpf", [CONFIG_TRACKER_SOCK_DIAG] = "sock_diag"};
static const char *const on_timeout_choices[ON_TIMEOUT_COUNT + 1] = {
    [ON_TIMEOUT_KILL] = "kill", [ON_TIMEOUT_KEEP] = "keep"};
static const char *const keepalive_choices[CONFIG_KEEPALIVE_COUNT + 1] = {
    [CONFIG_KEEPALIVE_AUTO] = "auto", [CONFIG_KEEPALIVE_OFF] = "off"};
static const char *const preset_choices[PRESET_COUNT + 1] = {
    [PRESET_DEFAULT] = "default", [PRESET_DEVELOPMENT] = "development", [PRESET_PRODUCTION] = "production"};
static const char *const memory_choices[CONFIG_MEMORY_COUNT + 1] = {
    [CONFIG_MEMORY_WARN] = "warn", [CONFIG_MEMORY_REFUSE] = "refuse", [CONFIG_MEMORY_OFF] = "off"};
static const char *const transfer_choices[CONFIG_TRANSFER_COUNT + 1] = {
    [CONFIG_TRANSFER_AUTO] = "auto", [CONFIG_TRANSFER_OFF] = "off"};
static const char *const loss_choices[CONFIG_LOSS_COUNT + 1] = {
    [CONFIG_LOSS_REFUSE] = "refuse", [CONFIG_LOSS_ACCEPT] = "accept"};

/* The order is that of the manual; formatted by hand, so that a row can be read. */
/* clang-format off */
static const struct config_key keys[] = {
    {.flag = "config", .letter = 'c', .scope = SCOPE_COMMAND_LINE, .type = TYPE_TEXT, .argument = "FILE",
        .help = "read the services from a YAML file, at the start and at each SIGHUP"},
    {.flag = "help", .letter = 'h', .scope = SCOPE_COMMAND_LINE, .type = TYPE_SWITCH,
        .help = "print this and exit"},
    {.path = "name", .flag = "name", INSTANCE(name), .type = TYPE_NAME, .unset = "the command's base name",
        .argument = "NAME",
        .help = "name of this instance; without -c also of its service"},
    {.path = "admin", .flag = "admin", INSTANCE(admin_path), .type = TYPE_TEXT, .maximum = 107,
        .unset = "GAPLESS_ADMIN, else NAME.sock in /run/gapless as root, in $XDG_RUNTIME_DIR/gapless or /tmp/gapless-UID else",
        .argument = "PATH",
        .help = "path of the admin socket"},
    {.path = "pid_file", .flag = "pid-file", INSTANCE(pid_file), .type = TYPE_TEXT, .unset = "none",
        .argument = "PATH",
        .help = "file that gets the main pid"},
    {.path = "history", .flag = "history", INSTANCE(history), .type = TYPE_TEXT, .maximum = 4000,
        .unset = "NAME.history.jsonl in /var/lib/gapless as root, in $XDG_STATE_HOME/gapless or "
                 "~/.local/state/gapless else",
        .argument = "PATH",
        .help = "file that gets a line for each upgrade, crash, refusal, start and stop; off: none"},
    {.path = "history_size", .flag = "history-size", INSTANCE(history_size), .type = TYPE_SIZE, .fallback = "4M",
        .minimum = 16384, .maximum = INT64_C(1) << 40, .argument = "SIZE",
        .help = "size at which the history's file becomes FILE.1, in the place of the one before"},
    {.path = "log", .flag = "log", INSTANCE(log), .type = TYPE_CHOICE, .fallback = "text",
        .choices = log_choices, .argument = "FORM",
        .help = "form of the log on standard error"},
    {.path = "log_level", .flag = "log-level", INSTANCE(log_level), .type = TYPE_CHOICE, .fallback = "info",
        .choices = level_choices, .argument = "LEVEL",
        .help = "least severe level that is logged"},
    {.path = "tracker", .flag = "tracker", INSTANCE(tracker), .type = TYPE_CHOICE, .fallback = "auto",
        .choices = tracker_choices, .argument = "HOW",
        .help = "how requests in flight are seen: ebpf counts them in the kernel as they happen, sock_diag "
                "asks the kernel while something drains, auto is ebpf where it works and else sock_diag"},
    {.path = "services", INSTANCE(services), .type = TYPE_SERVICES, .maximum = 64, .argument = "NAME: {…}",
        .help = "the services by name, at least one"},
    {.path = "command", SERVICE(command), .type = TYPE_COMMAND, .maximum = 4096, .argument = "COMMAND",
        .help = "the program and its arguments: a list, or one string that is split at blanks by the "
                "shell's quoting rules without any expansion; on the command line it follows the flags"},
    {.path = "preset", .flag = "preset", SERVICE(preset), .type = TYPE_CHOICE, .fallback = "default",
        .choices = preset_choices, .argument = "WHICH",
        .help = "set of defaults that all else begins with: development has no observation window and short "
                "deadlines, production longer ones"},
    {.path = "listen", .flag = "listen", .letter = 'l', SERVICE(listeners), .type = TYPE_LISTENERS,
        .maximum = 256, .unset = "none", .argument = "SPEC",
        .help = "address to serve; may be given more than once"},
    {.path = "workers", .flag = "workers", .letter = 'n', SERVICE(workers), .type = TYPE_NUMBER,
        .fallback = "1", .minimum = 1, .maximum = 1024, .argument = "N",
        .help = "number of workers"},
    {.path = "user", .flag = "user", SERVICE(user), .type = TYPE_ACCOUNT, .unset = "gapless's own",
        .argument = "USER",
        .help = "user of the workers, by name or number"},
    {.path = "group", .flag = "group", SERVICE(group), .type = TYPE_ACCOUNT, .unset = "the user's",
        .argument = "GROUP",
        .help = "group of the workers, by name or number"},
    {.path = "cwd", .flag = "cwd", SERVICE(cwd), .type = TYPE_TEXT, .unset = "gapless's own",
        .argument = "DIR",
        .help = "working directory of the workers"},
    {.path = "env", .flag = "env", SERVICE(env), .type = TYPE_ENVIRONMENT, .maximum = 1024,
        .unset = "nothing added", .argument = "NAME=VALUE",
        .help = "added to the environment; may be given more than once"},
    {.path = "umask", .flag = "umask", SERVICE(umask), .type = TYPE_MODE, .unset = "gapless's own",
        .argument = "OCTAL",
        .help = "file mode creation mask of the workers"},
    {.path = "nice", .flag = "nice", SERVICE(nice), .type = TYPE_NICE, .minimum = -20, .maximum = 19,
        .unset = "gapless's own", .argument = "N",
        .help = "scheduling priority of the workers"},
    {.path = "rlimits", .flag = "rlimit", SERVICE(rlimits), .type = TYPE_RLIMITS, .maximum = 16,
        .unset = "gapless's own", .argument = "NAME=SOFT[:HARD]",
        .help = "resource limit, such as nofile=65536; may be given more than once"},
    {.path = "capabilities", .flag = "capabilities", SERVICE(capabilities), .type = TYPE_CAPABILITIES,
        .maximum = 64, .unset = "what user and program give", .argument = "A,B",
        .help = "keep exactly these, such as net_bind_service; an empty list keeps none"},
    {.path = "activation", .flag = "activation", SERVICE(activation), .type = TYPE_CHOICE,
        .fallback = "auto", .choices = activation_choices, .argument = "HOW",
        .help = "how listeners are inherited: auto is LISTEN_FDS and SERVER_STARTER_PORT, einhorn is "
                "these and EINHORN_FD_*, none is only what the command names by {fd:NAME}"},
    {.path = "capture", .flag = "capture", SERVICE(capture), .type = TYPE_CHOICE, .fallback = "auto",
        .choices = capture_choices, .argument = "HOW",
        .help = "whether addresses that the workers bind themselves become listeners: on takes nothing else and fails "
                "where it can't be, off is for servers that take what they are given, auto does both where it works, "
                "and is off where {fd:NAME}, {fds:} or activation einhorn says so; without a listen every TCP port is "
                "one, with it those that are named"},
    {.path = "protocol", .flag = "protocol", SERVICE(protocol), .type = TYPE_CHOICE, .fallback = "http1",
        .choices = value_protocols, .argument = "KIND",
        .help = "what is in flight on a connection: http1 is what was asked and isn't answered, server-first "
                "is the same and the wait for the server's first word, stream is the whole connection; a "
                "listener may say its own"},
    {.path = "steering", .flag = "steering", SERVICE(steering), .type = TYPE_CHOICE, .fallback = "auto",
        .choices = value_steerings, .argument = "HOW",
        .help = "how generations share an address: ebpf (TCP, UDP), cbpf (TCP) and path (Unix) give each one sockets "
                "of its own and move the traffic in one step, shared gives all the same socket, auto is the best "
                "that works; holds for the listeners that it fits, and a listener may say its own"},
    {.path = "ready.alive", .flag = "ready-alive", SERVICE(ready_alive_ms), .type = TYPE_DURATION,
        .minimum = 1, .maximum = DAY, .unset = "the worker must say so", .argument = "TIME",
        .help = "count a worker as ready once it has lived so long, for servers that can't say so"},
    {.path = "ready.probe", .flag = "ready-probe", SERVICE(ready_probe), .type = TYPE_TEXT,
        .unset = "the worker must say so", .argument = "PROBE",
        .help = "ask the new generation, alone, on its public address until it answers: tcp is a connection that is "
                "accepted, http:/PATH a status of 200 to 399; with NAME= before it on that listener, else on the "
                "first that can be asked; takes steering by ebpf, or a Unix path; one answer makes all workers of the "
                "generation ready"},
    {.path = "ready.listen", .flag = "ready-listen", SERVICE(ready_listen), .type = TYPE_CHOICE, .fallback = "yes",
        .choices = answer_choices, .argument = "ANSWER",
        .help = "whether a worker that binds its own addresses is ready when it listens; no is for servers that listen "
                "before they can serve, and say READY=1 or are probed"},
    {.path = "ready.timeout", .flag = "ready-timeout", SERVICE(ready_timeout_ms), .type = TYPE_DURATION,
        .fallback = "30s", .development = "10s", .production = "60s", .maximum = DAY, .argument = "TIME",
        .help = "a new generation that isn't ready by then has failed; 0: wait for ever"},
    {.path = "check", .flag = "check", SERVICE(check), .type = TYPE_COMMAND, .maximum = 4096, .unset = "none",
        .argument = "COMMAND",
        .help = "command that must end with 0 before an upgrade starts anything, such as \"nginx -t\": a list or one "
                "string, as command; it runs as the workers do"},
    {.path = "check_timeout", .flag = "check-timeout", SERVICE(check_timeout_ms), .type = TYPE_DURATION,
        .fallback = "30s", .minimum = 1, .maximum = DAY, .argument = "TIME",
        .help = "time for all that is checked before an upgrade starts anything, the command included"},
    {.path = "check_memory", .flag = "check-memory", SERVICE(check_memory), .type = TYPE_CHOICE, .fallback = "warn",
        .choices = memory_choices, .argument = "WHAT",
        .help = "what happens where the memory won't do for two generations: warn goes on, refuse ends the upgrade "
                "before anything is started, off doesn't look"},
    {.path = "smoke", .flag = "smoke", SERVICE(smoke), .type = TYPE_TEXTS, .maximum = 32, .unset = "none",
        .argument = "TEST",
        .help = "test of the new generation, alone, before it gets traffic: what ready.probe can be, or run:COMMAND, "
                "which must end with 0; may be given more than once, and the first that fails ends the upgrade"},
    {.path = "smoke_timeout", .flag = "smoke-timeout", SERVICE(smoke_timeout_ms), .type = TYPE_DURATION,
        .fallback = "30s", .minimum = 1, .maximum = DAY, .argument = "TIME",
        .help = "time for all these tests together"},
    {.path = "canary", .flag = "canary", SERVICE(canary), .type = TYPE_CANARY, .maximum = 16, .unset = "none",
        .argument = "STAGES",
        .help = "share of what is new that the new generation gets before it gets all of it, and for how long: "
                "\"5% 30s, 25% 1m\"; at most 16 stages, each with a larger share than the one before"},
    {.path = "observe.window", .flag = "observe-window", SERVICE(observe_ms), .type = TYPE_DURATION,
        .fallback = "5s", .development = "0", .production = "60s", .maximum = DAY, .argument = "TIME",
        .help = "how long the old generation stays able to take the traffic back after the switch, and a new one that "
                "turns out bad is rolled back by itself; 0: not at all"},
    {.path = "observe.crashes", .flag = "observe-crashes", SERVICE(observe_crashes), .type = TYPE_NUMBER,
        .fallback = "3", .minimum = 1, .maximum = 1000, .argument = "N",
        .help = "as many crashes of new workers, in the window and the canary together, roll back"},
    {.path = "state.transfer", .flag = "state-transfer", SERVICE(state_transfer), .type = TYPE_CHOICE,
        .fallback = "auto", .choices = transfer_choices, .argument = "WHEN",
        .help = "whether the state of native workers, and their connections, go to the next version: auto (what they "
                "say that they have), or off (it begins with none)"},
    {.path = "state.stall", .flag = "state-stall", SERVICE(state_stall_ms), .type = TYPE_DURATION,
        .fallback = "10s", .minimum = 100, .maximum = DAY, .argument = "TIME",
        .help = "an upgrade fails when nothing of the state has moved for so long"},
    {.path = "state.freeze", .flag = "state-freeze", SERVICE(state_freeze_ms), .type = TYPE_DURATION,
        .fallback = "2s", .minimum = 1, .maximum = HOUR, .argument = "TIME",
        .help = "longest pause for the last changes, from the freeze to the switch; then the old version goes on"},
    {.path = "rollback.loss", .flag = "rollback-loss", SERVICE(rollback_loss), .type = TYPE_CHOICE,
        .fallback = "refuse", .choices = loss_choices, .argument = "WHAT",
        .help = "whether a new version that turns out bad, while its workers live, is rolled back though what it has "
                "changed can't go back: refuse (it stays, and that is said), or accept"},
    {.path = "steps", SERVICE(steps), .type = TYPE_STEPS, .maximum = STEPS_MAX, .unset = "none",
        .help = "commands of your own before or after phases of an upgrade: a list of maps, in the file alone; one "
                "that fails before the commit ends the upgrade"},
    {.path = "drain.signal", .flag = "drain-signal", SERVICE(drain_signal), .type = TYPE_SIGNAL,
        .unset = "a message to a native worker, the stop signal to another", .argument = "SIGNAL",
        .help = "signal that makes an old worker finish what it has, such as QUIT for nginx"},
    {.path = "drain.timeout", .flag = "drain-timeout", SERVICE(drain_timeout_ms), .type = TYPE_DURATION,
        .fallback = "30s", .development = "5s", .production = "60s", .maximum = 30 * DAY, .argument = "TIME",
        .help = "time that an old worker has to finish; 0: no end"},
    {.path = "drain.quiet", .flag = "drain-quiet", SERVICE(drain_quiet_ms), .type = TYPE_DURATION,
        .fallback = "1s", .maximum = HOUR, .argument = "TIME",
        .help = "the last write must be at least so long ago before an unmodified worker counts as drained: "
                "a streamed answer has pauses"},
    {.path = "drain.idle_grace", .flag = "drain-idle-grace", SERVICE(drain_idle_grace_ms),
        .type = TYPE_DURATION, .fallback = "5s", .development = "1s", .maximum = 30 * DAY, .never = true,
        .argument = "TIME",
        .help = "how long idle connections may stay open once nothing is in flight; never: they are waited "
                "for until the timeout"},
    {.path = "drain.keepalive", .flag = "drain-keepalive", SERVICE(drain_keepalive), .type = TYPE_CHOICE,
        .fallback = "auto", .choices = keepalive_choices, .argument = "HOW",
        .help = "whether the kernel tells clients of kept connections to close, by \"Connection: close\" in the next "
                "answer of an old worker that isn't native; auto is wherever BPF allows it (TCP, http1, steered), and "
                "the drain signal then waits until they have left or are silent for drain.idle_grace"},
    {.path = "drain.on_timeout", .flag = "drain-on-timeout", SERVICE(drain_on_timeout), .type = TYPE_CHOICE,
        .fallback = "kill", .choices = on_timeout_choices, .argument = "WHAT",
        .help = "what happens to a worker that hasn't drained by drain.timeout: kill is the stop signal, then "
                "SIGKILL; keep lets it live on until its connections end"},
    {.path = "drain.max_draining", .flag = "drain-max-draining", SERVICE(drain_max_draining), .type = TYPE_NUMBER,
        .fallback = "2", .minimum = 1, .maximum = 16, .argument = "N",
        .help = "with as many old generations an upgrade is refused, and one by SIGHUP waits"},
    {.path = "drain.max_age", .flag = "drain-max-age", SERVICE(drain_max_age_ms), .type = TYPE_DURATION, .minimum = 1,
        .maximum = 365 * DAY, .unset = "no cap", .argument = "TIME",
        .help = "a worker that has drained for longer is ended; for drain.on_timeout keep or drain.timeout 0, where "
                "nothing else ends it"},
    {.path = "drain.max_memory", .flag = "drain-max-memory", SERVICE(drain_max_memory), .type = TYPE_SIZE,
        .minimum = MEBIBYTE, .maximum = INT64_C(1) << 50, .unset = "no cap", .argument = "SIZE",
        .help = "the oldest of the generations that drain is ended when together they have more; for drain.on_timeout "
                "keep or drain.timeout 0, where nothing else ends it"},
    {.path = "stop.signal", .flag = "stop-signal", SERVICE(stop_signal), .type = TYPE_SIGNAL,
        .fallback = "TERM", .argument = "SIGNAL",
        .help = "signal that ends a worker"},
    {.path = "stop.grace", .flag = "stop-grace", SERVICE(stop_grace_ms), .type = TYPE_DURATION,
        .fallback = "10s", .development = "2s", .maximum = DAY, .argument = "TIME",
        .help = "time from the stop signal to SIGKILL"},
    {.path = "restart", .flag = "restart", SERVICE(restart), .type = TYPE_CHOICE, .fallback = "always",
        .choices = restart_choices, .argument = "WHEN",
        .help = "whether a worker that ended by itself is started again"},
    {.path = "backoff.initial", .flag = "backoff-initial", SERVICE(backoff_initial_ms),
        .type = TYPE_DURATION, .fallback = "100ms", .minimum = 1, .maximum = HOUR, .argument = "TIME",
        .help = "first delay before that; it doubles from failure to failure"},
    {.path = "backoff.max", .flag = "backoff-max", SERVICE(backoff_max_ms), .type = TYPE_DURATION,
        .fallback = "30s", .development = "5s", .minimum = 1, .maximum = DAY, .argument = "TIME",
        .help = "longest delay"},
    {.path = "backoff.reset", .flag = "backoff-reset", SERVICE(backoff_reset_ms), .type = TYPE_DURATION,
        .fallback = "10s", .minimum = 1, .maximum = DAY, .argument = "TIME",
        .help = "a worker that lived so long begins anew with the first delay"},
    {.path = "health.probe", .flag = "health-probe", SERVICE(health_probe), .type = TYPE_TEXT, .unset = "none",
        .argument = "PROBE",
        .help = "ask a generation that gets traffic, again and again, what ready.probe can ask"},
    {.path = "health.interval", .flag = "health-interval", SERVICE(health_interval_ms), .type = TYPE_DURATION,
        .fallback = "1s", .minimum = 10, .maximum = DAY, .argument = "TIME",
        .help = "time from one such probe to the next"},
    {.path = "health.timeout", .flag = "health-timeout", SERVICE(health_timeout_ms), .type = TYPE_DURATION,
        .fallback = "2s", .minimum = 1, .maximum = DAY, .argument = "TIME",
        .help = "a probe that isn't answered by then has failed"},
    {.path = "health.failures", .flag = "health-failures", SERVICE(health_failures), .type = TYPE_NUMBER,
        .fallback = "3", .minimum = 1, .maximum = 1000, .argument = "N",
        .help = "as many failed probes in a row roll an upgrade back that isn't committed, and else replace the "
                "workers"},
    {.path = "watchdog", .flag = "watchdog", SERVICE(watchdog_ms), .type = TYPE_DURATION, .minimum = 10,
        .maximum = DAY, .unset = "none", .argument = "TIME",
        .help = "a ready worker must say WATCHDOG=1 at least so often, else it is replaced like one that crashed"},
    {.path = "recycle.requests", .flag = "recycle-requests", SERVICE(recycle_requests), .type = TYPE_LONG_NUMBER,
        .minimum = 1, .maximum = INT64_C(1) << 53, .unset = "never", .argument = "N",
        .help = "replace a worker, without a loss, once it has answered so many requests"},
    {.path = "recycle.age", .flag = "recycle-age", SERVICE(recycle_age_ms), .type = TYPE_DURATION, .minimum = SECOND,
        .maximum = 365 * DAY, .unset = "never", .argument = "TIME",
        .help = "the same once it is so old"},
    {.path = "recycle.memory", .flag = "recycle-memory", SERVICE(recycle_memory), .type = TYPE_SIZE,
        .minimum = MEBIBYTE, .maximum = INT64_C(1) << 50, .unset = "never", .argument = "SIZE",
        .help = "the same once it has so much memory"},
    {.path = "vault.entries", .flag = "vault-entries", SERVICE(vault_entries), .type = TYPE_NUMBER,
        .fallback = "512", .maximum = 4096, .argument = "N",
        .help = "most descriptors that are kept for the workers in the vault (FDSTORE=1 of sd_notify, or libgapless); "
                "0: none are"},
    {.path = "vault.bytes", .flag = "vault-bytes", SERVICE(vault_bytes), .type = TYPE_SIZE, .fallback = "256M",
        .maximum = INT64_C(1) << 50, .argument = "SIZE",
        .help = "most bytes that the files there may have together, those in memory included"},
    {.path = "before", STEP(phase), .type = TYPE_PHASE, .choices = upgrade_phase_names,
        .help = "the phase before which it runs; this or after"},
    {.path = "after", STEP(phase), .type = TYPE_PHASE, .choices = upgrade_phase_names,
        .help = "the phase after which it runs"},
    {.path = "run", STEP(run), .type = TYPE_COMMAND, .maximum = 4096,
        .help = "the command: a list or one string; it must end with 0"},
    {.path = "undo", STEP(undo), .type = TYPE_COMMAND, .maximum = 4096, .unset = "nothing is undone",
        .help = "command that takes back what run did, where the upgrade fails later; not where it is final: "
                "after commit, and at retire"},
    {.path = "timeout", STEP(timeout_ms), .type = TYPE_DURATION, .fallback = "60s", .minimum = 1, .maximum = DAY,
        .help = "time of run, and of undo"},
};
/* clang-format on */

static_assert(LENGTH(keys) <= CONFIG_KEYS_MAX, "arrays of rows have room for all");
static_assert(
    CONFIG_KEYS_MAX <= 8 * sizeof((struct config_service){0}.said), "each row has a bit of what was said");

const struct config_key *config_keys(size_t *ret_count)
{
    *ret_count = LENGTH(keys);
    return keys;
}

const struct config_key *config_key_find(enum config_scope scope, const char *path)
{
    for (size_t i = 0; i < LENGTH(keys); i++)
        if (keys[i].scope == scope && keys[i].path && strcmp(keys[i].path, path) == 0)
            return &keys[i];
    return NULL;
}

bool config_key_is_group(enum config_scope scope, const char *path)
{
    size_t length = strlen(path);
    for (size_t i = 0; i < LENGTH(keys); i++)
        if (keys[i].scope == scope && keys[i].path && strncmp(keys[i].path, path, length) == 0 &&
            keys[i].path[length] == '.')
            return true;
    return false;
}

bool config_key_collects(const struct config_key *key)
{
    return config_key_repeats(key) || key->type == TYPE_COMMAND || key->type == TYPE_CAPABILITIES ||
           key->type == TYPE_CANARY;
}

bool config_key_repeats(const struct config_key *key)
{
    return key->type == TYPE_LISTENERS || key->type == TYPE_ENVIRONMENT || key->type == TYPE_RLIMITS ||
           key->type == TYPE_TEXTS;
}

const char *config_key_default(const struct config_key *key, enum config_preset preset)
{
    const char *own = preset == PRESET_DEVELOPMENT  ? key->development
                      : preset == PRESET_PRODUCTION ? key->production
                                                    : NULL;
    return own ? own : key->fallback;
}
