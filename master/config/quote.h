/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Text of an operator's inside a message: always one line and printable, whatever it holds. Control
 * characters and bytes that are not UTF-8 are written as \n, \t or \xNN, and a long text is cut with "...".
 * Pure.
 */
#ifndef GAPLESS_MASTER_CONFIG_QUOTE_H
#define GAPLESS_MASTER_CONFIG_QUOTE_H

#include <stdbool.h>
#include <stddef.h>

struct quoted {
    char text[200];
};

/* A value, cut behind some 60 bytes; `.text` is meant as an argument of a message. */
struct quoted quote_text(const char *text);

/* The same for a file's name: up to 180 bytes, and it is the beginning that is cut. */
struct quoted quote_path(const char *path);

/* Length in bytes of the UTF-8 character at `text` (at most `size` bytes); 0 if it is none. A NUL has
 * length 1. */
size_t quote_utf8_length(const char *text, size_t size);

/* True if the text holds a control character (C0, DEL or C1) or is not UTF-8. */
bool quote_has_control(const char *text);

#endif
