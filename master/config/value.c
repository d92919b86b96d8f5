/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/value.h"

#include "master/config/quote.h"
#include "master/spelling.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* Digits from *text on; *text moves behind them. False: none, a leading zero, or more than INT64_MAX. */
static bool read_digits(const char **text, int64_t *ret_number)
{
    const char *at = *text;
    if (!isdigit((unsigned char)at[0]) || (at[0] == '0' && isdigit((unsigned char)at[1])))
        return false;
    int64_t number = 0;
    for (; isdigit((unsigned char)*at); at++)
        if (__builtin_mul_overflow(number, 10, &number) || __builtin_add_overflow(number, *at - '0', &number))
            return false;
    *text = at;
    *ret_number = number;
    return true;
}

static bool all_digits(const char *text)
{
    return text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';
}

int value_number(const char *text, int64_t minimum, int64_t maximum, int64_t *ret_number, struct error *error)
{
    bool negative = minimum < 0 && text[0] == '-';
    const char *at = text + negative;
    int64_t number;
    bool read = read_digits(&at, &number);
    if (read && *at == '\0') {
        number = negative ? -number : number;
        if (number >= minimum && number <= maximum) {
            *ret_number = number;
            return 0;
        }
    }
    /* Digits without end are a number too, only one that is far out of range. */
    if ((read && *at == '\0') || (all_digits(text + negative) && text[negative] != '0'))
        return error_set(error, EINVAL, BLAME_USER, "'%s' is out of range: %" PRId64 " to %" PRId64,
            quote_text(text).text, minimum, maximum);
    return error_set(error, EINVAL, BLAME_USER, "'%s' is not a whole number: %" PRId64 " to %" PRId64,
        quote_text(text).text, minimum, maximum);
}

int value_octal(const char *text, mode_t *ret_mode, struct error *error)
{
    mode_t mode = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '7' && mode <= 0777; at++)
        mode = mode * 8 + (mode_t)(*at - '0');
    if (at == text || *at != '\0' || mode > 0777)
        return error_set(error, EINVAL, BLAME_USER,
            "'%s' is not a mode: octal digits, 0 to 777, such as 0660", quote_text(text).text);
    *ret_mode = mode;
    return 0;
}

int value_switch(const char *text, bool *ret_on, struct error *error)
{
    static const char *const words[] = {"yes", "no", "true", "false", "on", "off"};
    for (size_t i = 0; i < LENGTH(words); i++)
        if (strcasecmp(text, words[i]) == 0) {
            *ret_on = i % 2 == 0;
            return 0;
        }
    return error_set(error, EINVAL, BLAME_USER, "'%s' is neither yes nor no", quote_text(text).text);
}

struct unit {
    const char *name;
    int64_t factor;
};

static const struct unit duration_units[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};

/* The unit at *text, which moves behind its letters; NULL if there is no such unit. */
static const struct unit *read_duration_unit(const char **text)
{
    size_t length = 0;
    while (isalpha((unsigned char)(*text)[length]))
        length++;
    for (size_t i = 0; i < LENGTH(duration_units); i++)
        if (strlen(duration_units[i].name) == length && strncmp(*text, duration_units[i].name, length) == 0) {
            *text += length;
            return &duration_units[i];
        }
    return NULL;
}

#define DURATION_FORM "a duration such as 500ms, 30s, 2m, 1h, 1d or 1m30s"

/* The sum in *ret_ms, or the reason. INT64_MAX stands for everything that is longer. */
static int read_duration(const char *text, int64_t *ret_ms, struct error *error)
{
    int64_t sum = 0;
    int64_t last_factor = INT64_MAX;
    const char *at = text;
    if (strcmp(text, "0") == 0) {
        *ret_ms = 0;
        return 0;
    }
    if (all_digits(text))
        return error_set(error, EINVAL, BLAME_USER, "'%s' has no unit: write %ss or %sms",
            quote_text(text).text, quote_text(text).text, quote_text(text).text);
    do {
        int64_t number;
        if (!read_digits(&at, &number))
            return error_set(error, EINVAL, BLAME_USER, "'%s' is not " DURATION_FORM, quote_text(text).text);
        const struct unit *unit = read_duration_unit(&at);
        if (!unit)
            return error_set(error, EINVAL, BLAME_USER,
                "'%s' is not " DURATION_FORM ": units are ms, s, m, h and d", quote_text(text).text);
        if (unit->factor >= last_factor)
            return error_set(error, EINVAL, BLAME_USER,
                "'%s' is not " DURATION_FORM ": units go from large to small, each once",
                quote_text(text).text);
        last_factor = unit->factor;
        if (__builtin_mul_overflow(number, unit->factor, &number) ||
            __builtin_add_overflow(sum, number, &sum))
            sum = INT64_MAX;
        if (sum == INT64_MAX)
            break;
    } while (*at != '\0');
    *ret_ms = sum;
    return 0;
}

int value_duration(
    const char *text, int64_t minimum_ms, int64_t maximum_ms, int64_t *ret_ms, struct error *error)
{
    int64_t ms = 0;
    int result = read_duration(text, &ms, error);
    if (result < 0)
        return result;
    if (ms < minimum_ms || ms > maximum_ms)
        return error_set(error, EINVAL, BLAME_USER, "'%s' is out of range: %s to %s", quote_text(text).text,
            value_duration_text(minimum_ms).text, value_duration_text(maximum_ms).text);
    *ret_ms = ms;
    return 0;
}

int value_duration_or_never(
    const char *text, int64_t minimum_ms, int64_t maximum_ms, int64_t *ret_ms, struct error *error)
{
    static const char *const words[] = {"never"};
    if (strcmp(text, words[0]) == 0) {
        *ret_ms = -1;
        return 0;
    }
    if (!isdigit((unsigned char)text[0]))
        return error_set(error, EINVAL, BLAME_USER, "'%s' is neither never nor " DURATION_FORM "%s",
            quote_text(text).text, spelling_hint(text, "", words, LENGTH(words)).text);
    return value_duration(text, minimum_ms, maximum_ms, ret_ms, error);
}

struct value_text value_duration_text(int64_t ms)
{
    struct value_text out = {.text = "0"};
    size_t used = 0;
    for (size_t i = 0; i < LENGTH(duration_units) && ms > 0; i++) {
        int64_t count = ms / duration_units[i].factor;
        if (count > 0)
            used += (size_t)snprintf(
                out.text + used, sizeof out.text - used, "%" PRId64 "%s", count, duration_units[i].name);
        ms %= duration_units[i].factor;
    }
    return out;
}

int value_size(const char *text, uint64_t maximum, uint64_t *ret_bytes, struct error *error)
{
    static const struct unit units[] = {{"", 1}, {"K", 1LL << 10}, {"KiB", 1LL << 10}, {"M", 1LL << 20},
        {"MiB", 1LL << 20}, {"G", 1LL << 30}, {"GiB", 1LL << 30}, {"T", 1LL << 40}, {"TiB", 1LL << 40}};
    const char *at = text;
    int64_t number;
    const struct unit *unit = NULL;
    if (read_digits(&at, &number))
        for (size_t i = 0; i < LENGTH(units) && !unit; i++)
            if (strcasecmp(at, units[i].name) == 0)
                unit = &units[i];
    if (!unit)
        return error_set(error, EINVAL, BLAME_USER,
            "'%s' is not a size: bytes, or a number with K, M, G or T (KiB, MiB, …)", quote_text(text).text);
    if (__builtin_mul_overflow(number, unit->factor, &number) || (uint64_t)number > maximum)
        return error_set(error, EINVAL, BLAME_USER, "'%s' is out of range: at most %" PRIu64 " bytes",
            quote_text(text).text, maximum);
    *ret_bytes = (uint64_t)number;
    return 0;
}

struct value_text value_size_text(uint64_t bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    struct value_text ret;
    double amount = (double)bytes / 1024;
    size_t unit = 0;
    /* 1023.95 would be printed as 1024.0. */
    for (; amount >= 1023.95 && unit + 1 < sizeof units / sizeof *units; unit++)
        amount /= 1024;
    if (bytes < 1024)
        snprintf(ret.text, sizeof ret.text, "%u byte%s", (unsigned)bytes, bytes == 1 ? "" : "s");
    else
        snprintf(ret.text, sizeof ret.text, "%.1f %s", amount, units[unit]);
    return ret;
}

int value_choice(const char *text, const char *const *choices, unsigned *ret_index, struct error *error)
{
    char list[128] = "";
    unsigned count = 0;
    for (; choices[count]; count++) {
        if (strcmp(text, choices[count]) == 0) {
            *ret_index = count;
            return 0;
        }
        size_t used = strlen(list);
        const char *between = count == 0 ? "" : choices[count + 1] ? ", " : " or ";
        snprintf(list + used, sizeof list - used, "%s%s", between, choices[count]);
    }
    return error_set(error, EINVAL, BLAME_USER, "'%s' is not %s%s", quote_text(text).text, list,
        spelling_hint(text, "", choices, count).text);
}

const char *const value_protocols[PROTOCOL_COUNT + 1] = {
    [PROTOCOL_HTTP1] = "http1", [PROTOCOL_SERVER_FIRST] = "server-first", [PROTOCOL_STREAM] = "stream"};

const char *const value_steerings[CONFIG_STEERING_COUNT + 1] = {[CONFIG_STEERING_AUTO] = "auto",
    [CONFIG_STEERING_EBPF] = "ebpf",
    [CONFIG_STEERING_CBPF] = "cbpf",
    [CONFIG_STEERING_PATH] = "path",
    [CONFIG_STEERING_SHARED] = "shared"};

int value_check_name(const char *text, struct error *error)
{
    size_t length = strlen(text);
    if (length == 0)
        return error_set(error, EINVAL, BLAME_USER, "a name is empty");
    for (size_t i = 0; i < length; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", text[i]))
            return error_set(error, EINVAL, BLAME_USER,
                "'%s' can't be a name: letters, digits, '.', '_' and '-' can", quote_text(text).text);
    if (text[0] == '.' || text[0] == '-')
        return error_set(error, EINVAL, BLAME_USER, "'%s' can't be a name: it begins with '%c'",
            quote_text(text).text, text[0]);
    if (length > VALUE_NAME_MAX)
        return error_set(error, EINVAL, BLAME_USER, "'%s' is longer than the %d bytes of a name",
            quote_text(text).text, VALUE_NAME_MAX);
    return 0;
}

int value_check_env(const char *text, struct error *error)
{
    const char *sign = strchr(text, '=');
    if (!sign)
        return error_set(error, EINVAL, BLAME_USER, "'%s' is not NAME=VALUE", quote_text(text).text);
    if (sign == text)
        return error_set(error, EINVAL, BLAME_USER, "'%s' has no name before '='", quote_text(text).text);
    for (const char *at = text; at < sign; at++)
        if (iscntrl((unsigned char)*at))
            return error_set(
                error, EINVAL, BLAME_USER, "'%s' has a control character in its name", quote_text(text).text);
    return 0;
}
