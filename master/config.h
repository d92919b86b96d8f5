/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The configuration: what `gapless run` was told by flags or by a YAML file, checked and with its defaults.
 *
 * One table (config/schema.c) is the schema, the defaults, the flags and the manual: a key `drain.timeout` of
 * a service is the flag `--drain-timeout`. Reading a configuration opens nothing and starts nothing: whether
 * an address is free or a user exists shows when it is used.
 *
 * A `struct config` is immutable and counted: a generation holds the one that it was started from.
 */
#ifndef GAPLESS_MASTER_CONFIG_H
#define GAPLESS_MASTER_CONFIG_H

#include "ipc/error.h"
#include "master/listener_spec.h"
#include "master/log.h"
#include "master/upgrade_phase.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/types.h>

enum config_restart { RESTART_ALWAYS, RESTART_ON_FAILURE, RESTART_NO, RESTART_COUNT };

enum config_activation {
    ACTIVATION_AUTO,    /* LISTEN_FDS and SERVER_STARTER_PORT */
    ACTIVATION_EINHORN, /* these and EINHORN_* */
    ACTIVATION_NONE,    /* native workers and {fd:NAME} only: nothing is inherited unless it is named */
    ACTIVATION_COUNT
};

/* Whether addresses that the workers bind themselves become listeners (capture/capture.h). */
enum config_capture {
    CAPTURE_AUTO, /* where it works, and the service doesn't name the descriptors that it is given */
    CAPTURE_ON,   /* it must work, and nothing is opened in advance */
    CAPTURE_OFF,
    CAPTURE_COUNT
};

enum config_answer { ANSWER_NO, ANSWER_YES, ANSWER_COUNT };

enum config_log { LOG_TEXT, LOG_JSON, LOG_FORMAT_COUNT };

/* Which tracker says what the workers have in flight. */
enum config_tracker {
    CONFIG_TRACKER_AUTO, /* ebpf where it works, else sock_diag */
    CONFIG_TRACKER_EBPF,
    CONFIG_TRACKER_SOCK_DIAG,
    CONFIG_TRACKER_COUNT
};

/* How generations share an address (steering.h). */
enum config_steering {
    CONFIG_STEERING_AUTO, /* the best that works */
    CONFIG_STEERING_EBPF,
    CONFIG_STEERING_CBPF,
    CONFIG_STEERING_PATH,
    CONFIG_STEERING_SHARED,
    CONFIG_STEERING_COUNT
};

/* What a connection is like, by which a tracker tells whether something is in flight on it. */
enum config_protocol {
    PROTOCOL_HTTP1,        /* from a request's arrival until it is answered */
    PROTOCOL_SERVER_FIRST, /* the same, and from the accept until the server has spoken */
    PROTOCOL_STREAM,       /* as long as it is open */
    PROTOCOL_COUNT
};

/* What happens to a worker that hasn't drained by drain_timeout_ms. */
enum config_on_timeout {
    ON_TIMEOUT_KILL, /* stop signal, then SIGKILL */
    ON_TIMEOUT_KEEP, /* it lives on until its connections end */
    ON_TIMEOUT_COUNT
};

/* Whether clients of kept connections are told to close by the kernel. */
enum config_keepalive {
    CONFIG_KEEPALIVE_AUTO, /* where it can be */
    CONFIG_KEEPALIVE_OFF,
    CONFIG_KEEPALIVE_COUNT
};

/* Which set of defaults a service begins with (schema.c). */
enum config_preset { PRESET_DEFAULT, PRESET_DEVELOPMENT, PRESET_PRODUCTION, PRESET_COUNT };

/* What happens where the memory won't do for two generations. */
/* Whether the state of native workers goes to the next version (transfer.h). */
enum config_transfer { CONFIG_TRANSFER_AUTO, CONFIG_TRANSFER_OFF, CONFIG_TRANSFER_COUNT };

/* What is done where a roll-back by itself would lose what the new version has changed. */
enum config_loss { CONFIG_LOSS_REFUSE, CONFIG_LOSS_ACCEPT, CONFIG_LOSS_COUNT };

enum config_memory { CONFIG_MEMORY_WARN, CONFIG_MEMORY_REFUSE, CONFIG_MEMORY_OFF, CONFIG_MEMORY_COUNT };

/* A stage of a canary: so much of what is new, for so long. */
struct config_stage {
    uint32_t share;       /* of 2^32 */
    unsigned percent_100; /* the same in hundredths of a percent, 1 to 9999: as it was written */
    int64_t ms;
};

/* An operator's own step of an upgrade (steps.h), of which a service has at most STEPS_MAX. */
#define STEPS_MAX 64

struct config_step {
    enum upgrade_phase phase;
    bool after;         /* else before it */
    char *name;         /* "before switch 1": its point, and its number there, for people */
    char **run;         /* NULL-terminated, at least one */
    char **undo;        /* the same, or NULL: nothing is to be undone */
    int64_t timeout_ms; /* of run, and of undo */
};

struct config_rlimit {
    int resource; /* RLIMIT_… */
    struct rlimit limit;
};

struct config_service {
    char *name;
    char **command; /* NULL-terminated, at least one */
    unsigned workers;
    struct listener_spec *listeners;
    size_t listener_count;
    char *user;   /* NULL: the master's */
    char *group;  /* NULL: the user's */
    char *cwd;    /* NULL: the master's */
    char **env;   /* NAME=VALUE, NULL-terminated; added to the master's environment */
    mode_t umask; /* (mode_t)-1: the master's */
    bool nice_set;
    int nice; /* -20 to 19 */
    struct config_rlimit *rlimits;
    size_t rlimit_count;
    char *
        *capabilities; /* NULL: not said; else exactly these are kept ("net_bind_service"), NULL-terminated */
    enum config_activation activation;
    enum config_capture capture;
    enum config_protocol protocol; /* of the listeners that don't say their own: config_protocol_of() */
    enum config_steering steering; /* of the listeners that don't say their own: config_steering_of() */
    int64_t ready_alive_ms;        /* -1: not said; else ready once alive for so long (not verified) */
    char *ready_probe;             /* probe_spec.h; NULL: none, the workers say it themselves */
    int64_t ready_timeout_ms;
    enum config_answer ready_listen; /* a captured worker is ready when it listens everywhere */
    int drain_signal; /* 0: none named: a native worker hears a message, another one the stop signal */
    int64_t drain_timeout_ms; /* 0: none */
    int64_t drain_quiet_ms;   /* an unmodified worker's last write must be so long ago before it is drained */
    int64_t drain_idle_grace_ms; /* for idle connections once nothing is in flight; -1: until the timeout */
    enum config_keepalive drain_keepalive;
    enum config_on_timeout drain_on_timeout;
    int stop_signal;
    int64_t stop_grace_ms; /* from the stop signal to SIGKILL */
    enum config_restart restart;
    int64_t
        backoff_initial_ms; /* first delay before a crashed worker is started again; doubles, with jitter */
    int64_t backoff_max_ms;
    int64_t backoff_reset_ms; /* a worker that lived so long begins anew */

    /* ── upgrades (upgrade.h) ── */
    enum config_preset preset;
    enum config_memory check_memory;
    char **check;             /* must end with 0 before anything is started; NULL: none */
    int64_t check_timeout_ms; /* of everything that is validated */
    char **smoke;             /* smoke.h's tests, NULL-terminated; NULL: none */
    int64_t smoke_timeout_ms; /* of all of them together */
    struct config_stage *canary;
    size_t canary_count;      /* 0: none */
    int64_t observe_ms;       /* 0: no observation window */
    unsigned observe_crashes; /* as many crashes of new workers in it (and in the canary) roll back */
    struct config_step *steps;
    size_t step_count;

    /* ── state (transfer.h) ── */
    enum config_transfer state_transfer;
    enum config_loss rollback_loss;
    int64_t state_stall_ms;  /* nothing of a snapshot moves for so long: it has failed */
    int64_t state_freeze_ms; /* from the freeze to the switch, at most */

    /* ── liveness (health.h, limits.h) ── */
    char *health_probe; /* probe_spec.h; NULL: none */
    int64_t health_interval_ms;
    int64_t health_timeout_ms;   /* of one probe */
    unsigned health_failures;    /* as many in a row are a failure */
    unsigned drain_max_draining; /* with as many old generations an upgrade is refused, a SIGHUP waits */
    int64_t watchdog_ms;         /* a worker must say WATCHDOG=1 at least so often; 0: it needn't */
    uint64_t recycle_requests;   /* a worker that has answered so many is replaced; 0: never */
    int64_t recycle_age_ms;      /* … that is so old; 0: never */
    uint64_t recycle_memory;     /* … that has so much, in bytes; 0: never */
    int64_t drain_max_age_ms;    /* a worker that drains (on_timeout: keep) for longer is ended; 0: no cap */
    uint64_t drain_max_memory;   /* draining generations that have more than that together: the oldest is
                                    ended; 0: no cap */

    /* ── vault (vault.h) ── */
    uint64_t vault_bytes;   /* most bytes of the files there */
    unsigned vault_entries; /* most descriptors there; 0: there is no vault */

    uint64_t said[2]; /* the keys that were written, a bit each: config_is_said() */
};

struct config {
    unsigned references;
    char *name; /* of this instance; default: the base name of the first service's command, or `name:` */
    char *admin_path;      /* NULL: not said (the default follows from the name) */
    char *pid_file;        /* NULL: none */
    char *history;         /* a path, or "off"; NULL: not said (the default follows from the name) */
    uint64_t history_size; /* bytes of one of its two files */
    enum config_log log;
    enum log_level log_level; /* the least that is logged */
    enum config_tracker tracker;
    char *file; /* the -c FILE, NULL: flags alone */
    char *yaml; /* its text as read, NUL-terminated; NULL: flags alone */
    struct config_service *services;
    size_t service_count;
};

/* What the command line asks for apart from running. */
enum config_action {
    CONFIG_RUN,
    CONFIG_HELP, /* --help: print config_help() */
};

/* Reads the arguments of `gapless run` (without "gapless run" itself) and the file that -c names.
 * yaml: NULL: read the file; else its text from an earlier reading, so that a restarted master gets the same.
 * On success the caller owns one reference of *ret_config (NULL where *ret_action isn't CONFIG_RUN).
 * Errors: EINVAL (BLAME_USER: flag, or file:line:column, key, reason, near spelling) and what opening the
 * file gave. Messages don't begin with the program's name, which is for who prints them. Scans by
 * getopt_long(3): not for two threads at once. */
int config_load(int argc, char *const argv[], const char *yaml, struct config **ret_config,
    enum config_action *ret_action, struct error *error);

struct config *config_ref(struct config *config);
/* NULL is allowed. */
void config_unref(struct config *config);

/* The service of that name, or NULL. */
const struct config_service *config_find(const struct config *config, const char *name);

/* The protocol of one of the service's listeners: its own, else the service's. */
enum config_protocol config_protocol_of(
    const struct config_service *service, const struct listener_spec *listener);

/* An argument or a value of the environment names descriptors: {fd:NAME}, {fds:SEPARATOR}. */
bool config_names_descriptors(const struct config_service *service);

/* The key ("observe.window") was written in the file or on the command line. */
bool config_is_said(const struct config_service *service, const char *path);

/* How one of the service's listeners is to be steered: its own word, else the service's. A service's word
 * that doesn't fit the kind of address is AUTO. */
enum config_steering config_steering_of(
    const struct config_service *service, const struct listener_spec *listener);

/* Prints the flags of `run`, with their defaults, from the table. */
void config_help(FILE *out);

/* Prints the same table as a page of Markdown: every key, flag, default and meaning (docs/configuration.md).
 */
void config_manual(FILE *out);

#endif
