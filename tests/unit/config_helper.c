/* SPDX-License-Identifier: BSD-2-Clause */
#include "config_helper.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static int load(const char *const words[], const char *yaml, struct config **ret_config, struct error *error)
{
    char *argv[WORDS_MAX + 1];
    int argc = 0;
    for (; words[argc]; argc++)
        argv[argc] = (char *)words[argc];
    enum config_action action = (enum config_action)99;
    int result = config_load(argc, argv, yaml, ret_config, &action, error);
    if (result == 0)
        assert_int_equal(action, CONFIG_RUN);
    return result;
}

static void refuse(const char *const words[], const char *yaml, const char *message)
{
    struct config *config = (struct config *)&config;
    struct error error = {0};
    int result = load(words, yaml, &config, &error);
    if (result == 0)
        fail_msg("accepted; expected '%s'", message);
    assert_string_equal(error.message, message);
    assert_int_equal(result, -error.code);
    assert_int_equal(error.blame, BLAME_USER);
    assert_null(strpbrk(error.message, "\n\r\t"));
    /* The output is untouched, and the caller may do without a message. */
    assert_ptr_equal(config, &config);
    assert_int_equal(load(words, yaml, &config, NULL), result);
}

struct config *load_words(const char *const words[])
{
    struct config *config = NULL;
    struct error error = {0};
    if (load(words, NULL, &config, &error) < 0)
        fail_msg("%s", error.message);
    return config;
}

void refuse_words(const char *const words[], const char *message)
{
    refuse(words, NULL, message);
}

struct config *load_text(const char *yaml)
{
    struct config *config = NULL;
    struct error error = {0};
    if (load((const char *const[]){"-c", "w.yaml", NULL}, yaml, &config, &error) < 0)
        fail_msg("%s", error.message);
    return config;
}

void refuse_text(const char *yaml, const char *message)
{
    refuse((const char *const[]){"-c", "w.yaml", NULL}, yaml, message);
}

void refuse_all(const struct mistake *mistakes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        refuse_text(mistakes[i].yaml, mistakes[i].message);
}
