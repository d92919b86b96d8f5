/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/process_memory.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define BLOCK (32u << 20)

struct world {
    int ready[2]; /* each says so */
    int hold[2];  /* they live until this is closed, at the latest with the test */
};

/* A child that has so much memory of its own, with `children` below one another. */
static pid_t start(struct world *world, int children)
{
    pid_t pid = fork();
    if (pid)
        return pid;
    char *block = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED)
        _exit(1);
    close(world->hold[1]);
    world->hold[1] = -1;
    if (children)
        start(world, children - 1);
    char byte = 1;
    memset(block, byte, BLOCK);
    (void)!write(world->ready[1], &byte, 1);
    (void)!read(world->hold[0], &byte, 1);
    _exit(0);
}

struct beginning {
    struct world *world;
    pid_t pid;
};

static void *start_from_thread(void *ctx)
{
    struct beginning *beginning = ctx;
    beginning->pid = start(beginning->world, 1);
    return NULL;
}

static void what_a_process_has_started_counts(void **unused)
{
    struct world world;
    struct beginning beginning = {.world = &world};
    uint64_t before, with;
    pthread_t thread;
    char byte;
    assert_int_equal(pipe(world.ready) + pipe(world.hold), 0);
    assert_true(process_memory(getpid(), &before));
    assert_true(before > 0);
    assert_int_equal(pthread_create(&thread, NULL, start_from_thread, &beginning), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(read(world.ready[0], &byte, 1), 1);
    assert_true(process_memory(getpid(), &with));
    assert_true(with >= before + 2 * (uint64_t)BLOCK);
    assert_true(process_memory(beginning.pid, &with));
    assert_true(with >= 2 * (uint64_t)BLOCK);
    for (int i = 0; i < 2; i++) {
        close(world.ready[i]);
        close(world.hold[i]);
    }
    assert_int_equal(waitpid(beginning.pid, NULL, 0), beginning.pid);
}

static void no_process_has_none(void **unused)
{
    uint64_t bytes = 7;
    pid_t pid = fork();
    if (!pid)
        _exit(0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_false(process_memory(pid, &bytes));
    assert_int_equal(bytes, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_process_has_started_counts),
        cmocka_unit_test(no_process_has_none),
    };
    return cmocka_run_group_tests_name("process_memory", tests, NULL, NULL);
}
