/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a record of the history says, in words: for `gapless history`, and for whoever watches. Pure.
 */
#ifndef GAPLESS_MASTER_HISTORY_WORDS_H
#define GAPLESS_MASTER_HISTORY_WORDS_H

#include "master/history_record.h"

struct history_words {
    char text[192];
};

/* How long something took: "3.21 ms", "2.31 s". */
struct history_words history_took(int64_t us);

/* "1 record", "1,000,000 records": the noun's plural has an s. */
struct history_words history_counted(uint64_t count, const char *noun);

/* "1,000,000 records, 1.0 GiB in 2.31 s, pause 3.2 ms": what is known. */
struct history_words history_transfer_words(const struct history_transfer *transfer);

#endif
