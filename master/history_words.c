/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/history_words.h"

#include "master/config/value.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct history_words history_took(int64_t us)
{
    struct history_words ret;
    if (us < 999500) /* three digits of it are below 1000 */
        snprintf(ret.text, sizeof ret.text, "%.3g ms", (double)us / 1000);
    else
        snprintf(ret.text, sizeof ret.text, "%.2f s", (double)us / 1000000);
    return ret;
}

struct history_words history_counted(uint64_t count, const char *noun)
{
    struct history_words ret = {.text = ""};
    char digits[24];
    size_t length = (size_t)snprintf(digits, sizeof digits, "%" PRIu64, count), used = 0;
    for (size_t i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0)
            ret.text[used++] = ',';
        ret.text[used++] = digits[i];
    }
    snprintf(ret.text + used, sizeof ret.text - used, " %s%s", noun, count == 1 ? "" : "s");
    return ret;
}

struct history_words history_transfer_words(const struct history_transfer *transfer)
{
    struct history_words ret;
    char pause[48] = "", unknown[96] = "";
    if (transfer->pause_us >= 0)
        snprintf(pause, sizeof pause, ", pause %.30s", history_took(transfer->pause_us).text);
    if (transfer->kept || transfer->dropped)
        snprintf(unknown, sizeof unknown, ", of unknown segments: %" PRIu64 " kept, %" PRIu64 " dropped",
            transfer->kept, transfer->dropped);
    snprintf(ret.text, sizeof ret.text, "%.50s, %.20s in %.30s%s%s",
        history_counted(transfer->records, "record").text, value_size_text(transfer->bytes).text,
        history_took(transfer->snapshot_us).text, pause, unknown);
    return ret;
}
