/* SPDX-License-Identifier: BSD-2-Clause */
/* A process with a capture filter, and who answers its calls: for the tests of master/capture. */
#ifndef GAPLESS_TESTS_CAPTURE_CHILD_H
#define GAPLESS_TESTS_CAPTURE_CHILD_H

#include "master/capture/filter.h"

#include <stdbool.h>

#define CAPTURE_CHILD_CALLS 16
#define CAPTURE_CHILD_NOBODY 65534

/* What the child is, before it installs the filter. */
struct capture_child {
    bool paths;       /* the filter */
    bool nobody;      /* another user, without capabilities, if root makes it */
    int (*act)(void); /* with the filter in force; what it returns is the exit code */
    int answer;       /* 0: the calls go on; else the negative errno that they get */
    int signal;       /* it gets before each answer; 0: none */
};

/* How often it is asked whether a call still waits, after a signal. */
#define CAPTURE_CHILD_ASKED 1000

/* What became of it. */
struct capture_child_seen {
    int calls[CAPTURE_CHILD_CALLS]; /* that were notified, in their order */
    unsigned call_count;
    bool no_new_privs; /* capture_filter_install() said so */
    bool cloexec;      /* the notifications' descriptor */
    int status;        /* waitpid(2) */
};

/* Starts it, answers until it has ended, at most 10 s; a case that takes longer fails. */
void capture_child_run(const struct capture_child *child, struct capture_child_seen *ret_seen);

#endif
