/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/options.h"

#include <errno.h>
#include <string.h>

#define ARGUMENT_MAX 8

static bool json, verbose;
static const char *admin, *service, *count;
static struct error error;

/* Parses the arguments, up to the first NULL, with a flag, a value and an operand. */
static int parse(const char *const arguments[ARGUMENT_MAX])
{
    static const struct option_spec specs[] = {{.name = "json", .flag = &json},
        {.name = "admin", .value = &admin}, {.name = "count", .letter = 'n', .value = &count},
        {.name = "verbose", .letter = 'v', .flag = &verbose}};
    static const struct option_set set = {
        .verb = "upgrade", .specs = specs, .spec_count = 4, .operand_name = "SERVICE", .operand = &service};
    char *argv[ARGUMENT_MAX];
    int argc = 0;
    for (; arguments[argc]; argc++)
        argv[argc] = (char *)arguments[argc];
    json = verbose = false;
    admin = service = count = NULL;
    error.message[0] = '\0';
    return options_parse(&set, argc, argv, &error);
}
#define PARSE(...) parse((const char *const[ARGUMENT_MAX]){__VA_ARGS__})

static void options_and_operands_mix(void **state)
{
    assert_int_equal(PARSE(NULL), 0);
    assert_false(json);
    assert_null(admin);
    assert_null(service);
    assert_int_equal(PARSE("--admin", "/x", "web", "--json"), 0);
    assert_true(json);
    assert_string_equal(admin, "/x");
    assert_string_equal(service, "web");
    assert_int_equal(PARSE("--admin=/a=b"), 0);
    assert_string_equal(admin, "/a=b");
    assert_int_equal(PARSE("--admin="), 0);
    assert_string_equal(admin, "");
    assert_int_equal(PARSE("--admin", "--json"), 0);
    assert_string_equal(admin, "--json");
    assert_false(json);
    assert_int_equal(PARSE("--admin", "1", "--admin", "2"), 0);
    assert_string_equal(admin, "2");
}

static void dashes_end_the_options(void **state)
{
    assert_int_equal(PARSE("--json", "--", "--admin"), 0);
    assert_string_equal(service, "--admin");
    assert_null(admin);
    assert_int_equal(PARSE("-"), 0);
    assert_string_equal(service, "-");
}

static void help_is_always_there(void **state)
{
    assert_int_equal(PARSE("--help"), 1);
    assert_int_equal(PARSE("--json", "-h", "--nonsense"), 1);
    assert_int_equal(PARSE("--", "--help"), 0);
    assert_string_equal(service, "--help");
}

static void what_is_wrong_is_named(void **state)
{
    assert_int_equal(PARSE("--jsno"), -EINVAL);
    assert_string_equal(error.message, "there is no option --jsno; did you mean --json?");
    assert_int_equal(error.blame, BLAME_USER);
    assert_int_equal(PARSE("--hepl"), -EINVAL);
    assert_string_equal(error.message, "there is no option --hepl; did you mean --help?");
    assert_int_equal(PARSE("--xyzzyplugh=1"), -EINVAL);
    assert_string_equal(error.message, "there is no option --xyzzyplugh");
    assert_int_equal(PARSE("-j"), -EINVAL);
    assert_string_equal(error.message, "there is no option -j");
    assert_int_equal(PARSE("--json=yes"), -EINVAL);
    assert_string_equal(error.message, "--json takes no value");
    assert_int_equal(PARSE("--admin"), -EINVAL);
    assert_string_equal(error.message, "--admin needs a value");
    assert_int_equal(PARSE("a", "b"), -EINVAL);
    assert_string_equal(error.message, "\"b\" is one SERVICE too many");
    /* A name that only begins like an option isn't one. */
    assert_int_equal(PARSE("--js"), -EINVAL);
    assert_int_equal(PARSE("--helper"), -EINVAL);
}

static void verb_without_operands_takes_none(void **state)
{
    const struct option_set set = {.verb = "stop"};
    char *argv[] = {(char *)"web"};
    assert_int_equal(options_parse(&set, 1, argv, &error), -EINVAL);
    assert_non_null(strstr(error.message, "\"web\""));
}

static void short_option_has_its_value_behind_it_or_next(void **state)
{
    assert_int_equal(PARSE("-n", "5", "web"), 0);
    assert_string_equal(count, "5");
    assert_string_equal(service, "web");
    assert_int_equal(PARSE("web", "-n7"), 0);
    assert_string_equal(count, "7");
    assert_int_equal(PARSE("--count=9"), 0);
    assert_string_equal(count, "9");
    assert_int_equal(PARSE("-n"), -EINVAL);
    assert_string_equal(error.message, "-n needs a value");
}

static void short_flag_takes_no_value(void **state)
{
    assert_int_equal(PARSE("-v", "web"), 0);
    assert_true(verbose);
    assert_string_equal(service, "web");
    assert_int_equal(PARSE("--verbose", "-n3"), 0);
    assert_true(verbose);
    assert_string_equal(count, "3");
    assert_int_equal(PARSE("-vn"), -EINVAL);
    assert_string_equal(error.message, "-v takes no value");
}

int main(void)
{
    const struct CMUnitTest options[] = {
        cmocka_unit_test(short_option_has_its_value_behind_it_or_next),
        cmocka_unit_test(short_flag_takes_no_value),
        cmocka_unit_test(options_and_operands_mix),
        cmocka_unit_test(dashes_end_the_options),
        cmocka_unit_test(help_is_always_there),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(verb_without_operands_takes_none),
    };
    return cmocka_run_group_tests(options, NULL, NULL);
}
