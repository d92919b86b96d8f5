/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether the memory will do: figures that are read from directories which look like /proc and
 * /sys/fs/cgroup.
 */
#include "master/headroom.h"

#include "ipc/fd.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB (1024ULL * 1024)

static char directory[64], proc[80], cgroups[80];
static struct headroom headroom;
static char text[HEADROOM_TEXT];

/* Makes the directories that it is in. */
static void put(const char *root, const char *name, const char *contents)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0755);
        *slash = '/';
    }
    CLEANUP_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, contents, strlen(contents)), (ssize_t)strlen(contents));
}

static void put_process(int pid, int parent, int group, unsigned pss_kib)
{
    char name[64], line[128];
    snprintf(name, sizeof name, "%d/stat", pid);
    snprintf(line, sizeof line, "%d (a ) b) S %d %d 1 0 -1 0\n", pid, parent, group);
    put(proc, name, line);
    snprintf(name, sizeof name, "%d/smaps_rollup", pid);
    snprintf(
        line, sizeof line, "00400000-7fff [rollup]\nRss: 999999 kB\nPss:  %u kB\nPss_Anon: 7 kB\n", pss_kib);
    put(proc, name, line);
}

/* Of a cgroup of version 2, in MiB. */
static void put_cgroup(const char *cgroup, const char *limit, unsigned current, unsigned inactive)
{
    char name[128], line[64];
    snprintf(name, sizeof name, "%s/memory.max", cgroup);
    put(cgroups, name, limit);
    snprintf(name, sizeof name, "%s/memory.current", cgroup);
    snprintf(line, sizeof line, "%llu\n", current * MIB);
    put(cgroups, name, line);
    snprintf(name, sizeof name, "%s/memory.stat", cgroup);
    snprintf(line, sizeof line, "anon 1\ninactive_file %llu\nactive_file 3\n", inactive * MIB);
    put(cgroups, name, line);
}

static int set_up(void **state)
{
    snprintf(directory, sizeof directory, "/tmp/gapless-headroom-XXXXXX");
    assert_non_null(mkdtemp(directory));
    snprintf(proc, sizeof proc, "%s/proc", directory);
    snprintf(cgroups, sizeof cgroups, "%s/cgroup", directory);
    put(proc, "meminfo", "MemTotal: 9000000 kB\nMemAvailable:    2097152 kB\n");
    put(proc, "self/cgroup", "0::/system.slice/web.service\n");
    mkdir(cgroups, 0755);
    return 0;
}

static int tear_down(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command);
}

static void look(void)
{
    static const pid_t workers[] = {100, 200};
    headroom_read(proc, cgroups, workers, 2, &headroom);
}

static void assert_available(uint64_t mib, const char *whose)
{
    look();
    if (!headroom.available.known)
        fail_msg("%s", headroom.available.what);
    assert_int_equal(headroom.available.bytes / MIB, mib);
    if (!*whose)
        assert_string_equal(headroom.available.what, "");
    else if (!strstr(headroom.available.what, whose))
        fail_msg("%s", headroom.available.what);
}

/* ── the workers ── */

static void test_descendants_and_the_group_count(void **state)
{
    put_process(100, 1, 100, 1);
    put_process(101, 100, 50, 10); /* a child, in another group */
    put_process(99, 101, 50, 100); /* a grandchild */
    put_process(200, 1, 200, 1000);
    put_process(201, 1, 200, 10000); /* left by its parent */
    put_process(300, 1, 300, 100000);
    look();
    assert_true(headroom.have.known);
    assert_int_equal(headroom.have.bytes, 11111 * 1024ULL);
}

static void test_rss_is_taken_where_pss_is_not_readable(void **state)
{
    char name[128];
    put_process(100, 1, 100, 1);
    snprintf(name, sizeof name, "%s/100/smaps_rollup", proc);
    unlink(name);
    put(proc, "100/status", "Name: x\nVmRSS:\t    2048 kB\n");
    put_process(200, 1, 200, 1024);
    look();
    assert_true(headroom.have.known);
    assert_int_equal(headroom.have.bytes, 3 * MIB);
}

static void test_without_workers_nothing_is_known(void **state)
{
    headroom_read(proc, cgroups, NULL, 0, &headroom);
    assert_false(headroom.have.known);
    assert_true(headroom.available.known);
    assert_int_equal(headroom_judge(&headroom, 0, 2, text), HEADROOM_UNKNOWN);
    assert_string_equal(
        text, "what another generation needs is not known (no generation serves), 2.0 GiB available");
}

/* ── what is available ── */

static void test_without_limits_it_is_the_host(void **state)
{
    assert_available(2048, "");
    put_cgroup("system.slice", "max\n", 5000, 0);
    assert_available(2048, "");
    put(proc, "self/cgroup", "");
    assert_available(2048, "");
}

static void test_limit_of_the_cgroup_and_of_those_above(void **state)
{
    put_cgroup("system.slice/web.service", "1073741824\n", 900, 100);
    assert_available(224, "cgroup/system.slice/web.service");
    put_cgroup("system.slice", "524288000\n", 450, 50);
    assert_available(100, "cgroup/system.slice");
    put_cgroup(".", "104857600\n", 50, 0); /* a container's */
    assert_available(50, "/cgroup");
}

static void test_limit_that_is_exceeded_leaves_nothing(void **state)
{
    put_cgroup("system.slice", "1048576\n", 5, 1);
    assert_available(0, "system.slice");
}

static void test_cgroup_that_is_out_of_sight_is_the_root(void **state)
{
    put_cgroup(".", "104857600\n", 40, 0);
    put(proc, "self/cgroup", "0::/docker/no-such\n");
    assert_available(60, "/cgroup");
    put(proc, "self/cgroup", "0::/../../other\n");
    assert_available(60, "/cgroup");
    put(proc, "self/cgroup", "0::/\n");
    assert_available(60, "/cgroup");
}

static void test_version_one(void **state)
{
    put(proc, "self/cgroup", "5:cpu:/x\n4:hugetlb,memory:/web\n0::/\n");
    put(cgroups, "memory/memory.limit_in_bytes", "9223372036854771712\n");
    put(cgroups, "memory/web/memory.limit_in_bytes", "104857600\n");
    put(cgroups, "memory/web/memory.usage_in_bytes", "83886080\n");
    put(cgroups, "memory/web/memory.stat", "inactive_file 1\ntotal_inactive_file 10485760\n");
    assert_available(30, "cgroup/memory/web");
}

static void test_what_cannot_be_read_is_not_guessed(void **state)
{
    char name[128];
    put_cgroup("system.slice", "1073741824\n", 900, 100);
    snprintf(name, sizeof name, "%s/system.slice/memory.current", cgroups);
    unlink(name);
    look();
    assert_false(headroom.available.known);
    assert_non_null(strstr(headroom.available.what, "memory.current"));
    assert_int_equal(headroom_judge(&headroom, 2, 2, text), HEADROOM_UNKNOWN);
    assert_non_null(strstr(text, "what is available is not known (cannot read "));
    put(proc, "meminfo", "MemTotal: 9000000 kB\n"); /* Linux < 3.14 */
    look();
    assert_false(headroom.available.known);
}

/* ── the verdict ── */

static void test_verdict_scales_by_the_number_of_workers(void **state)
{
    struct headroom is = {
        .have = {.known = true, .bytes = 120 * MIB}, .available = {.known = true, .bytes = 240 * MIB}};
    assert_int_equal(headroom_judge(&is, 2, 2, text), HEADROOM_ENOUGH);
    assert_string_equal(text, "two generations need about 120 MiB more, 240 MiB available");
    assert_int_equal(headroom_judge(&is, 2, 4, text), HEADROOM_ENOUGH);
    assert_int_equal(headroom_judge(&is, 2, 5, text), HEADROOM_SHORT);
    snprintf(is.available.what, sizeof is.available.what, "/sys/fs/cgroup/x");
    assert_int_equal(headroom_judge(&is, 120, 1, text), HEADROOM_ENOUGH);
    assert_string_equal(text,
        "two generations need about 1.0 MiB more, 240 MiB available (by the limit of /sys/fs/cgroup/x)");
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(test_descendants_and_the_group_count),
        CASE(test_rss_is_taken_where_pss_is_not_readable),
        CASE(test_without_workers_nothing_is_known),
        CASE(test_without_limits_it_is_the_host),
        CASE(test_limit_of_the_cgroup_and_of_those_above),
        CASE(test_limit_that_is_exceeded_leaves_nothing),
        CASE(test_cgroup_that_is_out_of_sight_is_the_root),
        CASE(test_version_one),
        CASE(test_what_cannot_be_read_is_not_guessed),
        CASE(test_verdict_scales_by_the_number_of_workers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
