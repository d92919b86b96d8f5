/* SPDX-License-Identifier: BSD-2-Clause */
/* What an operator can do about what the host refuses. */
#ifndef GAPLESS_CLI_DOCTOR_RIGHTS_H
#define GAPLESS_CLI_DOCTOR_RIGHTS_H

#include "cli/doctor/finding.h"

#include <sys/capability.h>

#define RIGHTS_MOST 3

/* What a finding about BPF needs, and what there is without. */
struct rights_bpf {
    const cap_value_t *needed; /* RIGHTS_MOST of them at most */
    size_t count;
    const char *kernel;    /* "Linux 5.14 or later" */
    const char *otherwise; /* "without, …" */
};

/* Of a finding about BPF that failed with the (positive) code. */
void rights_advise_bpf(struct finding *finding, int code, const struct rights_bpf *bpf);

/* Of a finding for which an address on loopback was needed: that, where it is the reason, else `otherwise`.
 */
void rights_advise_network(struct finding *finding, int code, const char *otherwise);

/* Whether this runs in a user namespace other than the first: capabilities count there only for what belongs
 * to it. */
bool rights_in_user_namespace(void);

#endif
