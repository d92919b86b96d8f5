/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a validation finds of a new version: with real files, and the process that looks at them.
 */
#include "ipc/fd.h"
#include "master/pin.h"
#include "tests/unit/validate_world.h"

#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SHORT_MS 300
#define ATTEMPTS 50

static void copy_binary(const char *name)
{
    char command[PATH_MAX * 2];
    snprintf(command, sizeof command, "cp -L /bin/echo %s.new && mv %s.new %s", at(name), at(name), at(name));
    assert_int_equal(system(command), 0);
}

static void assert_noted(const char *words)
{
    if (!strstr(world.notes, words))
        fail_msg("\"%s\" is not in \"%s\"", words, world.notes);
}

static void assert_warned(const char *words)
{
    if (!strstr(world.warnings, words))
        fail_msg("\"%s\" is not in \"%s\"", words, world.warnings);
}

/* ── the executable ── */

static void test_binary_is_valid_and_what_loads_it_is_said(void **state)
{
    copy_binary("server");
    assert_valid(at("server"));
    assert_noted(at("server"));
    assert_noted(", interpreter /lib");
    assert_string_equal(world.warnings, "");
}

static void test_command_is_found_by_the_path_of_the_service(void **state)
{
    char path[PATH_MAX];
    char *env[] = {path, NULL};
    mkdir(at("empty"), 0755);
    mkdir(at("bin"), 0755);
    write_file("empty/server", "not executable", 0644);
    copy_binary("bin/server");
    snprintf(path, sizeof path, "PATH=/no/such:%s:%s", at("empty"), at("bin"));
    world.service.env = env;
    assert_valid("server");
    assert_noted(at("bin/server"));
    assert_invalid("no-such-server", "cannot execute no-such-server: no such command in PATH");
    snprintf(path, sizeof path, "PATH=%s:/no/such", at("empty"));
    assert_invalid("server", "permission denied");
}

static void test_relative_command_is_found_in_the_directory(void **state)
{
    mkdir(at("release"), 0755);
    assert_int_equal(symlink("release", at("current")), 0);
    write_file("release/server", "#!/bin/sh\n", 0755);
    world.service.cwd = (char *)at("current");
    assert_valid("./server");
    assert_noted("executable ./server, interpreter /bin/sh");
    assert_noted(at("release")); /* resolved */
    world.service.cwd = (char *)at("none");
    assert_invalid("./server", "cannot enter the directory");
    assert_int_equal(world.failure.blame, BLAME_USER);
    world.service.cwd = (char *)at("release/server");
    assert_invalid("./server", "Not a directory");
}

static void test_what_cannot_be_executed_is_invalid(void **state)
{
    write_file("plain", "#!/bin/sh\n", 0644);
    assert_invalid(at("plain"), "permission denied (is it executable for that user?)");
    assert_int_equal(world.failure.blame, BLAME_USER);
    assert_invalid(at("none"), "no such file");
    mkdir(at("directory"), 0755);
    assert_invalid(at("directory"), "it is not a regular file");
    assert_int_equal(mkfifo(at("fifo"), 0755), 0);
    assert_invalid(at("fifo"), "it is not a regular file");
    assert_int_equal(symlink("loop", at("loop")), 0);
    assert_invalid(at("loop"), "Too many levels");
}

static bool binfmt_is_there(void)
{
    DIR *directory = opendir("/proc/sys/fs/binfmt_misc");
    unsigned count = 0;
    while (directory && readdir(directory))
        count++;
    if (directory)
        closedir(directory);
    return count > 4; /* ., .., register, status */
}

/* binfmt_misc may know what we don't: then it is a warning. */
static void assert_no_program(const char *name, const char *words)
{
    if (!binfmt_is_there()) {
        assert_invalid(name, words);
        return;
    }
    assert_valid(name);
    assert_warned(words);
}

static void test_what_is_no_program_is_said(void **state)
{
    write_file("text", "echo hello\n", 0755);
    assert_no_program(at("text"), "it is not a program (exec format error)");
    write_file("empty", "", 0755);
    assert_no_program(at("empty"), "it is empty");
    write_file("broken", "\177ELF, but not really", 0755);
    assert_invalid(at("broken"), "its ELF header is broken");
}

static void test_interpreter_of_a_script_has_to_be_there(void **state)
{
    char text[PATH_MAX + 32];
    write_file("script", "#!/no/such/shell -e\n", 0755);
    assert_invalid(at("script"), "the interpreter that it names does not exist (/no/such/shell)");
    write_file("script", "#!\n", 0755);
    assert_invalid(at("script"), "names no interpreter");
    write_file("shell", "#!/bin/sh\n", 0644);
    snprintf(text, sizeof text, "#! %s\n", at("shell"));
    write_file("script", text, 0755);
    assert_invalid(at("script"), "permission denied");
    write_file("shell", "#!/no/such/shell\n", 0755); /* an interpreter's interpreter */
    assert_invalid(at("script"), "does not exist (/no/such/shell)");
    write_file("shell", "#!/bin/sh", 0755);
    assert_valid(at("script"));
    assert_noted(", interpreter ");
    snprintf(text, sizeof text, "#!%s\n", at("script"));
    write_file("script", text, 0755);
    assert_invalid(at("script"), "too many interpreters");
}

/* A copy of a binary with other bytes at `where`. */
static void patch(off_t where, const void *bytes, size_t size)
{
    copy_binary("server");
    CLEANUP_FD int fd = open(at("server"), O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, size, where), (ssize_t)size);
}

static off_t find_loader(void)
{
    Elf64_Ehdr elf;
    Elf64_Phdr header;
    CLEANUP_FD int fd = open("/bin/echo", O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, &elf, sizeof elf, 0), sizeof elf);
    for (unsigned i = 0; i < elf.e_phnum; i++) {
        off_t where = (off_t)(elf.e_phoff + i * sizeof header);
        assert_int_equal(pread(fd, &header, sizeof header, where), sizeof header);
        if (header.p_type == PT_INTERP)
            return (off_t)header.p_offset;
    }
    fail_msg("/bin/echo has no loader");
    return 0;
}

static void test_loader_of_a_binary_has_to_be_there(void **state)
{
    patch(find_loader(), "/xx", 3);
    assert_invalid(at("server"), "the interpreter that it names does not exist (/xx");
}

static void test_binary_of_another_machine_is_said(void **state)
{
    const Elf64_Half machine = EM_MIPS;
    patch(offsetof(Elf64_Ehdr, e_machine), &machine, sizeof machine);
    assert_no_program(at("server"), "another kind of processor");
}

static void test_binary_that_was_cut_off_is_warned_of(void **state)
{
    copy_binary("server");
    assert_int_equal(truncate(at("server"), 8192), 0);
    assert_valid(at("server"));
    assert_warned("it is cut off");
}

static void test_user_and_group_have_to_be_there(void **state)
{
    copy_binary("server");
    world.service.user = (char *)"no-such-user";
    assert_invalid(at("server"), "there is no user no-such-user");
    world.service.user = NULL;
    world.service.group = (char *)"no-such-group";
    assert_invalid(at("server"), "there is no group no-such-group");
}

/* ── an earlier version ── */

static struct pin *make_pin(const char *name, const char *argument)
{
    struct error error = {.code = 0};
    struct pin *pin = NULL;
    struct pin_findings findings;
    world.command[0] = (char *)name;
    world.command[1] = (char *)argument;
    struct pin_request request = {.command = world.command, .cwd = world.service.cwd, .path = "/usr/bin"};
    assert_int_equal(pin_make(&request, &pin, &error), 0);
    pin_examine(pin, false, &findings);
    pin_learn(pin, &findings);
    world.request.pin = pin;
    return pin;
}

static void test_pinned_binary_is_valid_wherever_its_name_leads(void **state)
{
    copy_binary("server");
    struct pin *pin = make_pin(at("server"), NULL);
    assert_valid(at("server"));
    write_file("fresh", "text", 0644);
    assert_int_equal(rename(at("fresh"), at("server")), 0);
    assert_valid(at("server"));
    assert_noted("what is pinned: its path leads elsewhere");
    pin_free(pin);
}

static void test_pinned_script_in_its_release_is_valid(void **state)
{
    mkdir(at("one"), 0755);
    assert_int_equal(symlink("one", at("current")), 0);
    write_file("one/server", "#!/bin/sh\n", 0755);
    world.service.cwd = (char *)at("current");
    struct pin *pin = make_pin("./server", NULL);
    unlink(at("current"));
    assert_valid("./server");
    assert_noted(at("one"));
    pin_free(pin);
}

static void test_version_that_was_overwritten_is_invalid(void **state)
{
    char words[PATH_MAX + 64];
    write_file("server", "#!/bin/sh\necho old\n", 0755);
    struct pin *pin = make_pin(at("server"), NULL);
    write_file("server", "#!/bin/sh\necho new\n", 0755);
    snprintf(words, sizeof words, "%s was overwritten in place: the version can't be started again as it was",
        at("server"));
    assert_invalid(at("server"), words);
    write_file("server", "#!/bin/sh\necho old\n", 0755);
    assert_valid(at("server"));
    pin_free(pin);
}

static void test_what_is_lost_of_the_version_that_serves_is_warned_of(void **state)
{
    write_file("server", "#!/bin/sh\necho old\n", 0755);
    struct pin *pin = make_pin(at("server"), NULL);
    world.request.pin = NULL;
    world.request.serving = pin;
    assert_valid(at("server"));
    assert_string_equal(world.warnings, "");
    write_file("server", "#!/bin/sh\necho new\n", 0755);
    assert_valid(at("server"));
    assert_warned("can't be started again as it was");
    pin_free(pin);
}

static void test_version_whose_argument_was_replaced_is_invalid(void **state)
{
    copy_binary("server");
    write_file("app.py", "old", 0644);
    struct pin *pin = make_pin(at("server"), at("app.py"));
    write_file("fresh", "new", 0644);
    assert_int_equal(rename(at("fresh"), at("app.py")), 0);
    assert_invalid(at("server"), "app.py was replaced: the version can't");
    unlink(at("app.py"));
    assert_invalid(at("server"), "app.py was removed: the version can't");
    pin_free(pin);
}

static void test_directory_that_was_removed_is_warned_of(void **state)
{
    copy_binary("server");
    mkdir(at("one"), 0755);
    mkdir(at("two"), 0755);
    assert_int_equal(symlink("one", at("current")), 0);
    world.service.cwd = (char *)at("current");
    struct pin *pin = make_pin(at("server"), NULL);
    unlink(at("current"));
    assert_int_equal(symlink("two", at("current")), 0);
    assert_int_equal(rmdir(at("one")), 0);
    assert_valid(at("server"));
    assert_warned("was removed");
    assert_noted(at("two"));
    pin_free(pin);
}

/* ── memory ── */

static void test_memory_is_said(void **state)
{
    pid_t own = getpid();
    copy_binary("server");
    world.service.check_memory = CONFIG_MEMORY_WARN;
    world.request.workers = &own;
    world.request.worker_count = 1;
    assert_valid(at("server"));
    assert_noted("memory: two generations need about ");
    world.request.new_workers = 1u << 31; /* of which none has it all */
    assert_valid(at("server"));
    assert_warned("too little memory: two generations need about ");
    world.service.check_memory = CONFIG_MEMORY_REFUSE;
    assert_invalid(at("server"), "too little memory: two generations need about ");
    world.service.check_memory = CONFIG_MEMORY_OFF;
    assert_valid(at("server"));
    assert_null(strstr(world.notes, "memory"));
}

static void test_memory_that_is_not_known_is_said_to_be_so(void **state)
{
    copy_binary("server");
    world.service.check_memory = CONFIG_MEMORY_WARN;
    assert_valid(at("server"));
    assert_noted("what another generation needs is not known (no generation serves)");
}

/* ── the check command ── */

static void check(const char *script)
{
    world.check[0] = (char *)"/bin/sh";
    world.check[1] = (char *)"-c";
    world.check[2] = (char *)script;
    world.service.check = world.check;
}

static void test_check_command_decides(void **state)
{
    copy_binary("server");
    check("exit 0");
    assert_valid(at("server"));
    check("echo the configuration is broken; exit 3");
    assert_invalid(at("server"), "the configuration is broken");
    world.check[0] = (char *)"/no/such/check";
    assert_invalid(at("server"), "no such file");
}

static void test_check_command_knows_what_it_is_for(void **state)
{
    copy_binary("server");
    world.request.from = 7;
    world.request.to = 8;
    check("echo $GAPLESS_SERVICE,$GAPLESS_OLD_GENERATION,$GAPLESS_NEW_GENERATION,$GAPLESS_PHASE; exit 1");
    assert_invalid(at("server"), "web,7,8,validate");
    world.request.from = 0;
    assert_invalid(at("server"), "web,,8,validate");
}

static void test_check_command_is_not_begun_where_something_is_wrong(void **state)
{
    char script[PATH_MAX + 16];
    snprintf(script, sizeof script, "touch %s", at("touched"));
    check(script);
    assert_invalid(at("none"), "no such file");
    assert_int_equal(access(at("touched"), F_OK), -1);
}

/* ── its time ── */

static void test_check_command_that_does_not_end_is_ended(void **state)
{
    copy_binary("server");
    check("sleep 1000");
    world.service.check_timeout_ms = SHORT_MS;
    assert_invalid(
        at("server"), "not validated within 300ms (check_timeout): it waited for the check command /bin/sh");
    assert_int_equal(world.failure.code, ETIMEDOUT);
}

/* The pid of a process of which there is a pidfd here; 0: none. */
static pid_t find_copy(void)
{
    pid_t found = 0;
    DIR *directory = opendir("/proc/self/fdinfo");
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory));) {
        char path[300], line[64];
        snprintf(path, sizeof path, "/proc/self/fdinfo/%s", entry->d_name);
        FILE *file = fopen(path, "re");
        while (file && fgets(line, sizeof line, file))
            if (strncmp(line, "Pid:", 4) == 0)
                found = atoi(line + 4);
        if (file)
            fclose(file);
    }
    closedir(directory);
    return found;
}

/* Held up, as by a disk that doesn't answer: all of /proc is read first, which takes it longer than us. */
static void begin_held_up(void)
{
    pid_t own = getpid();
    copy_binary("server");
    world.service.check_memory = CONFIG_MEMORY_WARN;
    world.request.workers = &own;
    world.request.worker_count = 1;
    begin(at("server"));
    kill(find_copy(), SIGSTOP);
}

static void test_look_that_does_not_end_is_ended(void **state)
{
    world.service.check_timeout_ms = SHORT_MS;
    for (int i = 0; i < ATTEMPTS && !world.failed; i++) {
        begin_held_up();
        finish();
    }
    assert_int_equal(world.failure.code, ETIMEDOUT);
    assert_non_null(strstr(world.failure.message, "it waited for "));
    assert_nothing_left();
}

static void test_look_that_is_killed_is_a_failure(void **state)
{
    for (int i = 0; i < ATTEMPTS && !world.failed; i++) {
        begin_held_up();
        kill(find_copy(), SIGKILL);
        finish();
    }
    assert_non_null(strstr(world.failure.message, "the process that does it ended"));
    assert_int_equal(world.failure.blame, BLAME_SYSTEM);
    assert_nothing_left();
}

static void test_freed_while_it_looks_nothing_is_left(void **state)
{
    begin_held_up();
    validate_free(world.validation);
    world.validation = NULL;
    assert_nothing_left();
    assert_int_equal(world.done, 0);
}

static void test_freed_while_its_command_runs_nothing_is_left(void **state)
{
    char script[PATH_MAX + 32];
    copy_binary("server");
    snprintf(script, sizeof script, "touch %s; sleep 1000", at("touched"));
    check(script);
    begin(at("server"));
    while (access(at("touched"), F_OK) < 0)
        event_base_loop(world.master.base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    validate_free(world.validation);
    world.validation = NULL;
    assert_nothing_left();
    assert_int_equal(world.done, 0);
}

int main(void)
{
    umask(022);
#define CASE(name) cmocka_unit_test_setup_teardown(name, validate_set_up, validate_tear_down)
    const struct CMUnitTest tests[] = {
        CASE(test_binary_is_valid_and_what_loads_it_is_said),
        CASE(test_command_is_found_by_the_path_of_the_service),
        CASE(test_relative_command_is_found_in_the_directory),
        CASE(test_what_cannot_be_executed_is_invalid),
        CASE(test_what_is_no_program_is_said),
        CASE(test_interpreter_of_a_script_has_to_be_there),
        CASE(test_loader_of_a_binary_has_to_be_there),
        CASE(test_binary_of_another_machine_is_said),
        CASE(test_binary_that_was_cut_off_is_warned_of),
        CASE(test_user_and_group_have_to_be_there),
        CASE(test_pinned_binary_is_valid_wherever_its_name_leads),
        CASE(test_pinned_script_in_its_release_is_valid),
        CASE(test_version_that_was_overwritten_is_invalid),
        CASE(test_what_is_lost_of_the_version_that_serves_is_warned_of),
        CASE(test_version_whose_argument_was_replaced_is_invalid),
        CASE(test_directory_that_was_removed_is_warned_of),
        CASE(test_memory_is_said),
        CASE(test_memory_that_is_not_known_is_said_to_be_so),
        CASE(test_check_command_decides),
        CASE(test_check_command_knows_what_it_is_for),
        CASE(test_check_command_is_not_begun_where_something_is_wrong),
        CASE(test_check_command_that_does_not_end_is_ended),
        CASE(test_look_that_does_not_end_is_ended),
        CASE(test_look_that_is_killed_is_a_failure),
        CASE(test_freed_while_it_looks_nothing_is_left),
        CASE(test_freed_while_its_command_runs_nothing_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
