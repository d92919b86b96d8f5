/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of the configuration share: loading from words or from a text, and expecting a message. */
#ifndef GAPLESS_TESTS_CONFIG_HELPER_H
#define GAPLESS_TESTS_CONFIG_HELPER_H

#include "master/config.h"

#define WORDS_MAX 32

/* Loads NULL-terminated words; fails the test unless it works. The caller's reference. */
struct config *load_words(const char *const words[]);
#define LOAD(...) load_words((const char *const[]){__VA_ARGS__, NULL})

/* Fails the test unless the words are refused as the operator's mistake, in one line that is `message`. */
void refuse_words(const char *const words[], const char *message);
#define REFUSE(message, ...) refuse_words((const char *const[]){__VA_ARGS__, NULL}, message)

/* The same for the text of a file, which is called w.yaml. */
struct config *load_text(const char *yaml);
void refuse_text(const char *yaml, const char *message);

struct mistake {
    const char *yaml;
    const char *message;
};
void refuse_all(const struct mistake *mistakes, size_t count);

/* A service with its command in lines 1 to 3; what follows is in line 4. */
#define WEB "services:\n  web:\n    command: server\n"

#endif
