/* SPDX-License-Identifier: BSD-2-Clause */
/* In a build without BPF. */
#include "bpf/farewell.h"

#include <errno.h>
#include <stddef.h>
#include <unistd.h>

static int missing(struct error *error)
{
    return error_set(error, EOPNOTSUPP, BLAME_SYSTEM, "this build has no BPF (-Dbpf=disabled)");
}

int farewell_open(
    const struct tracker *tracker, tracker_fault *fault, struct farewell **ret_farewell, struct error *error)
{
    return missing(error);
}

int farewell_adopt(struct fd_list *fds, struct farewell **ret_farewell, struct error *error)
{
    return missing(error);
}

const int *farewell_fds(const struct farewell *farewell, unsigned *ret_count)
{
    *ret_count = 0;
    return NULL;
}

void farewell_close(struct farewell *farewell)
{
}

void farewell_begin(struct farewell *farewell, unsigned slot)
{
}

void farewell_begin_listener(struct farewell *farewell, unsigned tag)
{
}

void farewell_end(struct farewell *farewell, unsigned slot)
{
}

int farewell_enlist(const struct farewell *farewell, struct error *error)
{
    return missing(error);
}

_Noreturn void farewell_pass(const struct farewell *farewell)
{
    _exit(EOPNOTSUPP);
}

int farewell_recall(const struct farewell *farewell, unsigned *ret_left, struct error *error)
{
    return missing(error);
}

void farewell_count(const struct farewell *farewell, unsigned slot, struct farewell_counts *ret_counts)
{
    *ret_counts = (struct farewell_counts){.enlisted = 0};
}
