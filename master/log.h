/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log: one line per event on standard error, `key=value` or JSON. Used by the master and the keeper;
 * libraries and pure modules are silent.
 *
 *     log_event(LOG_INFO, "worker ready", LOG_S("service", s->name), LOG_U("generation", g->id));
 *     2026-01-31T12:00:00.123Z info worker ready service=web generation=3
 *
 * Never blocks: where standard error takes nothing (a full pipe), lines are dropped and their number is
 * logged later.
 */
#ifndef GAPLESS_MASTER_LOG_H
#define GAPLESS_MASTER_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR, LOG_LEVEL_COUNT };

enum log_field_type { LOG_FIELD_END, LOG_FIELD_STRING, LOG_FIELD_INT, LOG_FIELD_UINT };

struct log_field {
    const char *key;
    enum log_field_type type;
    const char *string; /* NULL: the field is left out */
    int64_t integer;
    uint64_t natural;
};

#define LOG_S(k, v) ((struct log_field){.key = (k), .type = LOG_FIELD_STRING, .string = (v)})
#define LOG_I(k, v) ((struct log_field){.key = (k), .type = LOG_FIELD_INT, .integer = (v)})
#define LOG_U(k, v) ((struct log_field){.key = (k), .type = LOG_FIELD_UINT, .natural = (v)})

/* Opens standard error for the log and sets the form. May be called again to change it. */
void log_open(bool json);

/* Leaves out what is below that level; LOG_INFO at first. */
void log_set_level(enum log_level least);

void log_write(enum log_level level, const char *message, const struct log_field *fields);

#define log_event(level, message, ...)                                                                       \
    log_write((level), (message), (struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){.type = LOG_FIELD_END}})

#endif
