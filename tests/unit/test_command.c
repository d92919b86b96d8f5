/* SPDX-License-Identifier: BSD-2-Clause */
#include "command_world.h"

#include "master/clock.h"
#include "master/command_output.h"

#include <fcntl.h>
#include <sys/stat.h>

/* The script of a command that has a background process, says so in the file, then does something. */
#define LEAVES(and_then) "sleep 1000 & echo $! > file; " and_then

static void output_is_logged_line_by_line(void **state)
{
    struct command_world *world = *state;
    world_run(world, "echo one; printf '\\n'; echo 'two words' >&2; printf 'no newline'");
    assert_int_equal(world->told, 1);
    assert_false(world->failed);
    assert_true(world_logged(world, " info command says service=web what=check line=one\n"));
    assert_true(world_logged(world, " what=check line=\"two words\"\n"));
    assert_true(world_logged(world, " what=check line=\"no newline\"\n"));
    assert_false(world_logged(world, "line=\"\"\n"));
}

static void failure_is_the_code_and_the_last_line(void **state)
{
    struct command_world *world = *state;
    world_run(world, "echo first; echo 'no such upstream' >&2; exit 3");
    assert_true(world->failed);
    assert_string_equal(world->failure.message, "check ended with 3: no such upstream");
    assert_int_equal(world->failure.code, ECHILD);
    world_run(world, "exit 4");
    assert_string_equal(world->failure.message, "check ended with 4");
    world_run(world, "printf abc; exit 1");
    assert_string_equal(world->failure.message, "check ended with 1: abc");
}

static void signal_is_named(void **state)
{
    struct command_world *world = *state;
    world_run(world, "echo here; kill -TERM $$");
    assert_string_equal(world->failure.message, "check was killed by signal TERM: here");
}

static void it_may_close_its_output_and_go_on(void **state)
{
    struct command_world *world = *state;
    world->service.cwd = world->directory;
    char fifo[128];
    snprintf(fifo, sizeof fifo, "%s/fifo", world->directory);
    assert_return_code(mkfifo(fifo, 0600), errno);
    world_start(world, "exec >&- 2>&-; echo > file; read line < fifo; exit 5", DEADLINE_MS);
    world_file(world);
    int fd = open(fifo, O_WRONLY | O_CLOEXEC);
    assert_int_equal(write(fd, "x\n", 2), 2);
    close(fd);
    world_until(world, &world->told, 1);
    assert_string_equal(world->failure.message, "check ended with 5");
    unlink(fifo);
}

static void time_over_kills_the_whole_group(void **state)
{
    struct command_world *world = *state;
    world->service.cwd = world->directory;
    world_adopts(world);
    world_start(world, LEAVES("echo begun; trap '' TERM; wait; echo never"), 1000);
    world_file(world);
    world_until(world, &world->told, 1);
    assert_string_equal(
        world->failure.message, "check was not done within 1s: it gets SIGKILL; its last line: begun");
    assert_int_equal(world->failure.code, ETIMEDOUT);
    assert_int_equal(world_buries(world), 2);
}

static void what_it_left_in_its_group_is_killed_at_the_end(void **state)
{
    struct command_world *world = *state;
    world->service.cwd = world->directory;
    world_adopts(world);
    int64_t began = clock_monotonic_ms();
    world_run(world, LEAVES("exec 2>&-; echo done; exit 0"));
    assert_false(world->failed);
    assert_true(clock_monotonic_ms() - began < DEADLINE_MS / 2);
    assert_int_equal(world_buries(world), 1);
    /* Without its output: it isn't waited for at all. */
    world_run(world, "sleep 1000 >/dev/null 2>&1 & exit 0");
    assert_false(world->failed);
    assert_int_equal(world_buries(world), 1);
}

static void what_made_its_own_session_is_not_waited_for(void **state)
{
    struct command_world *world = *state;
    world->service.cwd = world->directory;
    world_adopts(world);
    world_start(world, "setsid sh -c 'echo $$ > file; exec sleep 1000' & wait", DEADLINE_MS);
    pid_t left = (pid_t)strtol(world_file(world), NULL, 10);
    command_stop(world->command);
    world_until(world, &world->told, 1);
    int status;
    assert_int_equal(waitpid(left, &status, WNOHANG), 0);
    assert_int_equal(kill(left, SIGKILL), 0);
    assert_int_equal(world_buries(world), 2);
}

static void run_this(struct command_world *world, char *const *argv)
{
    struct command_request request = {.master = &world->master,
        .service = &world->service,
        .argv = argv,
        .what = "check",
        .timeout_ms = DEADLINE_MS,
        .done = world_done,
        .ctx = world};
    world->told = 0;
    world->command = command_start(&request, NULL);
    assert_non_null(world->command);
    assert_int_equal(world->told, 0);
    world_until(world, &world->told, 1);
}

static void what_cannot_be_executed_is_said_in_words(void **state)
{
    struct command_world *world = *state;
    run_this(world, (char *[]){"/nonexistent/tool", NULL});
    assert_string_equal(world->failure.message, "check: cannot execute /nonexistent/tool: no such file");
    assert_int_equal(world->failure.code, ENOENT);
    assert_int_equal(world->failure.blame, BLAME_USER);
    run_this(world, (char *[]){"gapless-no-such-tool", NULL});
    assert_string_equal(
        world->failure.message, "check: cannot execute gapless-no-such-tool: no such command in PATH");
    run_this(world, (char *[]){world->file, NULL});
    assert_non_null(strstr(world->failure.message, "permission denied (is it executable for that user?)"));
    world->service.cwd = "/nonexistent";
    run_this(world, (char *[]){"true", NULL});
    assert_string_equal(
        world->failure.message, "check: cannot enter the directory /nonexistent: No such file or directory");
}

static void it_is_set_up_as_the_service_is(void **state)
{
    struct command_world *world = *state;
    char *env[] = {"MODE=live", "NGINX={fds:;}", "HERE=service", NULL};
    char *more[] = {"HERE=step", NULL};
    struct config_rlimit limit = {.resource = RLIMIT_CORE, .limit = {0, 0}};
    world->service.env = env;
    world->service.cwd = world->directory;
    world->service.umask = 027;
    world->service.rlimits = &limit;
    world->service.rlimit_count = 1;
    setenv("LISTEN_FDS", "3", 1);
    setenv("GAPLESS_FD", "7", 1);
    setenv("HERE", "master", 1);
    int inheritable = dup(world->log_fd), input = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3), typed[2];
    assert_int_equal(pipe2(typed, O_CLOEXEC), 0);
    dup2(typed[0], STDIN_FILENO);
    char *argv[] = {"sh", "-c",
        "echo $MODE,$HERE,$GAPLESS_SERVICE,${NGINX-none},${LISTEN_FDS-none},${GAPLESS_FD-none};"
        "pwd; umask; ulimit -c; cat; test -e /proc/$$/fd/2 && echo two;"
        "for fd in 3 4 5 6 7 8 9 10 11 12 13 14; do test -e /proc/$$/fd/$fd && echo descriptor $fd; done;"
        "test $(ps -o sid= -p $$) = $PPID && echo session",
        NULL};
    struct command_request request = {.master = &world->master,
        .service = &world->service,
        .argv = argv,
        .env = more,
        .what = "check",
        .timeout_ms = DEADLINE_MS,
        .done = world_done,
        .ctx = world};
    world->command = command_start(&request, NULL);
    world_until(world, &world->told, 1);
    dup2(input, STDIN_FILENO);
    close(input);
    close(typed[0]);
    close(typed[1]);
    close(inheritable);
    unsetenv("LISTEN_FDS");
    unsetenv("GAPLESS_FD");
    unsetenv("HERE");
    char expected[256];
    snprintf(expected, sizeof expected, "line=%s\n", world->directory);
    assert_true(world_logged(world, "line=live,step,web,none,none,none\n"));
    assert_true(world_logged(world, expected));
    assert_true(world_logged(world, "line=0027\n"));
    assert_true(world_logged(world, "line=0\n"));
    assert_true(world_logged(world, "line=session\n"));
    assert_true(world_logged(world, "line=two\n"));
    assert_false(world_logged(world, "descriptor"));
}

static void it_hears_the_signals_that_the_master_does_not(void **state)
{
    struct command_world *world = *state;
    sigset_t blocked, before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    signal(SIGTERM, SIG_IGN);
    world_run(world, "kill -TERM $$; echo survived");
    signal(SIGTERM, SIG_DFL);
    sigprocmask(SIG_SETMASK, &before, NULL);
    assert_string_equal(world->failure.message, "check was killed by signal TERM");
}

static unsigned count(const char *text, const char *what)
{
    unsigned count = 0;
    for (; (text = strstr(text, what)); text += strlen(what))
        count++;
    return count;
}

static void a_flood_is_counted_and_the_loop_goes_on(void **state)
{
    struct command_world *world = *state;
    world_run(world, "yes flooding | head -n 200000; echo at last; exit 9");
    assert_string_equal(world->failure.message, "check ended with 9: at last");
    assert_int_equal(count(world_log(world), "command says"), COMMAND_LINES_MAX);
    assert_true(world_logged(
        world, " warning command said more than is logged service=web what=check lines=199801\n"));
    /* 1.8 MB, 16 KiB a turn. */
    assert_true(world->turns > 100);
}

static void a_long_line_is_cut_and_odd_bytes_are_made_harmless(void **state)
{
    struct command_world *world = *state;
    world_run(world, "printf 'a\\033[31m\\tb\\377c\\000d\\302\\233e\\303\\274\\r\\n'; exit 1");
    assert_true(world_logged(world, "line=\"a\\u001b[31m\\u0009b?c?d??e\303\274\"\n"));
    assert_string_equal(world->failure.message, "check ended with 1: a?[31m b?c?d??e\303\274");
    /* The cut is in the middle of a character: 999 bytes, and 2 more. */
    world_run(world, "printf '%0999d\\303\\274%05000d\\n' 0 0; exit 1");
    char cut[1100];
    snprintf(cut, sizeof cut, "line=%0999d...\n", 0);
    assert_true(world_logged(world, cut));
    snprintf(cut, sizeof cut, "check ended with 1: %0300d...", 0);
    assert_string_equal(world->failure.message, cut);
}

static void a_line_may_come_in_pieces(void **state)
{
    struct command_output output = {.service = "web", .what = "check"};
    command_output_add(&output, "a", 1);
    command_output_add(&output, "b\r", 2);
    command_output_add(&output, "\nc\n\nd", 5);
    assert_string_equal(output.last, "c");
    command_output_end(&output);
    assert_string_equal(output.last, "d");
    struct command_world *world = *state;
    assert_true(world_logged(world, "line=ab\n"));
}

static void freed_while_it_runs_it_is_killed_and_reaped_by_the_loop(void **state)
{
    struct command_world *world = *state;
    world->service.cwd = world->directory;
    world_adopts(world);
    world_start(world, LEAVES("wait"), DEADLINE_MS);
    world_file(world);
    command_free(world->command);
    /* Until nothing is left to be done in the loop. */
    assert_true(event_base_dispatch(world->master.base) >= 0);
    assert_int_equal(world_buries(world), 2);
    assert_int_equal(world->told, 0);
}

static void freed_at_once_it_is_gone_as_well(void **state)
{
    struct command_world *world = *state;
    world_adopts(world);
    for (unsigned i = 0; i < 20; i++) {
        world_start(world, "sleep 1000 & wait", DEADLINE_MS);
        command_free(world->command);
    }
    assert_true(event_base_dispatch(world->master.base) >= 0);
    assert_int_equal(world->told, 0);
    world_buries(world); /* what had been forked by then */
}

static void with_the_base_everything_can_be_forgotten(void **state)
{
    struct command_world *world = *state;
    world_adopts(world);
    world_start(world, "exec sleep 1000", DEADLINE_MS);
    command_free(world->command);
    command_forget_all(world->master.base);
    assert_int_equal(event_base_dispatch(world->master.base), 1);
    world_buries(world); /* as the keeper would */
}

static void stopped_it_is_told_when_it_is_dead(void **state)
{
    struct command_world *world = *state;
    world->service.cwd = world->directory;
    world_adopts(world);
    world_start(world, LEAVES("wait"), DEADLINE_MS);
    world_file(world);
    command_stop(world->command);
    assert_int_equal(world->told, 0);
    world_until(world, &world->told, 1);
    assert_int_equal(world->failure.code, ECANCELED);
    assert_string_equal(world->failure.message, "check was stopped");
    assert_int_equal(world_buries(world), 2);
}

static void signal_to_its_group_is_its_own_matter(void **state)
{
    struct command_world *world = *state;
    world_run(world, "trap 'exit 6' TERM; kill -TERM 0; exit 7");
    assert_string_equal(world->failure.message, "check ended with 6");
    world_run(world, "kill -INT 0; exit 7");
    assert_string_equal(world->failure.message, "check was killed by signal INT");
}

/* A master of its own, with a loop that has run until the command is there. */
static pid_t other_master(struct command_world *world, const char *script)
{
    world->service.cwd = world->directory;
    world_adopts(world);
    pid_t master = fork();
    if (master == 0) {
        event_reinit(world->master.base);
        world_start(world, script, DEADLINE_MS);
        event_base_dispatch(world->master.base);
        _exit(1);
    }
    world_file(world);
    return master;
}

static void all_of_it_dies_with_the_master(void **state)
{
    struct command_world *world = *state;
    pid_t master = other_master(world, LEAVES("wait"));
    assert_int_equal(kill(master, SIGKILL), 0);
    /* It, the group's leader, the command, what it left. */
    assert_int_equal(world_buries(world), 4);
}

static void it_dies_with_its_group_s_leader(void **state)
{
    struct command_world *world = *state;
    pid_t master = other_master(world, "echo $PPID > file; exec sleep 1000");
    assert_int_equal(kill(master, SIGSTOP), 0);
    pid_t leader = (pid_t)strtol(world_file(world), NULL, 10);
    assert_int_equal(kill(leader, SIGKILL), 0);
    int status;
    assert_true(waitpid(-1, &status, 0) != master);
    assert_int_equal(WTERMSIG(status), SIGKILL);
    assert_int_equal(kill(master, SIGKILL), 0);
    assert_int_equal(world_buries(world), 2);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, command_world_setup, command_world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(output_is_logged_line_by_line),
        CASE(failure_is_the_code_and_the_last_line),
        CASE(signal_is_named),
        CASE(it_may_close_its_output_and_go_on),
        CASE(time_over_kills_the_whole_group),
        CASE(what_it_left_in_its_group_is_killed_at_the_end),
        CASE(what_made_its_own_session_is_not_waited_for),
        CASE(what_cannot_be_executed_is_said_in_words),
        CASE(it_is_set_up_as_the_service_is),
        CASE(it_hears_the_signals_that_the_master_does_not),
        CASE(a_flood_is_counted_and_the_loop_goes_on),
        CASE(a_long_line_is_cut_and_odd_bytes_are_made_harmless),
        CASE(a_line_may_come_in_pieces),
        CASE(freed_while_it_runs_it_is_killed_and_reaped_by_the_loop),
        CASE(freed_at_once_it_is_gone_as_well),
        CASE(with_the_base_everything_can_be_forgotten),
        CASE(stopped_it_is_told_when_it_is_dead),
        CASE(signal_to_its_group_is_its_own_matter),
        CASE(all_of_it_dies_with_the_master),
        CASE(it_dies_with_its_group_s_leader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
