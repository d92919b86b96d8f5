/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What `gapless doctor` found, whether it is enough, and how that is shown: as text and as JSON. Pure, apart
 * from printing. It lives in memory that processes share, so it has no pointers.
 */
#ifndef GAPLESS_CLI_DOCTOR_FINDING_H
#define GAPLESS_CLI_DOCTOR_FINDING_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* In the order in which they are found and shown. */
enum finding_id {
    FINDING_KERNEL,
    FINDING_PIDFD,
    FINDING_OPEN_FILES,
    FINDING_CAPTURE,
    FINDING_NO_NEW_PRIVS,
    FINDING_STEERING_EBPF,
    FINDING_STEERING_CBPF,
    FINDING_STEERING_PATH,
    FINDING_TRACKING_EBPF,
    FINDING_TRACKING_SOCK_DIAG,
    FINDING_KEEPALIVE,
    FINDING_COUNT
};

enum finding_state {
    FINDING_UNKNOWN, /* not tried yet */
    FINDING_OK,
    FINDING_LIMITED, /* works, but not as it does elsewhere */
    FINDING_NO,
    FINDING_STATE_COUNT
};

struct finding {
    enum finding_state state;
    char detail[512];
    char advice[256]; /* what an operator can do; "" where there is nothing to do */
};

struct findings {
    struct finding all[FINDING_COUNT];
};

/* What gapless can't do without, each in one form at least. */
enum finding_need {
    FINDING_NEED_PIDFD,
    FINDING_NEED_CAPTURE,
    FINDING_NEED_STEERING,
    FINDING_NEED_TRACKING,
    FINDING_NEED_COUNT
};

/* "steering_ebpf": in the text and as a key. */
const char *finding_name(enum finding_id id);

/* Sets state and detail; there is no advice then. */
void finding_set(struct finding *finding, enum finding_state state, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void finding_advise(struct finding *finding, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Whether nothing of that kind works. */
bool findings_lack(const struct findings *findings, enum finding_need need);
/* Whether everything that is needed works. */
bool findings_suffice(const struct findings *findings);

/* A line for each finding, its advice below it; a line that sums it up. */
void findings_print(FILE *out, const struct findings *findings);

/* {works, missing[], findings{NAME{state, detail, advice}}}: a new reference; NULL when out of memory. */
json_t *findings_json(const struct findings *findings);

#endif
