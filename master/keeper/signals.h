/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The signals of the main process: all of them blocked, those that mean something read from a signalfd, in
 * the keeper.
 *
 * Forwarded: HUP INT QUIT TERM USR1 USR2 TTIN TTOU. CHLD wakes the loop and is swallowed. TSTP stays
 * deliverable, so that Ctrl-Z gives the terminal back (the service goes on, and `bg` or `fg` continues the
 * keeper); the faults do as well.
 *
 * A closed terminal sends HUP too. It is told from an operator's: there was a controlling terminal when the
 * process started, and the signal comes from the kernel or /dev/tty can't be opened any more. Where HUP was
 * ignored when the process started (nohup), one from the kernel means nothing and the others are an
 * operator's.
 */
#ifndef GAPLESS_MASTER_KEEPER_SIGNALS_H
#define GAPLESS_MASTER_KEEPER_SIGNALS_H

#include "ipc/error.h"

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

struct main_signal {
    int number;
    pid_t sender; /* 0: the kernel */
    uid_t sender_uid;
    bool hangup; /* a HUP because the controlling terminal has gone */
    bool again;  /* a master was told of it before */
};

struct signals {
    int fd;
    bool had_terminal;
    bool nohup;
    struct main_signal remembered[NSIG]; /* number 0: none of that number */
};

/* Blocks the signals and opens the signalfd. Resets CHLD, which would reap by itself if it came ignored
 * through exec. */
int signals_open(struct signals *signals, struct error *error);

void signals_close(struct signals *signals);

/* The next forwarded signal. False: there is none now. */
bool signals_read(struct signals *signals, struct main_signal *ret_signal);

/* Keeps a signal for later, the latest of each number. */
void signals_remember(struct signals *signals, const struct main_signal *signal);

/* Takes a remembered one. False: none is left. */
bool signals_recall(struct signals *signals, struct main_signal *ret_signal);

/* True if it asks for the end: TERM, INT, QUIT, or a HUP of a terminal that has gone. */
bool signals_is_stop(const struct main_signal *signal);

/* In a child that will be the master: all dispositions at their defaults, and blocked only what goes to the
 * whole foreground process group or to the main process by mistake: the forwarded ones, TSTP, PIPE. */
void signals_set_for_master(void);

#endif
