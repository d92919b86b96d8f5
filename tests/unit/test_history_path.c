/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "master/history_path.h"

#include <errno.h>
#include <string.h>

static struct error error;

static void directory_follows_from_user_and_environment(void **state)
{
    static const struct {
        struct history_path_context context;
        const char *path;
    } cases[] = {
        {{.uid = 0, .state_home = "/s", .home = "/h"}, "/var/lib/gapless/web.history.jsonl"},
        {{.uid = 7, .state_home = "/s", .home = "/h"}, "/s/gapless/web.history.jsonl"},
        {{.uid = 7, .state_home = "s", .home = "/h"}, "/h/.local/state/gapless/web.history.jsonl"},
        {{.uid = 7, .state_home = "", .home = "/h"}, "/h/.local/state/gapless/web.history.jsonl"},
        {{.uid = 7, .home = "/h"}, "/h/.local/state/gapless/web.history.jsonl"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[PATH_MAX];
        assert_int_equal(history_path_named(&cases[i].context, "web", path, &error), 0);
        assert_string_equal(path, cases[i].path);
    }
}

static void without_environment_there_is_none(void **state)
{
    const struct history_path_context context = {.uid = 7, .home = "h"};
    char path[PATH_MAX];
    assert_int_equal(history_path_named(&context, "web", path, &error), -ENOENT);
    assert_non_null(strstr(error.message, "XDG_STATE_HOME"));
}

static void name_can_not_lead_elsewhere(void **state)
{
    static const char *const names[] = {"", ".", "..", ".web", "a/b", "/web"};
    const struct history_path_context context = {.uid = 0};
    char path[PATH_MAX], home[PATH_MAX];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(history_path_named(&context, names[i], path, &error), -EINVAL);
    memset(home, 'a', sizeof home - 1);
    home[0] = '/';
    home[sizeof home - 1] = '\0';
    const struct history_path_context far = {.uid = 7, .home = home};
    assert_int_equal(history_path_named(&far, "web", path, &error), -ENAMETOOLONG);
}

static void file_names_are_known(void **state)
{
    size_t length;
    assert_true(history_path_is_file_name("web.history.jsonl", &length));
    assert_int_equal(length, 3);
    assert_true(history_path_is_file_name("a.b.history.jsonl", &length));
    assert_int_equal(length, 3);
    assert_false(history_path_is_file_name("web.history.jsonl.1", &length));
    assert_false(history_path_is_file_name(".history.jsonl", &length));
    assert_false(history_path_is_file_name("history.jsonl", &length));
    assert_false(history_path_is_file_name("web.sock", &length));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directory_follows_from_user_and_environment),
        cmocka_unit_test(without_environment_there_is_none),
        cmocka_unit_test(name_can_not_lead_elsewhere),
        cmocka_unit_test(file_names_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
