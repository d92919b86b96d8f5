/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Single values, as an operator writes them in a flag, in YAML or in an option of a listener. Pure parsers.
 *
 * Each returns 0, or -EINVAL (BLAME_USER) with the reason in `error`, which quotes the value but doesn't name
 * the place: the caller puts that before it. -ENOMEM where memory is taken. On failure the outputs are
 * untouched.
 */
#ifndef GAPLESS_MASTER_CONFIG_VALUE_H
#define GAPLESS_MASTER_CONFIG_VALUE_H

#include "ipc/error.h"
#include "master/config.h"

#include <stdint.h>
#include <sys/types.h>

/* Longest name of a service, a listener or an instance, in bytes: it becomes part of a socket's path. */
#define VALUE_NAME_MAX 64

/* A decimal number without leading zeros, with a minus where `minimum` is negative. */
int value_number(
    const char *text, int64_t minimum, int64_t maximum, int64_t *ret_number, struct error *error);

/* Permission bits in octal: 0 to 777, with any leading zeros. */
int value_octal(const char *text, mode_t *ret_mode, struct error *error);

/* yes or no (true, false, on, off). */
int value_switch(const char *text, bool *ret_on, struct error *error);

/* `500ms`, `30s`, `2m`, `1h`, `1d`, sums from large to small such as `1m30s`, and 0. In milliseconds. */
int value_duration(
    const char *text, int64_t minimum_ms, int64_t maximum_ms, int64_t *ret_ms, struct error *error);

/* As value_duration(), or `never`: -1. */
int value_duration_or_never(
    const char *text, int64_t minimum_ms, int64_t maximum_ms, int64_t *ret_ms, struct error *error);

/* Bytes: a number, or one with K, M, G, T or KiB, MiB, GiB, TiB: powers of 1024. */
int value_size(const char *text, uint64_t maximum, uint64_t *ret_bytes, struct error *error);

/* TERM, SIGTERM, 15, RTMIN+3. KILL and STOP are refused: no program can obey them. */
int value_signal(const char *text, int *ret_signal, struct error *error);

/* NAME=SOFT[:HARD], each a number (a size where the kernel counts bytes) or `unlimited`. */
int value_rlimit(const char *text, struct config_rlimit *ret_rlimit, struct error *error);

/* A name with or without CAP_: *ret_name is the caller's, in lower case and without it. */
int value_capability(const char *text, char **ret_name, struct error *error);

/* One of `choices` (NULL-terminated): its index. */
int value_choice(const char *text, const char *const *choices, unsigned *ret_index, struct error *error);

/* The values of enum config_protocol, NULL-terminated: a key of the service and an option of a listener. */
extern const char *const value_protocols[PROTOCOL_COUNT + 1];
extern const char *const value_steerings[CONFIG_STEERING_COUNT + 1];

/* Checks the name of a service, listener or instance: letters, digits, '.', '_' and '-', the first one a
 * letter, digit or '_', at most VALUE_NAME_MAX. */
int value_check_name(const char *text, struct error *error);

/* Checks NAME=VALUE: a name without control characters, and not empty. */
int value_check_env(const char *text, struct error *error);

/* Splits a command at blanks by the shell's quoting rules ('…', "…", backslash) without any expansion.
 * *ret_words is NULL-terminated and the caller's (value_free_words); it may be empty. */
int value_words(const char *text, char ***ret_words, struct error *error);

/* Frees a NULL-terminated list of strings. NULL is allowed. */
void value_free_words(char **words);

/* A duration as value_duration() reads it, in the largest units: "1m30s". */
struct value_text {
    char text[64];
};
struct value_text value_duration_text(int64_t ms);

/* A size to be read by people: "17 bytes", "1.5 GiB". */
struct value_text value_size_text(uint64_t bytes);

/* The name of a signal without SIG; "RTMIN+3". */
struct value_text value_signal_text(int number);

#endif
