/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "master/admin_path.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct admin_path_context root = {.uid = 0, .runtime_dir = "/run/user/0"};
static const struct admin_path_context user = {.uid = 1000, .runtime_dir = "/run/user/1000"};
static const struct admin_path_context container = {.uid = 1000};
static const struct admin_path_context with_environment = {
    .uid = 0, .runtime_dir = "/run/user/0", .admin = "/srv/env.sock"};

static void directory_is_the_users(void **state)
{
    static const struct {
        struct admin_path_context context;
        const char *directory;
    } cases[] = {
        {{.uid = 0}, "/run/gapless"},
        {{.uid = 0, .runtime_dir = "/run/user/0"}, "/run/gapless"},
        {{.uid = 1000, .runtime_dir = "/run/user/1000"}, "/run/user/1000/gapless"},
        {{.uid = 1000}, "/tmp/gapless-1000"},
        {{.uid = 1000, .runtime_dir = ""}, "/tmp/gapless-1000"},
        {{.uid = 1000, .runtime_dir = "relative"}, "/tmp/gapless-1000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[ADMIN_PATH_MAX];
        assert_int_equal(admin_path_directory(&cases[i].context, path, NULL), 0);
        assert_string_equal(path, cases[i].directory);
    }
}

static void name_is_a_file_in_it(void **state)
{
    char path[ADMIN_PATH_MAX];
    assert_int_equal(admin_path_named(&root, "web", path, NULL), 0);
    assert_string_equal(path, "/run/gapless/web.sock");
    assert_int_equal(admin_path_named(&user, "a b", path, NULL), 0);
    assert_string_equal(path, "/run/user/1000/gapless/a b.sock");
    assert_int_equal(admin_path_named(&container, "web", path, NULL), 0);
    assert_string_equal(path, "/tmp/gapless-1000/web.sock");
}

static void name_that_leads_elsewhere_is_refused(void **state)
{
    static const char *const names[] = {"", ".", "..", ".hidden", "a/b", "/", "../x", "a\nb", "\x7f"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[ADMIN_PATH_MAX] = "untouched";
        struct error error;
        assert_int_equal(admin_path_named(&root, names[i], path, &error), -EINVAL);
        assert_int_equal(error.blame, BLAME_USER);
        assert_string_equal(path, "untouched");
    }
}

static void path_fits_into_an_address_or_is_refused(void **state)
{
    char name[ADMIN_PATH_MAX + 1];
    char path[ADMIN_PATH_MAX] = "untouched";
    memset(name, 'n', sizeof name);
    /* "/run/gapless/" and ".sock" are 18 of the 107. */
    name[90] = '\0';
    assert_int_equal(admin_path_named(&root, name, path, NULL), -ENAMETOOLONG);
    assert_string_equal(path, "untouched");
    name[89] = '\0';
    assert_int_equal(admin_path_named(&root, name, path, NULL), 0);
    assert_int_equal(strlen(path), ADMIN_PATH_MAX - 1);
    bool asked;
    memset(name, 'n', sizeof name);
    name[ADMIN_PATH_MAX] = '\0';
    assert_int_equal(admin_path_for_master(&root, name, "web", path, &asked, NULL), -ENAMETOOLONG);
    name[ADMIN_PATH_MAX - 1] = '\0';
    assert_int_equal(admin_path_for_master(&root, name, "web", path, &asked, NULL), 0);
}

static void master_listens_where_it_was_told_first(void **state)
{
    char path[ADMIN_PATH_MAX];
    bool asked = false;
    assert_int_equal(admin_path_for_master(&with_environment, "/a.sock", "web", path, &asked, NULL), 0);
    assert_string_equal(path, "/a.sock");
    assert_true(asked);
    asked = false;
    assert_int_equal(admin_path_for_master(&with_environment, NULL, "web", path, &asked, NULL), 0);
    assert_string_equal(path, "/srv/env.sock");
    assert_true(asked);
    assert_int_equal(admin_path_for_master(&root, NULL, "web", path, &asked, NULL), 0);
    assert_string_equal(path, "/run/gapless/web.sock");
    assert_false(asked);
    assert_int_equal(admin_path_for_master(&root, "", "web", path, &asked, NULL), -EINVAL);
}

static void verb_looks_where_it_was_told_first(void **state)
{
    char path[ADMIN_PATH_MAX];
    assert_int_equal(admin_path_for_verb(&with_environment, "/a.sock", "web", path, NULL), 1);
    assert_string_equal(path, "/a.sock");
    assert_int_equal(admin_path_for_verb(&with_environment, NULL, "web", path, NULL), 1);
    assert_string_equal(path, "/run/gapless/web.sock");
    assert_int_equal(admin_path_for_verb(&with_environment, NULL, NULL, path, NULL), 1);
    assert_string_equal(path, "/srv/env.sock");
    assert_int_equal(admin_path_for_verb(&root, NULL, NULL, path, NULL), 0);
    assert_string_equal(path, "/run/gapless");
    assert_int_equal(admin_path_for_verb(&root, "", NULL, path, NULL), -EINVAL);
    assert_int_equal(admin_path_for_verb(&root, NULL, "", path, NULL), -EINVAL);
}

static void empty_variable_is_as_none(void **state)
{
    struct admin_path_context context = {.uid = 0, .admin = ""};
    char path[ADMIN_PATH_MAX];
    bool asked = true;
    assert_int_equal(admin_path_for_verb(&context, NULL, NULL, path, NULL), 0);
    assert_int_equal(admin_path_for_master(&context, NULL, "web", path, &asked, NULL), 0);
    assert_false(asked);
}

static void context_is_the_process(void **state)
{
    setenv("GAPLESS_ADMIN", "/x.sock", 1);
    setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
    struct admin_path_context context;
    admin_path_context_get(&context);
    assert_int_equal(context.uid, geteuid());
    assert_string_equal(context.admin, "/x.sock");
    assert_string_equal(context.runtime_dir, "/run/user/7");
}

static void socket_names_are_told_from_others(void **state)
{
    size_t length = 0;
    assert_true(admin_path_is_socket_name("web.sock", &length));
    assert_int_equal(length, 3);
    assert_true(admin_path_is_socket_name("a.b.sock", &length));
    assert_int_equal(length, 3);
    static const char *const others[] = {
        "", ".", "..", ".sock", "web", "web.sock.lock", ".web.sock", "websock"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(admin_path_is_socket_name(others[i], &length));
}

int main(void)
{
    const struct CMUnitTest admin_path[] = {
        cmocka_unit_test(directory_is_the_users),
        cmocka_unit_test(name_is_a_file_in_it),
        cmocka_unit_test(name_that_leads_elsewhere_is_refused),
        cmocka_unit_test(path_fits_into_an_address_or_is_refused),
        cmocka_unit_test(master_listens_where_it_was_told_first),
        cmocka_unit_test(verb_looks_where_it_was_told_first),
        cmocka_unit_test(empty_variable_is_as_none),
        cmocka_unit_test(context_is_the_process),
        cmocka_unit_test(socket_names_are_told_from_others),
    };
    return cmocka_run_group_tests(admin_path, NULL, NULL);
}
