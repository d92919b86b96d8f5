/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The error that a function gives its caller: a code, a message for a person, and who is to blame.
 *
 * A function that can fail returns 0 or -errno and takes a `struct error *` as its last parameter. It fills
 * it only on failure; the caller may pass NULL if it wants the code alone. The message is one line without a
 * full stop or newline: what was being done, to what, and, where there is one, what the operator can do. No
 * allocation.
 */
#ifndef GAPLESS_IPC_ERROR_H
#define GAPLESS_IPC_ERROR_H

#include <stdarg.h>

/* Who is at fault, which decides what ends: at start-up any error ends the program, in an upgrade it ends the
 * upgrade. */
enum blame {
    BLAME_OURS,   /* a mistake of this program, or a resource that it ran out of */
    BLAME_PEER,   /* the other side of a socket said something that it must not: that peer is cut off */
    BLAME_USER,   /* a flag, a configuration, a command that can't be carried out as it stands */
    BLAME_SYSTEM, /* the kernel or the host said no */
    BLAME_COUNT
};

struct error {
    int code; /* errno value, positive; 0 while there is no error */
    enum blame blame;
    char message[512];
};

/* Sets *e (NULL: nothing is written). Returns -code, so that a function can end in `return error_set(…)`. */
int error_set(struct error *e, int code, enum blame blame, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* As error_set(), with ": " and the text of `code` behind the message. */
int error_errno(struct error *e, int code, enum blame blame, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts "text: " before the message that *e already has. Returns -e->code. NULL gives -EIO. */
int error_prefix(struct error *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

#ifdef __clang_analyzer__
/* The static analyzer doesn't see into error.c. Told that what these return is negative, it doesn't follow
 * paths on which a function fails and its caller goes on. */
static inline int error_negative(int result)
{
    return result < 0 ? result : -1;
}
#define error_set(...) error_negative((error_set)(__VA_ARGS__))
#define error_errno(...) error_negative((error_errno)(__VA_ARGS__))
#define error_prefix(...) error_negative((error_prefix)(__VA_ARGS__))
#endif

/* "ours", "peer", "user", "system". */
const char *blame_name(enum blame blame);

#endif
