/* SPDX-License-Identifier: BSD-2-Clause */
/* The verbs that talk to a master: what they ask, what they print, and with which code they end. */
#include "cli_world.h"

#include "cli/client.h"
#include "cli/masters.h"

#include <time.h>

static void status_prints_a_table(void **state)
{
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    world_start(world, verb_status, "--admin", world->path);
    world_receive(world);
    assert_int_equal(world->request->body_case, GAPLESS__ADMIN__REQUEST__BODY_STATUS);
    world_send_status(world);
    world_send_result(world, 0, "");
    assert_int_equal(world_end(world), 0);
    assert_string_equal(world->out, "gapless 0.1.0, pid 4711, up 1 s\n\nno services\n");
    assert_string_equal(world->err, "");
}

static void status_prints_json(void **state)
{
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    world_start(world, verb_status, "--json", "--admin", world->path);
    world_receive(world);
    world_send_status(world);
    world_send_result(world, 0, "");
    assert_int_equal(world_end(world), 0);
    assert_string_equal(world->out, "{\n"
                                    "  \"master\": {\n"
                                    "    \"pid\": 4711,\n"
                                    "    \"version\": \"0.1.0\",\n"
                                    "    \"uptime_s\": 1.0,\n"
                                    "    \"history\": null\n"
                                    "  },\n"
                                    "  \"services\": []\n"
                                    "}\n");
}

static void upgrade_prints_phases_and_result(void **state)
{
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    world_start(world, verb_upgrade, "--admin", world->path, "web");
    world_receive(world);
    assert_int_equal(world->request->body_case, GAPLESS__ADMIN__REQUEST__BODY_UPGRADE);
    assert_string_equal(world->request->upgrade->service, "web");
    assert_false(world->request->upgrade->no_wait);
    world_send_progress(world, "spawn", "2 workers", 0);
    world_send_progress(world, "ready", "", 12345);
    world_send_result(world, 0, "generation 2 of web serves");
    assert_int_equal(world_end(world), 0);
    assert_string_equal(world->out, "    0.00 s  web  spawn: 2 workers\n"
                                    "   12.35 s  web  ready\n"
                                    "generation 2 of web serves\n");
    assert_string_equal(world->err, "");
}

static void upgrade_prints_each_phase_as_it_comes(void **state)
{
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    world_start(world, verb_upgrade, "--admin", world->path);
    world_receive(world);
    assert_null(world->request->upgrade->service);
    world_send_progress(world, "spawn", "", 0);
    for (int ms = 0; ms < DEADLINE_MS && !*world->out; ms++) {
        poll(NULL, 0, 1);
        world_read(world, "out", world->out, sizeof world->out);
    }
    assert_string_equal(world->out, "    0.00 s  web  spawn\n");
    world_send_result(world, 0, "");
    assert_int_equal(world_end(world), 0);
    assert_string_equal(world->out, "    0.00 s  web  spawn\ndone\n");
}

static void upgrade_prints_json_lines(void **state)
{
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    world_start(world, verb_upgrade, "--json", "--no-wait", "--admin", world->path);
    world_receive(world);
    assert_true(world->request->upgrade->has_no_wait && world->request->upgrade->no_wait);
    world_send_progress(world, "spawn", "", 3);
    world_send_result(world, 1, "worker 0 exited with code 1");
    assert_int_equal(world_end(world), 1);
    assert_string_equal(world->out,
        "{\"progress\": {\"service\": \"web\", \"phase\": \"spawn\", \"text\": \"\", \"elapsed_ms\": 3}}\n"
        "{\"result\": {\"code\": 1, \"reason\": \"worker 0 exited with code 1\"}}\n");
    assert_string_equal(world->err, "gapless: the upgrade failed: worker 0 exited with code 1\n");
}

/* Nothing takes time: no column for it. */
static void dry_run_prints_the_plan(void **state)
{
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    world_start(world, verb_upgrade, "--dry-run", "--admin", world->path, "web");
    world_receive(world);
    assert_int_equal(world->request->body_case, GAPLESS__ADMIN__REQUEST__BODY_UPGRADE);
    assert_true(world->request->upgrade->has_dry_run && world->request->upgrade->dry_run);
    assert_string_equal(world->request->upgrade->service, "web");
    world_send_progress(world, "plan", "2 workers of ./web (/srv/2/web)", 3);
    world_send_progress(world, "smoke", "skipped", 3);
    world_send_result(world, 0, "an upgrade of web could begin");
    assert_int_equal(world_end(world), 0);
    assert_string_equal(world->out, "web  plan: 2 workers of ./web (/srv/2/web)\n"
                                    "web  smoke: skipped\n"
                                    "an upgrade of web could begin\n");
    gapless__admin__request__free_unpacked(world->request, NULL);
    world->request = NULL;
    world_start(world, verb_upgrade, "--dry-run", "--admin", world->path);
    world_receive(world);
    world_send_result(world, 1, "./web: No such file or directory");
    assert_int_equal(world_end(world), 1);
    assert_string_equal(world->err, "gapless: the dry run failed: ./web: No such file or directory\n");
    world_start(world, verb_upgrade, "--dry-run", "--no-wait", "--admin", world->path);
    assert_int_equal(world_end(world), 2);
    assert_non_null(strstr(world->err, "exclude each other"));
}

static void upgrade_that_was_rolled_back_says_so(void **state)
{
    static const char *const reasons[][2] = {
        {"rolled back in observe: 3 crashes within 5 s",
            "gapless: the upgrade was rolled back in observe: 3 crashes within 5 s\n"},
        {"web: rolled back", "gapless: the upgrade failed: web: rolled back\n"},
    };
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        world_start(world, verb_upgrade, "--admin", world->path);
        world_receive(world);
        gapless__admin__request__free_unpacked(world->request, NULL);
        world->request = NULL;
        world_send_result(world, 1, reasons[i][0]);
        assert_int_equal(world_end(world), 1);
        assert_string_equal(world->err, reasons[i][1]);
    }
}

static void rollback_and_restart_ask_for_what_they_are(void **state)
{
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    world_start(world, verb_rollback, "web", "--admin", world->path);
    world_receive(world);
    assert_int_equal(world->request->body_case, GAPLESS__ADMIN__REQUEST__BODY_ROLLBACK);
    assert_string_equal(world->request->rollback->service, "web");
    assert_false(world->request->rollback->no_wait || world->request->rollback->force);
    gapless__admin__request__free_unpacked(world->request, NULL);
    world->request = NULL;
    world_send_progress(world, "switch", "generation 1 serves again", 10);
    world_send_result(world, 0, "generation 1 of web serves");
    assert_int_equal(world_end(world), 0);
    assert_string_equal(
        world->out, "    0.01 s  web  switch: generation 1 serves again\ngeneration 1 of web serves\n");

    world_start(world, verb_restart, "--no-wait", "--admin", world->path);
    world_receive(world);
    assert_int_equal(world->request->body_case, GAPLESS__ADMIN__REQUEST__BODY_RESTART);
    assert_null(world->request->restart->service);
    assert_true(world->request->restart->has_no_wait && world->request->restart->no_wait);
    world_send_result(world, 3, "an upgrade of web is under way");
    assert_int_equal(world_end(world), 3);
    assert_string_equal(world->err, "gapless: the restart was refused: an upgrade of web is under way\n");
}

static void rollback_may_be_forced_and_nothing_else(void **state)
{
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    world_start(world, verb_rollback, "--force", "web", "--admin", world->path);
    world_receive(world);
    assert_true(world->request->rollback->has_force && world->request->rollback->force);
    assert_string_equal(world->request->rollback->service, "web");
    world_send_result(world, 3, "12 changes made since the switch would be lost");
    assert_int_equal(world_end(world), 3);
    assert_string_equal(
        world->err, "gapless: the rollback was refused: 12 changes made since the switch would be lost\n");
    int (*const others[])(int, char *const[]) = {verb_upgrade, verb_restart};
    for (size_t i = 0; i < 2; i++) {
        world_start(world, others[i], "--force", "--admin", world->path);
        assert_int_equal(world_end(world), 2);
        assert_non_null(strstr(world->err, "--force"));
    }
    world_start(world, verb_rollback, "--dry-run", "--admin", world->path);
    assert_int_equal(world_end(world), 2);
}

static void result_is_the_exit_code(void **state)
{
    static const struct {
        int code, exit;
        const char *reason, *err;
    } cases[] = {
        {1, 1, "not ready within 5 s", "gapless: the stop failed: not ready within 5 s\n"},
        {2, 2, "there is no service x", "gapless: there is no service x\n"},
        {3, 3, "one is under way", "gapless: the stop was refused: one is under way\n"},
        {3, 3, "", "gapless: the stop was refused\n"},
        /* Codes that a later master may have, and what isn't one at all. */
        {4, 1, "x", "gapless: the stop failed: x\n"},
        {256, 1, "x", "gapless: the stop failed: x\n"},
        {-1, 1, "x\x1b[2J", "gapless: the stop failed: x?[2J\n"},
    };
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        world_start(world, verb_stop, "--admin", world->path);
        world_receive(world);
        assert_int_equal(world->request->body_case, GAPLESS__ADMIN__REQUEST__BODY_STOP);
        gapless__admin__request__free_unpacked(world->request, NULL);
        world->request = NULL;
        world_send_result(world, cases[i].code, cases[i].reason);
        assert_int_equal(world_end(world), cases[i].exit);
        assert_string_equal(world->err, cases[i].err);
        assert_string_equal(world->out, "");
    }
}

static void replies_may_come_in_pieces(void **state)
{
    struct world *world = *state;
    uint8_t frame[1024];
    world->listen_fd = world_listen(world->path);
    world_start(world, verb_stop, "--admin", world->path);
    world_receive(world);
    char reason[301];
    memset(reason, 'r', sizeof reason - 1);
    reason[300] = '\0';
    size_t size = world_result_frame(0, reason, frame);
    for (size_t i = 0; i < size; i++)
        world_send(world, frame + i, 1);
    assert_int_equal(world_end(world), 0);
    assert_int_equal(strlen(world->out), 301);
}

static void reply_of_a_later_master_is_passed_over(void **state)
{
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    world_start(world, verb_stop, "--admin", world->path);
    world_receive(world);
    static const uint8_t unknown[] = {2, 0x7a, 0x00};
    world_send(world, unknown, sizeof unknown);
    world_send_result(world, 0, "stopped");
    assert_int_equal(world_end(world), 0);
    assert_string_equal(world->out, "stopped\n");
}

/* As the real one does with a client too many: it doesn't read the request. */
static void master_that_refuses_at_once_is_heard(void **state)
{
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    world_start(world, verb_status, "--admin", world->path);
    world_accept(world);
    world_send_result(world, 3, "64 clients are connected");
    close(world->fd);
    world->fd = -1;
    assert_int_equal(world_end(world), 3);
    assert_string_equal(world->err, "gapless: the status was refused: 64 clients are connected\n");
}

/* The same where it has closed before there was a request. */
static void master_that_has_hung_up_is_still_heard(void **state)
{
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    struct client *client;
    struct error error;
    const struct client_target target = {.admin = world->path};
    assert_int_equal(client_open(&target, &client, &error), 0);
    world_accept(world);
    world_send_result(world, 3, "no");
    close(world->fd);
    world->fd = -1;
    Gapless__Admin__Request request = GAPLESS__ADMIN__REQUEST__INIT;
    assert_int_equal(client_send(client, &request, &error), 0);
    Gapless__Admin__Reply *reply;
    assert_int_equal(client_receive(client, DEADLINE_MS, &reply, &error), 0);
    assert_int_equal(reply->result->code, 3);
    gapless__admin__reply__free_unpacked(reply, NULL);
    assert_int_equal(client_receive(client, DEADLINE_MS, &reply, &error), -EPIPE);
    client_free(client);
}

static void interrupt_only_stops_watching(void **state)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        world_start(world, verb_upgrade, "--admin", world->path);
        world_receive(world);
        gapless__admin__request__free_unpacked(world->request, NULL);
        world->request = NULL;
        kill(world->pid, signals[i]);
        assert_int_equal(world_end(world), 130);
        assert_string_equal(world->err, "gapless: no longer watching; the upgrade goes on\n");
    }
}

static void master_that_hangs_up_is_a_failure(void **state)
{
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    world_start(world, verb_upgrade, "--admin", world->path);
    world_receive(world);
    world_send(world, "\x20half", 5);
    close(world->fd);
    world->fd = -1;
    assert_int_equal(world_end(world), 1);
    assert_non_null(strstr(world->err, "whether the upgrade goes on isn't known"));
    assert_non_null(strstr(world->err, "hung up"));
}

static void what_is_no_master_is_a_failure(void **state)
{
    static const struct {
        const char *data;
        size_t size;
    } cases[] = {{"\x04\xff\xff\xff\xff", 5}, {"\xff\xff\xff\xff\xff\xff", 6}, {"\xff\xff\xff\xff\x0f", 5}};
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        world_start(world, verb_status, "--admin", world->path);
        world_accept(world);
        world_send(world, cases[i].data, cases[i].size);
        assert_int_equal(world_end(world), 1);
        assert_non_null(strstr(world->err, "doesn't answer like a master"));
    }
}

static void master_that_does_not_answer_is_given_up(void **state)
{
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    struct client *client;
    struct error error;
    const struct client_target target = {.admin = world->path};
    assert_int_equal(client_open(&target, &client, &error), 0);
    Gapless__Admin__Reply *reply;
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    world_accept(world);
    world_send(world, "\x20half", 5);
    assert_int_equal(client_receive(client, 100, &reply, &error), -ETIMEDOUT);
    clock_gettime(CLOCK_MONOTONIC, &end);
    assert_in_range((end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000, 99, 2000);
    assert_int_equal(client_exit_code(-ETIMEDOUT), 1);
    client_free(client);
}

static void no_master_is_code_4(void **state)
{
    struct world *world = *state;
    world_start(world, verb_status, "--admin", world->path);
    assert_int_equal(world_end(world), 4);
    assert_non_null(strstr(world->err, "no gapless master is running here (looked at "));
    /* A socket file that a dead master left, alone or by name, is none. */
    close(world_listen(world->path));
    world_start(world, verb_status, "--name", "web");
    assert_int_equal(world_end(world), 4);
    world_start(world, verb_upgrade, NULL);
    assert_int_equal(world_end(world), 4);
    assert_non_null(strstr(world->err, "no gapless master is running here (looked in "));
    assert_non_null(strstr(world->err, world->sockets));
    unlink(world->path);
    rmdir(world->sockets);
    world_start(world, verb_stop, NULL);
    assert_int_equal(world_end(world), 4);
}

static void only_master_needs_no_name(void **state)
{
    struct world *world = *state;
    char dead[128];
    snprintf(dead, sizeof dead, "%s/dead.sock", world->sockets);
    close(world_listen(dead));
    world->listen_fd = world_listen(world->path);
    world_start(world, verb_stop, NULL);
    world_receive(world);
    world_send_result(world, 0, "stopped");
    assert_int_equal(world_end(world), 0);
}

static void master_that_is_too_busy_to_accept_is_one(void **state)
{
    struct world *world = *state;
    world->listen_fd = world_listen(world->path);
    assert_int_equal(listen(world->listen_fd, 0), 0);
    struct client *client;
    struct error error;
    const struct client_target target = {.admin = world->path};
    assert_int_equal(client_open(&target, &client, &error), 0);
    struct masters masters;
    assert_int_equal(masters_find(world->sockets, &masters, &error), 0);
    assert_int_equal(masters.count, 1);
    assert_string_equal(masters.paths[0], world->path);
    masters_done(&masters);
    client_free(client);
}

static void several_masters_are_listed(void **state)
{
    struct world *world = *state;
    char other[128];
    snprintf(other, sizeof other, "%s/api.sock", world->sockets);
    int fd = world_listen(other);
    world->listen_fd = world_listen(world->path);
    world_start(world, verb_status, NULL);
    assert_int_equal(world_end(world), 2);
    assert_string_equal(world->err, "gapless: 2 masters are running here; say which one:\n"
                                    "  --name api\n"
                                    "  --name web\n");
    close(fd);
}

static void very_many_masters_are_listed_in_whole_lines(void **state)
{
    struct world *world = *state;
    int fds[60];
    for (int i = 0; i < 60; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/instance-%02d.sock", world->sockets, i);
        fds[i] = world_listen(path);
    }
    world_start(world, verb_status, NULL);
    assert_int_equal(world_end(world), 2);
    assert_non_null(strstr(world->err, "60 masters"));
    size_t length = strlen(world->err);
    assert_string_equal(world->err + length - strlen("\n  …\n"), "\n  …\n");
    for (int i = 0; i < 60; i++)
        close(fds[i]);
}

static void option_goes_before_the_environment(void **state)
{
    struct world *world = *state;
    char other[128];
    snprintf(other, sizeof other, "%s/elsewhere", world->directory);
    setenv("GAPLESS_ADMIN", other, 1);
    world_start(world, verb_status, NULL);
    int code = world_end(world);
    world->listen_fd = world_listen(world->path);
    world_start(world, verb_stop, "--name", "web");
    unsetenv("GAPLESS_ADMIN");
    assert_int_equal(code, 4);
    assert_non_null(strstr(world->err, other));
    world_receive(world);
    world_send_result(world, 0, "");
    assert_int_equal(world_end(world), 0);
}

static void wrong_usage_is_code_2(void **state)
{
    struct world *world = *state;
    world_start(world, verb_status, "--admin", "");
    assert_int_equal(world_end(world), 2);
    world_start(world, verb_status, "--name", "../x");
    assert_int_equal(world_end(world), 2);
    world_start(world, verb_upgrade, "a", "b");
    assert_int_equal(world_end(world), 2);
    assert_string_equal(world->err, "gapless upgrade: \"b\" is one SERVICE too many\n");
    world_start(world, verb_stop, "--help");
    assert_int_equal(world_end(world), 0);
    assert_memory_equal(world->out, "usage: gapless stop ", 20);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void)
{
    unsetenv("GAPLESS_ADMIN");
    const struct CMUnitTest client[] = {
        CASE(status_prints_a_table),
        CASE(status_prints_json),
        CASE(upgrade_prints_phases_and_result),
        CASE(upgrade_prints_each_phase_as_it_comes),
        CASE(upgrade_prints_json_lines),
        CASE(dry_run_prints_the_plan),
        CASE(upgrade_that_was_rolled_back_says_so),
        CASE(rollback_and_restart_ask_for_what_they_are),
        CASE(rollback_may_be_forced_and_nothing_else),
        CASE(result_is_the_exit_code),
        CASE(replies_may_come_in_pieces),
        CASE(reply_of_a_later_master_is_passed_over),
        CASE(master_that_refuses_at_once_is_heard),
        CASE(master_that_has_hung_up_is_still_heard),
        CASE(interrupt_only_stops_watching),
        CASE(master_that_hangs_up_is_a_failure),
        CASE(what_is_no_master_is_a_failure),
        CASE(master_that_does_not_answer_is_given_up),
        CASE(no_master_is_code_4),
        CASE(only_master_needs_no_name),
        CASE(master_that_is_too_busy_to_accept_is_one),
        CASE(several_masters_are_listed),
        CASE(very_many_masters_are_listed_in_whole_lines),
        CASE(option_goes_before_the_environment),
        CASE(wrong_usage_is_code_2),
    };
    return cmocka_run_group_tests(client, NULL, NULL);
}
