/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is tried, on this host and with the rights of whoever asks. Each writes its finding, or several. They
 * may block, start processes and leave them behind: bounded_run() gives each a process of its own.
 */
#ifndef GAPLESS_CLI_DOCTOR_TRIES_H
#define GAPLESS_CLI_DOCTOR_TRIES_H

#include "cli/doctor/finding.h"

typedef void doctor_try(struct findings *findings);

doctor_try try_kernel;
doctor_try try_pidfd;
doctor_try try_open_files;
doctor_try try_capture; /* and no_new_privs */
doctor_try try_steering_ebpf;
doctor_try try_steering_cbpf;
doctor_try try_steering_path;
doctor_try try_tracking_ebpf;
doctor_try try_tracking_sock_diag;
doctor_try try_keepalive;

#endif
