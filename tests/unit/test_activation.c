/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/activation.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct activation_listener listeners[] = {
    {"web", "127.0.0.1:80"}, {"tcp:[::1]:81", "[::1]:81"}, {"ux", "/run/x"}};
static char *environment[] = {
    "PATH=/bin", "LISTEN_FDS=9", "NOTIFY_SOCKET=/other", "GAPLESS_FD=77", "HOME=/root", NULL};

static struct activation_request request_for(const struct config_service *service)
{
    return (struct activation_request){.service = service,
        .listeners = listeners,
        .listener_count = 3,
        .environment = environment,
        .generation = 7,
        .worker = 1,
        .main_pid = 42,
        .notify_address = "@00001",
        .einhorn_path = service->activation == ACTIVATION_EINHORN ? "/run/e" : NULL};
}

static const char *value(const struct activation *activation, const char *name)
{
    const char *found = NULL;
    size_t length = strlen(name);
    for (size_t i = 0; i < activation->envp.count; i++)
        if (strncmp(activation->envp.items[i], name, length) == 0 &&
            activation->envp.items[i][length] == '=') {
            assert_null(found); /* once */
            found = activation->envp.items[i] + length + 1;
        }
    return found;
}

static void all_conventions_name_the_same_descriptors(void **unused)
{
    char *command[] = {"server", "--fd={fd:ux}", "{fds:,}", NULL};
    char *env[] = {"NGINX={fds:;}", "FPM_SOCKETS=/run/x={fd:ux}", NULL};
    struct config_service service = {
        .name = "s", .command = command, .env = env, .activation = ACTIVATION_EINHORN};
    struct activation_request request = request_for(&service);
    struct activation activation;
    assert_int_equal(activation_prepare(&request, &activation, NULL), 0);
    assert_string_equal(activation.argv.items[1], "--fd=5");
    assert_string_equal(activation.argv.items[2], "3,4,5,");
    assert_null(activation.argv.items[3]);
    assert_string_equal(value(&activation, "NGINX"), "3;4;5;");
    assert_string_equal(value(&activation, "FPM_SOCKETS"), "/run/x=5");
    assert_string_equal(value(&activation, "LISTEN_FDS"), "3");
    assert_string_equal(value(&activation, "LISTEN_FDNAMES"), "web:tcp_[__1]_81:ux");
    assert_string_equal(value(&activation, "SERVER_STARTER_PORT"), "127.0.0.1:80=3;[::1]:81=4;/run/x=5");
    assert_string_equal(value(&activation, "SERVER_STARTER_GENERATION"), "7");
    assert_string_equal(value(&activation, "EINHORN_FD_COUNT"), "3");
    assert_string_equal(value(&activation, "EINHORN_FD_2"), "5");
    assert_string_equal(value(&activation, "EINHORN_MASTER_PID"), "42");
    assert_string_equal(value(&activation, "EINHORN_SOCK_PATH"), "/run/e");
    assert_string_equal(value(&activation, "GAPLESS_FD"), "6");
    assert_string_equal(value(&activation, "GAPLESS_WORKER"), "1");
    assert_int_equal(activation.control_fd, 6);
    assert_int_equal(strlen(activation.listen_pid), ACTIVATION_PID_ROOM - 1);
    activation_done(&activation);
}

static void what_another_manager_said_is_left_out(void **unused)
{
    char *command[] = {"server", NULL};
    struct config_service service = {.name = "s", .command = command, .activation = ACTIVATION_NONE};
    struct activation_request request = request_for(&service);
    struct activation activation;
    assert_int_equal(activation_prepare(&request, &activation, NULL), 0);
    assert_null(value(&activation, "LISTEN_FDS"));
    assert_string_equal(value(&activation, "NOTIFY_SOCKET"), "@00001");
    assert_string_equal(value(&activation, "HOME"), "/root");
    assert_int_equal(activation.inherited_count, 0);
    assert_string_equal(value(&activation, "GAPLESS_FD"), "3");
    activation_done(&activation);
}

static void a_watchdog_is_told_with_room_for_the_pid(void **unused)
{
    char *command[] = {"server", NULL};
    struct config_service service = {
        .name = "s", .command = command, .activation = ACTIVATION_NONE, .watchdog_ms = 1500};
    struct activation_request request = request_for(&service);
    struct activation activation;
    assert_int_equal(activation_prepare(&request, &activation, NULL), 0);
    assert_string_equal(value(&activation, "WATCHDOG_USEC"), "1500000");
    assert_ptr_equal(value(&activation, "WATCHDOG_PID"), activation.watchdog_pid);
    assert_int_equal(strlen(activation.watchdog_pid), ACTIVATION_PID_ROOM - 1);
    assert_null(activation.listen_pid);
    activation_done(&activation);
    service.watchdog_ms = 0;
    assert_int_equal(activation_prepare(&request, &activation, NULL), 0);
    assert_null(value(&activation, "WATCHDOG_USEC"));
    assert_null(activation.watchdog_pid);
    activation_done(&activation);
}

static void without_activation_only_named_listeners_are_inherited(void **unused)
{
    char *command[] = {"server", "{fd:ux}", NULL};
    struct config_service service = {.name = "s", .command = command, .activation = ACTIVATION_NONE};
    struct activation_request request = request_for(&service);
    struct activation activation;
    assert_int_equal(activation_prepare(&request, &activation, NULL), 0);
    assert_int_equal(activation.inherited_count, 1);
    assert_int_equal(activation.inherited[0], 2);
    assert_string_equal(activation.argv.items[1], "3");
    activation_done(&activation);
}

static void what_is_stored_follows_in_the_convention_of_systemd_alone(void **unused)
{
    static const char *const names[] = {"counter", "client", "client"};
    char *command[] = {"server", "{fds:,}", NULL};
    struct config_service service = {
        .name = "s", .command = command, .activation = ACTIVATION_EINHORN, .vault_entries = 64};
    struct activation_request request = request_for(&service);
    request.stored = names;
    request.stored_count = 3;
    struct activation activation;
    assert_int_equal(activation_prepare(&request, &activation, NULL), 0);
    assert_string_equal(activation.argv.items[1], "3,4,5,");
    assert_string_equal(value(&activation, "LISTEN_FDS"), "6");
    assert_string_equal(value(&activation, "LISTEN_FDNAMES"), "web:tcp_[__1]_81:ux:counter:client:client");
    assert_string_equal(value(&activation, "SERVER_STARTER_PORT"), "127.0.0.1:80=3;[::1]:81=4;/run/x=5");
    assert_string_equal(value(&activation, "EINHORN_FD_COUNT"), "3");
    assert_string_equal(value(&activation, "FDSTORE"), "64");
    assert_int_equal(activation.stored_count, 3);
    assert_int_equal(activation.control_fd, 9);
    activation_done(&activation);

    request.listener_count = 0;
    service.vault_entries = 0;
    assert_int_equal(activation_prepare(&request, &activation, NULL), 0);
    assert_string_equal(value(&activation, "LISTEN_FDS"), "3");
    assert_string_equal(value(&activation, "LISTEN_FDNAMES"), "counter:client:client");
    assert_null(value(&activation, "SERVER_STARTER_PORT"));
    assert_null(value(&activation, "FDSTORE"));
    activation_done(&activation);

    service.activation = ACTIVATION_NONE;
    assert_int_equal(activation_prepare(&request, &activation, NULL), 0);
    assert_null(value(&activation, "LISTEN_FDS"));
    assert_int_equal(activation.stored_count, 0);
    assert_int_equal(activation.control_fd, 3);
    activation_done(&activation);
}

static void a_wrong_placeholder_is_named(void **unused)
{
    static const char *const wrong[] = {"{fd:wbe}", "{fd:", "x{fd:web", "{fds:;"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *command[] = {"server", (char *)wrong[i], NULL};
        struct config_service service = {.name = "s", .command = command};
        struct activation_request request = request_for(&service);
        struct activation activation;
        struct error error;
        assert_int_equal(activation_prepare(&request, &activation, &error), -EINVAL);
        assert_int_equal(error.blame, BLAME_USER);
        assert_non_null(strstr(error.message, "command: "));
    }
}

static void other_braces_are_text(void **unused)
{
    char *command[] = {"server", "{\"json\": {fd}}", "{}", NULL};
    struct config_service service = {.name = "s", .command = command};
    struct activation_request request = request_for(&service);
    struct activation activation;
    assert_int_equal(activation_prepare(&request, &activation, NULL), 0);
    assert_string_equal(activation.argv.items[1], command[1]);
    activation_done(&activation);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_conventions_name_the_same_descriptors),
        cmocka_unit_test(what_another_manager_said_is_left_out),
        cmocka_unit_test(a_watchdog_is_told_with_room_for_the_pid),
        cmocka_unit_test(without_activation_only_named_listeners_are_inherited),
        cmocka_unit_test(what_is_stored_follows_in_the_convention_of_systemd_alone),
        cmocka_unit_test(a_wrong_placeholder_is_named),
        cmocka_unit_test(other_braces_are_text),
    };
    return cmocka_run_group_tests_name("activation", tests, NULL, NULL);
}
