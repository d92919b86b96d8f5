/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/canary.h"

#include "master/config/quote.h"
#include "master/config/value.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORM "a stage such as 5%% 30s"
#define DURATION_MAX INT64_C(86400000)
#define PERCENT 100u /* in hundredths of one */
#define ALL (UINT64_C(100) * PERCENT)

static int out_of_memory(struct error *error)
{
    return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
}

/* Digits, and at most two decimals, up to the '%', behind which *text moves. False: it is no percentage. One
 * of more than 100 is read as more than 100. */
static bool read_percent(const char **text, unsigned *ret_percent_100)
{
    unsigned value = 0, decimals = 0;
    const char *at = *text;
    if (!isdigit((unsigned char)*at))
        return false;
    for (; isdigit((unsigned char)*at); at++)
        value = value > PERCENT ? value : value * 10 + (unsigned)(*at - '0');
    value *= PERCENT;
    if (*at == '.') {
        const char *first = ++at;
        for (unsigned place = PERCENT / 10; isdigit((unsigned char)*at) && place; at++, place /= 10)
            decimals += place * (unsigned)(*at - '0');
        if (at == first)
            return false;
    }
    if (*at != '%')
        return false;
    *text = at + 1;
    *ret_percent_100 = value + decimals;
    return true;
}

static const char *skip_blanks(const char *text)
{
    return text + strspn(text, " \t");
}

/* One stage, with nothing around it. */
static int read_stage(const char *text, struct config_stage *ret_stage, struct error *error)
{
    struct config_stage stage;
    const char *at = text;
    if (!read_percent(&at, &stage.percent_100))
        return error_set(error, EINVAL, BLAME_USER,
            "'%s' is not " FORM ": it begins with a percentage of at most two decimals",
            quote_text(text).text);
    if (stage.percent_100 < 1 || stage.percent_100 >= ALL)
        return error_set(error, EINVAL, BLAME_USER,
            "'%s' is out of range: a stage has more than 0%% and less than 100%%", quote_text(text).text);
    const char *time = skip_blanks(at);
    if (strncmp(time, "for", 3) == 0 && skip_blanks(time + 3) > time + 3)
        time = skip_blanks(time + 3);
    if (time == at || *time == '\0')
        return error_set(error, EINVAL, BLAME_USER,
            "'%s' is not " FORM ": behind the percentage is a blank and how long it lasts",
            quote_text(text).text);
    int result = value_duration(time, 1, DURATION_MAX, &stage.ms, error);
    if (result < 0)
        return result;
    stage.share = (uint32_t)(((uint64_t)stage.percent_100 << 32) / ALL);
    *ret_stage = stage;
    return 0;
}

static int add_stage(
    const char *text, size_t most, struct config_stage *stages, size_t *count, struct error *error)
{
    struct config_stage stage;
    if (*count >= most)
        return error_set(error, EINVAL, BLAME_USER, "more than %zu stages", most);
    int result = read_stage(text, &stage, error);
    if (result < 0)
        return result;
    if (*count > 0 && stage.percent_100 <= stages[*count - 1].percent_100)
        return error_set(
            error, EINVAL, BLAME_USER, "'%s' is not more than the stage before it", quote_text(text).text);
    stages[(*count)++] = stage;
    return 0;
}

int canary_parse(
    const char *text, size_t most, struct config_stage **stages, size_t *count, struct error *error)
{
    char *copy = strdup(text), *rest = copy;
    struct config_stage *all = calloc(most, sizeof *all);
    size_t length = *count;
    int result = copy && all ? 0 : out_of_memory(error);
    if (result == 0 && length > 0)
        memcpy(all, *stages, length * sizeof *all);
    while (result == 0 && rest) {
        char *stage = strsep(&rest, ",");
        stage += strspn(stage, " \t");
        for (size_t end = strlen(stage); end > 0 && strchr(" \t", stage[end - 1]); end--)
            stage[end - 1] = '\0';
        result = add_stage(stage, most, all, &length, error);
    }
    free(copy);
    if (result < 0) {
        free(all);
        return result;
    }
    free(*stages);
    *stages = all;
    *count = length;
    return 0;
}

struct canary_text canary_share_text(const struct config_stage *stage)
{
    struct canary_text ret;
    unsigned whole = stage->percent_100 / 100, part = stage->percent_100 % 100;
    if (!part)
        snprintf(ret.text, sizeof ret.text, "%u%%", whole);
    else if (part % 10 == 0)
        snprintf(ret.text, sizeof ret.text, "%u.%u%%", whole, part / 10);
    else
        snprintf(ret.text, sizeof ret.text, "%u.%02u%%", whole, part);
    return ret;
}
