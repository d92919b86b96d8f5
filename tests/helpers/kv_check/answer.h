/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The answers of a memcached, one piece at a time: a line, or a value with its line. Pure.
 */
#ifndef GAPLESS_TESTS_KV_CHECK_ANSWER_H
#define GAPLESS_TESTS_KV_CHECK_ANSWER_H

#include <stddef.h>
#include <stdint.h>

enum answer_kind {
    ANSWER_MORE, /* it isn't whole: at least ret_answer->size bytes are needed, if that isn't 0 */
    ANSWER_VALUE,
    ANSWER_END,
    ANSWER_STORED,
    ANSWER_DELETED,
    ANSWER_NOT_FOUND,
    ANSWER_NUMBER,
    ANSWER_OTHER, /* any other line */
};

/* Pointers are into what was parsed. */
struct answer {
    enum answer_kind kind;
    size_t size;      /* of the piece, with its line end */
    const char *text; /* of the line, or the key of a value */
    size_t text_size;
    uint64_t number;
    uint32_t flags;
    const char *data; /* of a value */
    size_t data_size;
};

/* What is at the begin of these bytes. */
enum answer_kind answer_parse(const char *bytes, size_t size, struct answer *ret_answer);

#endif
