/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/account.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <stdlib.h>

int account_number(const char *text, unsigned *ret_id)
{
    char *end;
    errno = 0;
    unsigned long id = strtoul(text, &end, 10);
    if (errno || end == text || *end || id >= UINT_MAX)
        return -EINVAL;
    *ret_id = (unsigned)id;
    return 0;
}

int account_group(const char *text, gid_t *ret_gid)
{
    const struct group *group = getgrnam(text);
    if (group)
        *ret_gid = group->gr_gid;
    return group || account_number(text, ret_gid) == 0 ? 0 : -ENOENT;
}
