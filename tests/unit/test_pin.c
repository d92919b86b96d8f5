/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a pin finds, what it executes when names lead elsewhere, and what it tells of files that have changed:
 * in a directory of its own, with children that execute as a worker does.
 */
#include "master/pin.h"

#include "ipc/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct world {
    char directory[64];
    char *command[4];
    struct pin_request request;
    struct pin *pin;
    struct error error;
};

static struct world world;

static const char *at(const char *name)
{
    static char paths[4][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, PATH_MAX, "%s/%s", world.directory, name);
    return path;
}

static void write_file(const char *name, const char *text, mode_t mode)
{
    CLEANUP_FD int fd = open(at(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
}

static void replace(const char *name, const char *text)
{
    write_file("fresh", text, 0755);
    assert_int_equal(rename(at("fresh"), at(name)), 0);
}

/* A binary under another name. */
static void install(const char *name, const char *program)
{
    char command[PATH_MAX * 2];
    snprintf(command, sizeof command, "cp -L /bin/%s %s.new && mv %s.new %s", program, at(name), at(name),
        at(name));
    assert_int_equal(system(command), 0);
}

static void link_to(const char *target, const char *name)
{
    unlink(at(name));
    assert_int_equal(symlink(target, at(name)), 0);
}

static int make(const char *program, const char *argument)
{
    world.command[0] = (char *)program;
    world.command[1] = (char *)argument;
    world.request.command = world.command;
    return pin_make(&world.request, &world.pin, &world.error);
}

/* The kinds of what was told, and the last path. */
static unsigned examine(bool look, const char **ret_path)
{
    unsigned kinds = 0;
    struct pin_findings findings;
    pin_examine(world.pin, look, &findings);
    pin_learn(world.pin, &findings);
    assert_false(pin_is_unread(world.pin));
    for (unsigned i = 0; i < findings.change_count; i++) {
        const struct pin_change *change = &findings.changes[i];
        assert_non_null(strstr(pin_change_text(change->kind), " "));
        kinds |= 1u << change->kind;
        if (ret_path)
            *ret_path = pin_change_path(world.pin, change);
    }
    return kinds;
}

static unsigned look(void)
{
    return examine(true, NULL);
}

static void read_all(void)
{
    assert_int_equal(examine(false, NULL), 0);
}

static void assert_lost(enum pin_change_kind kind, const char *path)
{
    struct pin_change change;
    assert_true(pin_is_lost(world.pin, &change));
    assert_int_equal(change.kind, kind);
    assert_string_equal(pin_change_path(world.pin, &change), path);
    assert_non_null(strstr(pin_lost_text(kind), "was "));
}

static void assert_not_lost(void)
{
    struct pin_change change;
    assert_false(pin_is_lost(world.pin, &change));
}

/* What it prints when it is executed as a worker is, and in *ret_code its exit code, or 200 + errno. */
static const char *executed(const char *argument, int *ret_code)
{
    static char output[4096];
    int out[2], status;
    assert_int_equal(pipe(out), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct error error;
        char *argv[] = {world.pin->command, (char *)argument, NULL};
        char *envp[] = {(char *)"PATH=/usr/bin:/bin", NULL};
        dup2(out[1], 1);
        close(out[0]);
        if (pin_enter(world.pin, &error) < 0)
            _exit(199);
        _exit(200 + pin_execute(world.pin, argv, envp));
    }
    close(out[1]);
    size_t used = 0;
    ssize_t n;
    while ((n = read(out[0], output + used, sizeof output - 1 - used)) > 0)
        used += (size_t)n;
    output[used] = 0;
    close(out[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    *ret_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return output;
}

static void assert_prints(const char *argument, const char *expected)
{
    int code;
    const char *output = executed(argument, &code);
    assert_string_equal(output, expected);
    assert_int_equal(code, 0);
}

static int set_up(void **state)
{
    memset(&world, 0, sizeof world);
    snprintf(world.directory, sizeof world.directory, "/tmp/gapless-pin-XXXXXX");
    assert_non_null(mkdtemp(world.directory));
    mkdir(at("one"), 0755);
    mkdir(at("two"), 0755);
    world.request.path = "/usr/bin:/bin";
    return 0;
}

static int tear_down(void **state)
{
    char command[128];
    pin_free(world.pin);
    snprintf(command, sizeof command, "rm -rf %s", world.directory);
    return system(command);
}

/* ── what is found ── */

static void test_command_is_found_in_path_as_execvp_does(void **state)
{
    char path[PATH_MAX];
    install("two/tool", "echo");
    write_file("one/tool", "text", 0644); /* not executable: passed over */
    snprintf(path, sizeof path, "/no/such:%s:%s", at("one"), at("two"));
    world.request.path = path;
    assert_int_equal(make("tool", NULL), 0);
    assert_string_equal(world.pin->places[PIN_EXECUTABLE].path, at("two/tool"));
    assert_string_equal(world.pin->resolved, at("two/tool"));
    assert_true(world.pin->by_descriptor);
}

static void test_empty_part_of_path_is_the_directory(void **state)
{
    install("one/tool", "echo");
    world.request.cwd = at("one");
    world.request.path = "/no/such:";
    assert_int_equal(make("tool", NULL), 0);
    assert_string_equal(world.pin->places[PIN_EXECUTABLE].path, "./tool");
    assert_string_equal(world.pin->resolved, at("one/tool"));
}

static void test_relative_command_is_found_from_the_directory(void **state)
{
    write_file("one/tool", "#!/bin/sh\necho $0\n", 0755);
    world.request.cwd = at("one");
    assert_int_equal(make("./tool", NULL), 0);
    assert_string_equal(world.pin->run, "./tool"); /* as it was written: there are no links */
    assert_prints(NULL, "./tool\n");
}

static void test_links_in_the_directory_are_resolved_and_the_name_is_kept(void **state)
{
    write_file("one/real", "#!/bin/sh\necho $0\n", 0755);
    link_to("real", "one/tool");
    link_to("one", "current");
    assert_int_equal(make(at("current/tool"), NULL), 0);
    assert_string_equal(world.pin->run, at("one/tool"));
    assert_string_equal(world.pin->resolved, at("one/real"));
    assert_false(world.pin->by_descriptor);
}

static void assert_refused(const char *program, int code)
{
    assert_int_equal(make(program, NULL), -code);
    assert_int_equal(world.error.blame, BLAME_USER);
    assert_null(world.pin);
}

static void test_what_cannot_be_executed_is_not_pinned(void **state)
{
    static char long_name[PATH_MAX + 64];
    write_file("one/plain", "#!/bin/sh\n", 0644);
    link_to("loop", "loop");
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[0] = '/';
    assert_refused(at("one/plain"), EACCES);
    assert_refused(at("one"), EACCES);
    assert_refused(at("none"), ENOENT);
    assert_refused(at("one/plain/none"), ENOTDIR);
    assert_refused(at("loop"), ELOOP);
    assert_refused(long_name, ENAMETOOLONG);
    assert_refused("no-such-command-anywhere", ENOENT);
    assert_refused(long_name + 1, ENOENT);
    world.request.cwd = at("none");
    assert_refused("echo", ENOENT);
}

/* ── what is executed ── */

static void test_replaced_binary_is_executed_by_its_descriptor(void **state)
{
    install("tool", "echo");
    assert_int_equal(make(at("tool"), NULL), 0);
    assert_prints("old", "old\n");
    assert_int_equal(look(), 0);
    install("tool", "false");
    assert_int_equal(look(), 1u << PIN_ELSEWHERE);
    assert_int_equal(look(), 0); /* once */
    assert_prints("old", "old\n");
    unlink(at("tool"));
    assert_int_equal(look(), 1u << PIN_ELSEWHERE);
    assert_not_lost();
    assert_prints("old", "old\n");
}

static void test_untouched_binary_is_executed_by_its_path(void **state)
{
    install("real", "cat");
    link_to("real", "tool");
    assert_int_equal(make(at("tool"), NULL), 0);
    assert_prints("/proc/self/comm", "tool\n");
}

static void test_script_runs_in_the_release_that_it_was_found_in(void **state)
{
    write_file("one/tool", "#!/bin/sh\necho one $0 $(pwd)\n", 0755);
    write_file("two/tool", "#!/bin/sh\necho two $0 $(pwd)\n", 0755);
    link_to("one", "current");
    world.request.cwd = at("current");
    assert_int_equal(make(at("current/tool"), NULL), 0);
    read_all();
    link_to("two", "current");
    assert_int_equal(look(), 1u << PIN_ELSEWHERE);
    char expected[PATH_MAX];
    snprintf(expected, sizeof expected, "one %s %s\n", at("one/tool"), at("one"));
    assert_prints(NULL, expected);
}

static void test_script_whose_link_was_switched_runs_by_its_own_name(void **state)
{
    write_file("tool-1", "#!/bin/sh\necho one\n", 0755);
    write_file("tool-2", "#!/bin/sh\necho two\n", 0755);
    link_to("tool-1", "tool");
    assert_int_equal(make(at("tool"), NULL), 0);
    assert_string_equal(world.pin->run, at("tool"));
    link_to("tool-2", "tool");
    assert_prints(NULL, "one\n");
}

static void test_removed_directory_is_entered_by_its_name(void **state)
{
    install("tool", "pwd");
    link_to("one", "current");
    world.request.cwd = at("current");
    assert_int_equal(make(at("tool"), NULL), 0);
    assert_int_equal(rmdir(at("one")), 0);
    link_to("two", "current");
    assert_int_equal(look(), 1u << PIN_DIRECTORY_REMOVED);
    assert_int_equal(look(), 0);
    char expected[PATH_MAX];
    snprintf(expected, sizeof expected, "%s\n", at("two"));
    assert_prints(NULL, expected);
}

static void test_moved_directory_is_entered_where_it_is(void **state)
{
    install("tool", "pwd");
    world.request.cwd = at("one");
    assert_int_equal(make(at("tool"), NULL), 0);
    assert_int_equal(rename(at("one"), at("moved")), 0);
    char expected[PATH_MAX];
    snprintf(expected, sizeof expected, "%s\n", at("moved"));
    assert_prints(NULL, expected);
}

/* ── what is told ── */

static void test_script_that_is_overwritten_in_place_is_told(void **state)
{
    const char *path = NULL;
    write_file("tool", "#!/bin/sh\necho old\n", 0755);
    assert_int_equal(make(at("tool"), NULL), 0);
    read_all();
    write_file("tool", "#!/bin/sh\necho new\n", 0755);
    assert_int_equal(examine(true, &path), 1u << PIN_OVERWRITTEN);
    assert_string_equal(path, at("tool"));
    assert_int_equal(look(), 0);
    assert_lost(PIN_OVERWRITTEN, at("tool")); /* told or not */
    assert_prints(NULL, "new\n");
    write_file("tool", "#!/bin/sh\necho old\n", 0755);
    assert_not_lost();
}

static void test_script_that_is_replaced_is_told(void **state)
{
    write_file("tool", "#!/bin/sh\necho old\n", 0755);
    assert_int_equal(make(at("tool"), NULL), 0);
    read_all();
    replace("tool", "#!/bin/sh\necho new\n");
    assert_int_equal(look(), 1u << PIN_REPLACED);
    assert_prints(NULL, "new\n");
    unlink(at("tool"));
    assert_int_equal(look(), 1u << PIN_REMOVED);
    int code;
    executed(NULL, &code);
    assert_int_equal(code, 200 + ENOENT);
}

static void test_same_contents_are_no_change(void **state)
{
    write_file("tool", "#!/bin/sh\necho old\n", 0755);
    write_file("one/app", "code", 0644);
    world.request.cwd = at("one");
    assert_int_equal(make(at("tool"), "app"), 0);
    assert_int_equal(world.pin->file_count, 2);
    read_all();
    replace("tool", "#!/bin/sh\necho old\n");
    write_file("one/app", "code", 0644);
    assert_not_lost();
    assert_int_equal(look(), 0);
    replace("tool", "#!/bin/sh\necho new\n");
    assert_int_equal(look(), 1u << PIN_REPLACED);
}

static void test_file_that_an_argument_names_is_told(void **state)
{
    const char *path = NULL;
    install("tool", "echo");
    write_file("one/app.jar", "code", 0644);
    world.request.cwd = at("one");
    assert_int_equal(make(at("tool"), "app.jar"), 0);
    read_all();
    write_file("one/app.jar", "CODE", 0644);
    assert_int_equal(examine(true, &path), 1u << PIN_OVERWRITTEN);
    assert_string_equal(path, "app.jar");
    assert_lost(PIN_OVERWRITTEN, "app.jar");
    unlink(at("one/app.jar"));
    assert_int_equal(look(), 1u << PIN_REMOVED);
    assert_lost(PIN_REMOVED, "app.jar");
}

static void test_binary_that_is_overwritten_in_place_is_told(void **state)
{
    install("tool", "echo");
    assert_int_equal(make(at("tool"), NULL), 0);
    read_all();
    write_file("tool", "\177ELF, but not really", 0755);
    assert_int_equal(look(), 1u << PIN_OVERWRITTEN);
    assert_lost(PIN_OVERWRITTEN, at("tool"));
}

static void test_change_before_the_digest_was_made_is_told(void **state)
{
    write_file("tool", "#!/bin/sh\necho old\n", 0755);
    assert_int_equal(make(at("tool"), NULL), 0);
    write_file("tool", "#!/bin/sh\necho other\n", 0755);
    assert_int_equal(look(), 1u << PIN_OVERWRITTEN);
}

static void write_at(const char *name, off_t where, char byte)
{
    CLEANUP_FD int fd = open(at(name), O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &byte, 1, where), 1);
}

static void test_large_file_is_known_by_its_ends(void **state)
{
    install("tool", "echo");
    write_file("big.jar", "", 0644);
    off_t size = (off_t)PIN_DIGEST_WHOLE + PIN_DIGEST_END;
    assert_int_equal(truncate(at("big.jar"), size), 0);
    assert_int_equal(make(at("tool"), at("big.jar")), 0);
    read_all();
    assert_true(world.pin->files[1].known.digested);
    write_at("big.jar", size / 2, 'x'); /* not seen */
    assert_int_equal(look(), 0);
    write_at("big.jar", size - 1, 'x');
    assert_int_equal(look(), 1u << PIN_OVERWRITTEN);
    write_at("big.jar", PIN_DIGEST_END - 1, 'x');
    assert_int_equal(look(), 1u << PIN_OVERWRITTEN);
}

static void test_arguments_that_are_no_regular_files_are_not_opened(void **state)
{
    install("tool", "echo");
    assert_int_equal(mkfifo(at("fifo"), 0644), 0);
    assert_int_equal(make(at("tool"), at("fifo")), 0);
    assert_int_equal(world.pin->file_count, 1);
    assert_int_equal(look(), 0);
}

int main(void)
{
    umask(022);
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(test_command_is_found_in_path_as_execvp_does),
        CASE(test_empty_part_of_path_is_the_directory),
        CASE(test_relative_command_is_found_from_the_directory),
        CASE(test_links_in_the_directory_are_resolved_and_the_name_is_kept),
        CASE(test_what_cannot_be_executed_is_not_pinned),
        CASE(test_replaced_binary_is_executed_by_its_descriptor),
        CASE(test_untouched_binary_is_executed_by_its_path),
        CASE(test_script_runs_in_the_release_that_it_was_found_in),
        CASE(test_script_whose_link_was_switched_runs_by_its_own_name),
        CASE(test_removed_directory_is_entered_by_its_name),
        CASE(test_moved_directory_is_entered_where_it_is),
        CASE(test_script_that_is_overwritten_in_place_is_told),
        CASE(test_script_that_is_replaced_is_told),
        CASE(test_same_contents_are_no_change),
        CASE(test_file_that_an_argument_names_is_told),
        CASE(test_binary_that_is_overwritten_in_place_is_told),
        CASE(test_change_before_the_digest_was_made_is_told),
        CASE(test_large_file_is_known_by_its_ends),
        CASE(test_arguments_that_are_no_regular_files_are_not_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
