/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A record of the history, and the line of JSON that it is in the file (docs/history.md). Pure.
 *
 * history_record.c writes, history_record_parse.c reads. A line begins with the version of its schema and its
 * number: {"v":1,"n":17,"time":…}. Both stay in every version; keys are only ever added. The number comes
 * last into being: what stands behind it is the body.
 */
#ifndef GAPLESS_MASTER_HISTORY_RECORD_H
#define GAPLESS_MASTER_HISTORY_RECORD_H

#include "ipc/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HISTORY_VERSION 1
/* Longest line, in bytes, its newline included. A longer one isn't read. */
#define HISTORY_LINE_MAX 16384
#define HISTORY_PHASES_MAX 24
#define HISTORY_STEPS_MAX 64
/* Sizes of texts, their end included. */
#define HISTORY_PHASE_SIZE 16
#define HISTORY_TEXT_SIZE 64
#define HISTORY_COMMAND_SIZE 256

enum history_event {
    HISTORY_START,
    HISTORY_STOP,
    HISTORY_UPGRADE,
    HISTORY_CRASH,
    HISTORY_REFUSED,
    HISTORY_MASTER_RESTARTED,
    HISTORY_RESTART, /* a service's workers, one by one */
    HISTORY_RECYCLE, /* one worker, by its limits */
    HISTORY_OTHER,   /* a later version's: its name is in event_name */
    HISTORY_EVENT_COUNT
};

enum history_outcome {
    HISTORY_NO_OUTCOME,
    HISTORY_DONE,
    HISTORY_FAILED,      /* of an upgrade: before the new generation had any traffic */
    HISTORY_ROLLED_BACK, /* it had some, which went back to the old one */
    HISTORY_OUTCOME_COUNT
};

/* What the new generation of an upgrade is. */
enum history_kind {
    HISTORY_KIND_UPGRADE,
    HISTORY_KIND_ROLLBACK, /* the version before, after the commit */
    HISTORY_KIND_RESTART,  /* the same version */
    HISTORY_KIND_COUNT
};

enum history_step_outcome {
    HISTORY_STEP_DONE,
    HISTORY_STEP_FAILED,
    HISTORY_STEP_UNDONE,
    HISTORY_STEP_UNDO_FAILED,
    HISTORY_STEP_OUTCOME_COUNT
};

/* Who asked: the peer of the admin socket, or the sender of a signal. */
struct history_who {
    bool known;
    char signal[16]; /* "HUP"; "": by the admin socket */
    int64_t uid;     /* -1: not known */
    int64_t pid;     /* 0: not known, or the kernel */
};

struct history_phase {
    char name[HISTORY_PHASE_SIZE];
    int64_t us;
};

struct history_step {
    char name[HISTORY_TEXT_SIZE];
    int64_t us; /* of the step itself, not of its undo */
    enum history_step_outcome outcome;
};

/* So many were lost: requests that workers which crashed had read and not answered; changes of state. */
struct history_lost {
    bool known;
    uint64_t count;
};

/* The state that went to the new generation of an upgrade. */
struct history_transfer {
    bool known;                       /* there was some, and the new generation has loaded it */
    uint64_t records, bytes;          /* that it got */
    uint64_t kept, dropped;           /* of these, such as it doesn't know */
    int64_t snapshot_us;              /* until it had loaded them */
    int64_t pause_us;                 /* from the freeze to the switch; -1: that never came */
    struct history_lost changes_lost; /* that it had made, by the roll-back */
};

/* One side of an upgrade: what its workers called themselves; argv[0], and where it was found. */
struct history_version {
    char version[HISTORY_TEXT_SIZE];
    char command[HISTORY_COMMAND_SIZE];
};

/* bpf/farewell.h's counts, in its order. */
enum history_farewell_count {
    HISTORY_ENLISTED,
    HISTORY_UNLISTABLE,
    HISTORY_ANSWERS,
    HISTORY_OVERWRITTEN,
    HISTORY_INSERTED,
    HISTORY_ALREADY,
    HISTORY_MORE,
    HISTORY_NOT_HTTP,
    HISTORY_TOO_LONG,
    HISTORY_IN_DOUBT,
    HISTORY_FAREWELL_COUNTS
};
struct history_farewell {
    bool known;
    uint64_t counts[HISTORY_FAREWELL_COUNTS];
};

/* What an event doesn't have is zero, or empty. Almost 8 KiB: not for passing by value. */
struct history_record {
    uint64_t number;
    int64_t time_ms; /* CLOCK_REALTIME */
    enum history_event event;
    char event_name[32];
    uint64_t dropped; /* so many records before it could not be kept */
    char service[72];
    struct history_who who;
    char reason[512];

    char version[64];       /* start */
    int64_t pid;            /* start: the main process; master_restarted: the master; crash: the worker */
    int64_t start;          /* master_restarted: which master it is */
    int64_t code;           /* stop */
    enum history_kind kind; /* upgrade */
    uint64_t from, to;      /* upgrade: generations; from 0: none served */
    struct history_version from_version, to_version;
    int64_t started_at_ms;             /* upgrade */
    int64_t ended_at_ms;               /* upgrade */
    enum history_outcome outcome;      /* upgrade, restart */
    char phase[HISTORY_PHASE_SIZE];    /* upgrade: the one in which it ended, where not well */
    struct history_who rolled_back_by; /* upgrade: who asked for that, if somebody did */
    struct history_phase phases[HISTORY_PHASES_MAX];
    size_t phase_count;
    char skipped[HISTORY_PHASES_MAX][HISTORY_PHASE_SIZE]; /* phases that don't apply to the service */
    size_t skipped_count;
    struct history_step steps[HISTORY_STEPS_MAX];
    size_t step_count;
    bool cut;                 /* there were more steps: the first ones aren't there */
    uint64_t crashes;         /* upgrade: of the new generation's workers */
    struct history_lost lost; /* upgrade: by these; crash */
    uint64_t idle_closed;
    struct history_farewell farewell;
    struct history_transfer transfer; /* upgrade */
    uint64_t moved;      /* upgrade: connections that the new generation took over from older ones */
    uint64_t generation; /* crash, restart, recycle */
    uint64_t workers;    /* restart: so many were replaced */
    int64_t worker;      /* crash, recycle: its index */
    char how[128];       /* crash */
    char state[16];      /* crash: what it was before */
};

const char *history_event_name(enum history_event event);
const char *history_outcome_name(enum history_outcome outcome);
const char *history_kind_name(enum history_kind kind);
const char *history_step_outcome_name(enum history_step_outcome outcome);
/* The key of that count. */
const char *history_farewell_name(enum history_farewell_count count);

/* The body of the record's line; the caller's to free. What isn't UTF-8 in a text is replaced. If the line
 * would be too long the first steps are left out, and it says so by "cut"; everything else always fits. NULL:
 * out of memory, or HISTORY_OTHER. */
char *history_record_body(const struct history_record *record);

/* The whole line with its newline; the caller's to free. NULL when out of memory. */
char *history_record_line(uint64_t number, const char *body);

/* Reads a line, without its newline. -EBADMSG: no record, or one with a key of the wrong kind;
 * -EPROTONOSUPPORT: of another version; -ENOMEM. Keys that this version doesn't know are passed over. */
int history_record_parse(
    const char *line, size_t length, struct history_record *ret_record, struct error *error);

/* The number of a line of any version. 0 or -EBADMSG. */
int history_record_number(const char *line, size_t length, uint64_t *ret_number);

/* "2026-01-31T12:00:00.123Z", RFC 3339; and back: 0 or -EBADMSG. */
struct history_time {
    char text[32];
};
struct history_time history_time_text(int64_t ms);
int history_time_parse(const char *text, int64_t *ret_ms);

#endif
