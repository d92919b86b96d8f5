/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/config/canary.h"
#include "master/config/quote.h"
#include "master/config/schema.h"
#include "master/config/value.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static_assert(
    sizeof(enum config_log) == sizeof(unsigned) && sizeof(enum config_restart) == sizeof(unsigned) &&
        sizeof(enum config_activation) == sizeof(unsigned) && sizeof(enum log_level) == sizeof(unsigned) &&
        sizeof(enum config_tracker) == sizeof(unsigned) && sizeof(enum config_protocol) == sizeof(unsigned) &&
        sizeof(enum config_steering) == sizeof(unsigned) &&
        sizeof(enum config_on_timeout) == sizeof(unsigned) &&
        sizeof(enum config_preset) == sizeof(unsigned) && sizeof(enum config_memory) == sizeof(unsigned),
    "a choice is stored as an unsigned");

static int out_of_memory(struct error *error)
{
    return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
}

static int too_many(const struct config_key *key, struct error *error)
{
    return error_set(error, EINVAL, BLAME_USER, "more than %lld entries", (long long)key->maximum);
}

static int assign_text(char **text, const char *value, struct error *error)
{
    char *copy = strdup(value);
    if (!copy)
        return out_of_memory(error);
    free(*text);
    *text = copy;
    return 0;
}

static int check_text(const struct config_key *key, const char *value, struct error *error)
{
    bool bounded = key->maximum && !config_key_collects(key);
    size_t longest = bounded ? (size_t)key->maximum : PATH_MAX - 1;
    if (*value == '\0')
        return error_set(error, EINVAL, BLAME_USER, "the value is empty");
    if (strlen(value) > longest)
        return error_set(
            error, EINVAL, BLAME_USER, "%zu bytes are too long: %zu are the most", strlen(value), longest);
    if (quote_has_control(value))
        return error_set(
            error, EINVAL, BLAME_USER, "'%s' has a control character or isn't UTF-8", quote_text(value).text);
    return 0;
}

static int check_account(const struct config_key *key, const char *value, struct error *error)
{
    int result = check_text(key, value, error);
    if (result < 0)
        return result;
    if (strpbrk(value, ":/ \t") || *value == '-')
        return error_set(
            error, EINVAL, BLAME_USER, "'%s' can't be a user's or a group's name", quote_text(value).text);
    return 0;
}

/* Appends to a NULL-terminated list. */
static int add_text(const struct config_key *key, char ***list, const char *value, struct error *error)
{
    size_t count = 0;
    while (*list && (*list)[count])
        count++;
    if ((int64_t)count >= key->maximum)
        return too_many(key, error);
    char **longer = realloc(*list, (count + 2) * sizeof *longer);
    if (!longer)
        return out_of_memory(error);
    *list = longer;
    longer[count] = strdup(value);
    longer[count + 1] = NULL;
    return longer[count] ? 0 : out_of_memory(error);
}

static int add_checked_text(
    const struct config_key *key, char ***list, const char *value, struct error *error)
{
    int result = check_text(key, value, error);
    return result < 0 ? result : add_text(key, list, value, error);
}

static int add_listener(
    const struct config_key *key, struct config_service *service, const char *value, struct error *error)
{
    struct listener_spec spec;
    if ((int64_t)service->listener_count >= key->maximum)
        return too_many(key, error);
    int result = listener_spec_parse(value, &spec, error);
    if (result < 0)
        return result;
    struct listener_spec *longer =
        realloc(service->listeners, (service->listener_count + 1) * sizeof *service->listeners);
    if (!longer) {
        listener_spec_done(&spec);
        return out_of_memory(error);
    }
    service->listeners = longer;
    longer[service->listener_count++] = spec;
    return 0;
}

static int add_env(const struct config_key *key, char ***list, const char *value, struct error *error)
{
    int result = value_check_env(value, error);
    if (result < 0)
        return result;
    size_t length = (size_t)(strchr(value, '=') - value) + 1;
    for (size_t i = 0; *list && (*list)[i]; i++)
        if (strncmp((*list)[i], value, length) == 0)
            return error_set(error, EINVAL, BLAME_USER, "'%s' is set twice", quote_text(value).text);
    return add_text(key, list, value, error);
}

static int add_rlimit(
    const struct config_key *key, struct config_service *service, const char *value, struct error *error)
{
    struct config_rlimit rlimit;
    int result = value_rlimit(value, &rlimit, error);
    if (result < 0)
        return result;
    for (size_t i = 0; i < service->rlimit_count; i++)
        if (service->rlimits[i].resource == rlimit.resource)
            return error_set(error, EINVAL, BLAME_USER, "'%s' is set twice", quote_text(value).text);
    struct config_rlimit *longer = realloc(service->rlimits, (service->rlimit_count + 1) * sizeof *longer);
    if (!longer)
        return out_of_memory(error);
    service->rlimits = longer;
    longer[service->rlimit_count++] = rlimit;
    return 0;
}

static int add_capability(const struct config_key *key, char ***list, const char *value, struct error *error)
{
    char *name;
    int result = value_capability(value, &name, error);
    if (result < 0)
        return result;
    for (size_t i = 0; result == 0 && *list && (*list)[i]; i++)
        if (strcmp((*list)[i], name) == 0)
            result = error_set(error, EINVAL, BLAME_USER, "'%s' is named twice", quote_text(value).text);
    if (result == 0)
        result = add_text(key, list, name, error);
    free(name);
    return result;
}

static int add_word(const struct config_key *key, char ***list, const char *value, struct error *error)
{
    if (*value == '\0' && !(*list && **list))
        return error_set(error, EINVAL, BLAME_USER, "the command is empty");
    return add_text(key, list, value, error);
}

static int add_stages(
    const struct config_key *key, struct config_service *service, const char *value, struct error *error)
{
    int result = check_text(key, value, error);
    return result < 0
               ? result
               : canary_parse(value, (size_t)key->maximum, &service->canary, &service->canary_count, error);
}

/* The point of a step, of which it has one. */
static int assign_phase(
    const struct config_key *key, struct config_step *step, const char *text, struct error *error)
{
    if (step->phase != PHASE_COUNT)
        return error_set(
            error, EINVAL, BLAME_USER, "before and after exclude each other: write a step for each");
    unsigned phase;
    int result = value_choice(text, key->choices, &phase, error);
    if (result == 0) {
        step->phase = (enum upgrade_phase)phase;
        step->after = strcmp(key->path, "after") == 0;
    }
    return result;
}

static int assign_number(const struct config_key *key, void *member, const char *text, struct error *error)
{
    int64_t number;
    int result = value_number(text, key->minimum, key->maximum, &number, error);
    if (result == 0)
        *(unsigned *)member = (unsigned)number;
    return result;
}

static int assign_long_number(
    const struct config_key *key, void *member, const char *text, struct error *error)
{
    int64_t number;
    int result = value_number(text, key->minimum, key->maximum, &number, error);
    if (result == 0)
        *(uint64_t *)member = (uint64_t)number;
    return result;
}

static int assign_nice(
    const struct config_key *key, struct config_service *service, const char *text, struct error *error)
{
    int64_t number;
    int result = value_number(text, key->minimum, key->maximum, &number, error);
    if (result == 0) {
        service->nice = (int)number;
        service->nice_set = true;
    }
    return result;
}

static int assign_size(const struct config_key *key, void *member, const char *text, struct error *error)
{
    uint64_t bytes;
    int result = value_size(text, (uint64_t)key->maximum, &bytes, error);
    if (result == 0 && bytes < (uint64_t)key->minimum)
        return error_set(error, EINVAL, BLAME_USER, "'%s' is out of range: at least %lld bytes",
            quote_text(text).text, (long long)key->minimum);
    if (result == 0)
        *(uint64_t *)member = bytes;
    return result;
}

static int assign_checked_text(
    const struct config_key *key, char **member, const char *text, struct error *error)
{
    int result = key->type == TYPE_NAME      ? value_check_name(text, error)
                 : key->type == TYPE_ACCOUNT ? check_account(key, text, error)
                                             : check_text(key, text, error);
    return result < 0 ? result : assign_text(member, text, error);
}

static int assign(const struct config_key *key, void *object, const char *text, struct error *error)
{
    void *member = (char *)object + key->offset;
    switch (key->type) {
    case TYPE_TEXT:
    case TYPE_NAME:
    case TYPE_ACCOUNT:
        return assign_checked_text(key, member, text, error);
    case TYPE_NUMBER:
        return assign_number(key, member, text, error);
    case TYPE_LONG_NUMBER:
        return assign_long_number(key, member, text, error);
    case TYPE_SIZE:
        return assign_size(key, member, text, error);
    case TYPE_NICE:
        return assign_nice(key, object, text, error);
    case TYPE_MODE:
        return value_octal(text, member, error);
    case TYPE_CHOICE:
        return value_choice(text, key->choices, member, error);
    case TYPE_PHASE:
        return assign_phase(key, object, text, error);
    case TYPE_DURATION:
        return (key->never ? value_duration_or_never : value_duration)(
            text, key->minimum, key->maximum, member, error);
    case TYPE_SIGNAL:
        return value_signal(text, member, error);
    case TYPE_COMMAND:
        return add_word(key, member, text, error);
    case TYPE_TEXTS:
        return add_checked_text(key, member, text, error);
    case TYPE_CANARY:
        return add_stages(key, object, text, error);
    case TYPE_LISTENERS:
        return add_listener(key, object, text, error);
    case TYPE_ENVIRONMENT:
        return add_env(key, member, text, error);
    case TYPE_RLIMITS:
        return add_rlimit(key, object, text, error);
    case TYPE_CAPABILITIES:
        return add_capability(key, member, text, error);
    case TYPE_SWITCH:
    case TYPE_STEPS:
    case TYPE_SERVICES:
    case TYPE_COUNT:
        break;
    }
    return error_set(
        error, EINVAL, BLAME_OURS, "there is no assigning to %s", key->path ? key->path : key->flag);
}

/* Of services alone is it asked what was said. */
static void say(const struct config_key *key, void *object)
{
    size_t count;
    size_t row = (size_t)(key - config_keys(&count));
    struct config_service *service = object;
    if (key->scope == SCOPE_SERVICE)
        service->said[row / 64] |= UINT64_C(1) << row % 64;
}

int config_assign(const struct config_key *key, void *object, const char *text, struct error *error)
{
    int result = assign(key, object, text, error);
    if (result == 0)
        say(key, object);
    return result;
}

int config_assign_words(const struct config_key *key, void *object, const char *text, struct error *error)
{
    char **words = NULL;
    int result = value_words(text, &words, error);
    if (result == 0 && !words[0])
        result = error_set(error, EINVAL, BLAME_USER, "the command is empty");
    for (size_t i = 0; result == 0 && words[i]; i++)
        result = config_assign(key, object, words[i], error);
    value_free_words(words);
    return result;
}

int config_assign_empty(const struct config_key *key, void *object, struct error *error)
{
    char ***list = (char ***)((char *)object + key->offset);
    say(key, object);
    if (key->type != TYPE_CAPABILITIES || *list)
        return 0;
    *list = calloc(1, sizeof **list);
    return *list ? 0 : out_of_memory(error);
}

int config_assign_defaults(
    enum config_scope scope, enum config_preset preset, void *object, struct error *error)
{
    size_t count;
    const struct config_key *keys = config_keys(&count);
    for (size_t i = 0; i < count; i++) {
        const char *text = keys[i].scope == scope ? config_key_default(&keys[i], preset) : NULL;
        int result = text ? assign(&keys[i], object, text, error) : 0;
        if (result < 0)
            return result;
    }
    return 0;
}

int config_assign_step(const struct config_key *key, struct config_service *service, struct config_step *step,
    struct error *error)
{
    if ((int64_t)service->step_count >= key->maximum)
        return too_many(key, error);
    unsigned number = 1;
    for (size_t i = 0; i < service->step_count; i++)
        number += service->steps[i].phase == step->phase && service->steps[i].after == step->after;
    char name[64];
    snprintf(name, sizeof name, "%s %s %u", step->after ? "after" : "before", upgrade_phase_name(step->phase),
        number);
    int result = assign_text(&step->name, name, error);
    if (result < 0)
        return result;
    struct config_step *longer = realloc(service->steps, (service->step_count + 1) * sizeof *longer);
    if (!longer)
        return out_of_memory(error);
    service->steps = longer;
    longer[service->step_count++] = *step;
    *step = (struct config_step){.phase = PHASE_COUNT};
    say(key, service);
    return 0;
}
