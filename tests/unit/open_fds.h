/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How many descriptors are open, to compare with what it says later: what is made is also ended.
 */
#ifndef GAPLESS_TESTS_OPEN_FDS_H
#define GAPLESS_TESTS_OPEN_FDS_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Its own and the names "." and ".." are counted, too. */
static inline unsigned open_fds(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    assert_non_null(directory);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

#endif
