/* SPDX-License-Identifier: BSD-2-Clause */
/* Users and groups, as operators write them: by name, or by number. */
#ifndef GAPLESS_MASTER_ACCOUNT_H
#define GAPLESS_MASTER_ACCOUNT_H

#include <sys/types.h>

/* A number that stands for a user or a group. 0 or -EINVAL: it is none. */
int account_number(const char *text, unsigned *ret_id);

/* The group of that name, or else of that number. 0 or -ENOENT. */
int account_group(const char *text, gid_t *ret_gid);

#endif
