/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The one table of the configuration: each row is a key of the YAML file, a flag of `gapless run`, its
 * default, its range and its line in the manual. flags.c scans by it, yaml.c reads by it, manual.c prints it,
 * and config_assign() is the one place where a value gets into a `struct config`.
 *
 * Private to the configuration: the rest of the program sees master/config.h.
 */
#ifndef GAPLESS_MASTER_CONFIG_SCHEMA_H
#define GAPLESS_MASTER_CONFIG_SCHEMA_H

#include "ipc/error.h"
#include "master/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where a row applies, which is also the object that its offset is in. */
enum config_scope {
    SCOPE_COMMAND_LINE, /* -c and -h: flags alone, nothing is stored */
    SCOPE_INSTANCE,     /* struct config */
    SCOPE_SERVICE,      /* struct config_service */
    SCOPE_STEP,         /* struct config_step, an item of `steps`: keys alone */
    SCOPE_COUNT
};

enum config_type {
    TYPE_SWITCH,       /* a flag without a value: --help */
    TYPE_TEXT,         /* char *: not empty, no control characters */
    TYPE_NAME,         /* char *: as value_check_name() */
    TYPE_ACCOUNT,      /* char *: a user or group, by name or number */
    TYPE_NUMBER,       /* unsigned, minimum to maximum */
    TYPE_LONG_NUMBER,  /* uint64_t, minimum to maximum */
    TYPE_NICE,         /* int, and nice_set */
    TYPE_MODE,         /* mode_t, octal */
    TYPE_CHOICE,       /* an enum: index into `choices` */
    TYPE_SIZE,         /* uint64_t in bytes, minimum to maximum */
    TYPE_DURATION,     /* int64_t in ms, minimum to maximum; with `never` also that: -1 */
    TYPE_SIGNAL,       /* int */
    TYPE_COMMAND,      /* char **: a list, or one string that is split */
    TYPE_TEXTS,        /* char **: a list of what TYPE_TEXT is, or one */
    TYPE_CANARY,       /* a list of texts as canary.h reads them, or one */
    TYPE_LISTENERS,    /* a list of specifications, or one */
    TYPE_ENVIRONMENT,  /* char **: a map, or a list of NAME=VALUE */
    TYPE_RLIMITS,      /* a map */
    TYPE_CAPABILITIES, /* char **: a list; as a flag separated by commas */
    TYPE_PHASE,        /* of a step: `phase`, and `after` by the row's path */
    TYPE_STEPS,        /* a list of maps of SCOPE_STEP: the YAML reader's own */
    TYPE_SERVICES,     /* the map of services: the YAML reader's own */
    TYPE_COUNT
};

struct config_key {
    const char *path; /* in YAML: "drain.timeout"; NULL: a flag alone */
    const char *flag; /* without "--"; NULL: a key alone */
    char letter;      /* of the short flag; 0: none */
    bool never;       /* a duration that may be "never" */
    enum config_scope scope;
    enum config_type type;
    size_t offset;
    const char *fallback;    /* default, as it would be written; NULL: unset */
    const char *development; /* the same with that preset; NULL: as `fallback` */
    const char *production;
    const char *unset;          /* what it means to be unset, for the manual */
    int64_t minimum;            /* of numbers, and of durations in ms */
    int64_t maximum;            /* the same; of lists: the most items; of texts: bytes, 0: PATH_MAX */
    const char *const *choices; /* NULL-terminated */
    const char *argument;       /* what the manual calls the value */
    const char *help;           /* what it does, in a line */
};

/* The table has at most so many rows. */
#define CONFIG_KEYS_MAX 96

/* The table. */
const struct config_key *config_keys(size_t *ret_count) __attribute__((returns_nonnull));

/* The row of that key in that scope, or NULL. */
const struct config_key *config_key_find(enum config_scope scope, const char *path);

/* True if a key of that scope is `path` with a dot and more behind it: `drain`. */
bool config_key_is_group(enum config_scope scope, const char *path);

/* True for a type that collects: assigned again, it gets one more item, where others are replaced. */
bool config_key_collects(const struct config_key *key);

/* True for one whose flag may be given more than once. */
bool config_key_repeats(const struct config_key *key);

/* The row's default with that preset, as it would be written; NULL: unset. */
const char *config_key_default(const struct config_key *key, enum config_preset preset);

/* Sets, or adds to a list, the value `text` in `object`, a struct of the row's scope, as the operator's word
 * (config_is_said()). Of an environment it is NAME=VALUE, of limits NAME=SOFT[:HARD]; of capabilities one
 * name; of a command one word. Errors: EINVAL (BLAME_USER) with the reason and no place; ENOMEM. The object
 * stays as it was. */
int config_assign(const struct config_key *key, void *object, const char *text, struct error *error);

/* The same for a command as one string, which is split; it may not be empty. On failure the command may be
 * there in part. */
int config_assign_words(const struct config_key *key, void *object, const char *text, struct error *error);

/* Sets a list that has been named to the empty list, which isn't the same as an unset one. 0 or -ENOMEM. */
int config_assign_empty(const struct config_key *key, void *object, struct error *error);

/* Sets all that the scope has defaults for; nobody has said them. ENOMEM only. */
int config_assign_defaults(
    enum config_scope scope, enum config_preset preset, void *object, struct error *error);

/* Appends a complete step to those of the service and gives it its name. On success *step is taken over and
 * emptied. ENOMEM, or EINVAL (BLAME_USER) where there are too many. */
int config_assign_step(const struct config_key *key, struct config_service *service, struct config_step *step,
    struct error *error);

#endif
