/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/exchange.h"

#include "cli/status_json.h"
#include "cli/status_table.h"
#include "cli/table.h"
#include "cli/verb.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int fail(const struct error *error, int r)
{
    fprintf(stderr, "gapless: %s\n", error->message);
    return client_exit_code(r);
}

/* --- what is printed: true, or false where it couldn't be --- */

static bool print_status(const struct exchange *exchange, const Gapless__Admin__Status *status)
{
    if (exchange->json)
        return status_json_print(stdout, &status->base, true);
    return status_table_print(stdout, status);
}

static bool print_progress(const struct exchange *exchange, const Gapless__Admin__Reply *reply)
{
    if (exchange->json)
        return status_json_print(stdout, &reply->base, false);
    const Gapless__Admin__Progress *progress = reply->progress;
    if (!exchange->untimed)
        printf("%8.2f s  ", (double)progress->elapsed_ms / 1000);
    table_put_text(stdout, progress->service);
    printf("  ");
    table_put_text(stdout, progress->phase);
    if (*progress->text) {
        printf(": ");
        table_put_text(stdout, progress->text);
    }
    return putchar('\n') != EOF && fflush(stdout) == 0;
}

static void print_failure(const struct exchange *exchange, const Gapless__Admin__Result *result)
{
    fputs("gapless: ", stderr);
    if (result->code == VERB_FAILED && status_is_rolled_back(result->reason))
        fprintf(stderr, "the %s was ", exchange->verb);
    else if (result->code != VERB_USAGE)
        fprintf(stderr, "the %s %s%s", exchange->verb,
            result->code == VERB_REFUSED ? "was refused" : "failed", *result->reason ? ": " : "");
    table_put_text(stderr, result->reason);
    fputc('\n', stderr);
}

static bool print_result(const struct exchange *exchange, const Gapless__Admin__Reply *reply)
{
    const Gapless__Admin__Result *result = reply->result;
    bool printed = true;
    if (exchange->watch && exchange->json)
        printed = status_json_print(stdout, &reply->base, false);
    if (result->code != VERB_DONE) {
        print_failure(exchange, result);
    } else if (exchange->watch && !exchange->json) {
        table_put_text(stdout, *result->reason ? result->reason : "done");
        putchar('\n');
    }
    return printed && fflush(stdout) == 0 && !ferror(stdout);
}

/* --- the conversation --- */

/* What a master of a later version may send as a code, as far as the exit codes go. */
static int exit_code(const Gapless__Admin__Result *result)
{
    return result->code >= 0 && result->code <= VERB_REFUSED ? result->code : VERB_FAILED;
}

/* Prints one reply. -1: there is more to come; else the exit code. */
static int handle(const struct exchange *exchange, const Gapless__Admin__Reply *reply)
{
    bool printed = true;
    int code = -1;
    switch ((int)reply->body_case) {
    case GAPLESS__ADMIN__REPLY__BODY_STATUS:
        printed = print_status(exchange, reply->status);
        break;
    case GAPLESS__ADMIN__REPLY__BODY_PROGRESS:
        printed = print_progress(exchange, reply);
        break;
    case GAPLESS__ADMIN__REPLY__BODY_RESULT:
        printed = print_result(exchange, reply);
        code = exit_code(reply->result);
        break;
    default: /* of a later version: what it can't be without, it doesn't send to us */
        break;
    }
    if (printed)
        return code;
    fprintf(stderr, "gapless: the answer can't be printed: %s\n", strerror(errno));
    return VERB_FAILED;
}

static int receive_all(const struct exchange *exchange, struct client *client)
{
    int timeout_ms = exchange->watch ? -1 : EXCHANGE_TIMEOUT_MS;
    int code = -1;
    while (code < 0) {
        struct error error;
        Gapless__Admin__Reply *reply;
        int r = client_receive(client, timeout_ms, &reply, &error);
        if (r == -EINTR) {
            fprintf(stderr, "gapless: no longer watching; the %s goes on\n", exchange->verb);
            return VERB_INTERRUPTED;
        }
        if (r == -EPIPE && exchange->watch)
            error_prefix(
                &error, "whether the %s goes on isn't known, \"gapless status\" may tell", exchange->verb);
        if (r < 0)
            return fail(&error, r);
        code = handle(exchange, reply);
        gapless__admin__reply__free_unpacked(reply, NULL);
    }
    return code;
}

int exchange_run(const struct exchange *exchange, const Gapless__Admin__Request *request)
{
    struct error error;
    struct client *client = NULL;
    int r = client_open(&exchange->target, &client, &error);
    if (r < 0)
        return fail(&error, r);
    /* Before asking: from then on Ctrl-C must not end this without a word. */
    if (exchange->watch)
        r = client_catch_signals(client, &error);
    if (r == 0)
        r = client_send(client, request, &error);
    int code = r < 0 ? fail(&error, r) : receive_all(exchange, client);
    client_free(client);
    return code;
}
