/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench/load/ledger.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_S UINT64_C(1000000000)

static const struct {
    const char *name;
    enum outcome_kind kind;
} outcomes[OUTCOME_COUNT] = {
    [OUTCOME_ANSWERED] = {"answered", OUTCOME_GOOD},
    [OUTCOME_ERROR_STATUS] = {"error_status", OUTCOME_FAILED},
    [OUTCOME_REFUSED] = {"refused", OUTCOME_FAILED},
    [OUTCOME_RESET] = {"reset", OUTCOME_FAILED},
    [OUTCOME_CLOSED_UNANSWERED] = {"closed_unanswered", OUTCOME_FAILED},
    [OUTCOME_CUT_MID_ANSWER] = {"cut_mid_answer", OUTCOME_FAILED},
    [OUTCOME_CUT_REUSED] = {"cut_reused", OUTCOME_FAILED},
    [OUTCOME_TIMEOUT_CONNECT] = {"timeout_connect", OUTCOME_FAILED},
    [OUTCOME_TIMEOUT_ANSWER] = {"timeout_answer", OUTCOME_FAILED},
    [OUTCOME_MALFORMED] = {"malformed", OUTCOME_FAILED},
    [OUTCOME_LOCAL] = {"local", OUTCOME_OURS},
    [OUTCOME_ABANDONED] = {"abandoned", OUTCOME_OURS},
    [OUTCOME_HELD] = {"held", OUTCOME_GOOD},
    [OUTCOME_IDLE_CLOSED] = {"idle_closed", OUTCOME_GOOD},
};

static const char *const groups[GROUP_COUNT] = {
    [GROUP_RATE] = "rate",
    [GROUP_CLIENTS] = "clients",
    [GROUP_KEEPALIVE] = "keepalive",
    [GROUP_SLOW] = "slow",
    [GROUP_IDLE] = "idle",
};

const char *outcome_name(enum outcome outcome)
{
    return outcomes[outcome].name;
}

enum outcome_kind outcome_kind(enum outcome outcome)
{
    return outcomes[outcome].kind;
}

const char *load_group_name(enum load_group group)
{
    return groups[group];
}

struct ledger *ledger_new(uint64_t now_ns)
{
    struct ledger *ledger = calloc(1, sizeof(*ledger));
    if (!ledger)
        return NULL;
    ledger->start_ns = now_ns;
    ledger->tags = calloc(LEDGER_TAG_MAX + 1, sizeof(*ledger->tags));
    if (!ledger->tags || window_set_init(&ledger->windows, now_ns) < 0) {
        ledger_free(ledger);
        return NULL;
    }
    return ledger;
}

void ledger_free(struct ledger *ledger)
{
    if (!ledger)
        return;
    window_set_done(&ledger->windows);
    free(ledger->tags);
    free(ledger->seconds);
    free(ledger);
}

void ledger_begin(struct ledger *ledger, enum load_group group, unsigned target, uint64_t now_ns,
    struct attempt *ret_attempt)
{
    assert(group < GROUP_COUNT && target < LEDGER_TARGET_MAX);
    *ret_attempt = (struct attempt){.group = group, .target = target, .began_ns = now_ns};
    ledger->groups[group].begun++;
    if (group != GROUP_IDLE)
        ledger->targets[target].begun++;
}

static void count_code(struct ledger *ledger, enum outcome outcome, int code)
{
    for (unsigned i = 0; i < ledger->code_count; i++) {
        if (ledger->codes[i].outcome == outcome && ledger->codes[i].code == code) {
            ledger->codes[i].count++;
            return;
        }
    }
    /* There are fewer pairs than room for them that can come up; one beyond would still be in the outcome's
     * count. */
    if (ledger->code_count < LEDGER_CODE_MAX)
        ledger->codes[ledger->code_count++] = (struct ledger_code){outcome, code, 1};
}

static struct ledger_tag *find_tag(struct ledger *ledger, const char *value)
{
    for (unsigned i = 0; i < ledger->tag_count; i++) {
        if (strncmp(ledger->tags[i].value, value, LEDGER_TAG_SIZE - 1) == 0)
            return &ledger->tags[i];
    }
    if (ledger->tag_count > LEDGER_TAG_MAX)
        return &ledger->tags[LEDGER_TAG_MAX];
    struct ledger_tag *tag = &ledger->tags[ledger->tag_count++];
    strncpy(tag->value, ledger->tag_count > LEDGER_TAG_MAX ? "(other)" : value, LEDGER_TAG_SIZE - 1);
    return tag;
}

static void count_tag(struct ledger *ledger, const char *value, uint64_t now_ns)
{
    struct ledger_tag *tag = find_tag(ledger, value);
    if (tag->count++ == 0)
        tag->first_ns = now_ns - ledger->start_ns;
    tag->last_ns = now_ns - ledger->start_ns;
}

/* The entry of the second that `now_ns` is in; NULL: no memory for a run that long. */
static struct ledger_second *second_at(struct ledger *ledger, uint64_t now_ns)
{
    uint64_t index = (now_ns - ledger->start_ns) / NS_PER_S;
    if (index >= ledger->second_count) {
        uint64_t count = (index + 1) * 2;
        struct ledger_second *grown = realloc(ledger->seconds, count * sizeof(*grown));
        if (!grown)
            return NULL;
        memset(grown + ledger->second_count, 0, (count - ledger->second_count) * sizeof(*grown));
        ledger->seconds = grown;
        ledger->second_count = count;
    }
    return &ledger->seconds[index];
}

static void count_answer(
    struct ledger *ledger, const struct attempt *attempt, const struct attempt_end *end, uint64_t now_ns)
{
    assert(end->status > 0 && end->status < LEDGER_STATUS_MAX && attempt->group != GROUP_IDLE);
    ledger->statuses[end->status]++;
    if (end->tag)
        count_tag(ledger, end->tag, now_ns);
    uint64_t latency = now_ns - attempt->began_ns;
    histogram_add(&ledger->group_latency[attempt->group], latency);
    if (attempt->group != GROUP_SLOW)
        histogram_add(&ledger->latency, latency);
}

static void note_failure(
    struct ledger *ledger, const struct attempt *attempt, const struct attempt_end *end, uint64_t now_ns)
{
    if (ledger->failure_count == LEDGER_FAILURE_MAX)
        return;
    ledger->failures[ledger->failure_count++] = (struct ledger_failure){.attempt = *attempt,
        .outcome = end->outcome,
        .code = end->code,
        .status = end->status,
        .at_ns = now_ns - ledger->start_ns};
}

void ledger_end(
    struct ledger *ledger, const struct attempt *attempt, const struct attempt_end *end, uint64_t now_ns)
{
    enum outcome_kind kind = outcome_kind(end->outcome);
    bool whole = end->outcome == OUTCOME_ANSWERED || end->outcome == OUTCOME_ERROR_STATUS;

    ledger->groups[attempt->group].ended[end->outcome]++;
    if (whole)
        count_answer(ledger, attempt, end, now_ns);
    if (end->code)
        count_code(ledger, end->outcome, end->code);
    if (kind != OUTCOME_GOOD)
        note_failure(ledger, attempt, end, now_ns);
    if (attempt->group == GROUP_IDLE)
        return;

    ledger->targets[attempt->target].ended[end->outcome]++;
    struct ledger_second *second = second_at(ledger, now_ns);
    if (second && kind == OUTCOME_GOOD)
        second->answered++;
    else if (second && kind == OUTCOME_FAILED)
        second->failed++;
    if (kind == OUTCOME_FAILED)
        window_set_count(&ledger->windows, WINDOW_FAILED, attempt->began_ns, now_ns);
    else if (kind == OUTCOME_GOOD)
        window_set_count(&ledger->windows,
            attempt->group == GROUP_SLOW ? WINDOW_ANSWERED_SLOWLY : WINDOW_ANSWERED, attempt->began_ns,
            now_ns);
}

void ledger_stop(struct ledger *ledger, uint64_t now_ns)
{
    window_set_stop(&ledger->windows, now_ns);
}

static uint64_t sum_ended(const struct ledger_count *count)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < OUTCOME_COUNT; i++)
        sum += count->ended[i];
    return sum;
}

uint64_t ledger_open(const struct ledger *ledger)
{
    uint64_t open = 0;
    for (unsigned group = 0; group < GROUP_COUNT; group++)
        open += ledger->groups[group].begun - sum_ended(&ledger->groups[group]);
    return open;
}

struct ledger_count ledger_requests(const struct ledger *ledger)
{
    struct ledger_count sum = {0};
    for (unsigned group = 0; group < GROUP_COUNT; group++) {
        if (group == GROUP_IDLE)
            continue;
        sum.begun += ledger->groups[group].begun;
        for (unsigned i = 0; i < OUTCOME_COUNT; i++)
            sum.ended[i] += ledger->groups[group].ended[i];
    }
    return sum;
}

uint64_t ledger_count_kind(const struct ledger_count *count, enum outcome_kind kind)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < OUTCOME_COUNT; i++)
        sum += outcome_kind(i) == kind ? count->ended[i] : 0;
    return sum;
}

bool ledger_check(const struct ledger *ledger)
{
    uint64_t whole = 0, timed = 0, by_status = 0, target_begun = 0, target_ended = 0;
    for (unsigned group = 0; group < GROUP_COUNT; group++) {
        const struct ledger_count *count = &ledger->groups[group];
        if (count->begun != sum_ended(count))
            return false;
        whole += count->ended[OUTCOME_ANSWERED] + count->ended[OUTCOME_ERROR_STATUS];
        timed += ledger->group_latency[group].count;
    }
    for (unsigned status = 0; status < LEDGER_STATUS_MAX; status++)
        by_status += ledger->statuses[status];
    for (unsigned target = 0; target < LEDGER_TARGET_MAX; target++) {
        target_begun += ledger->targets[target].begun;
        target_ended += sum_ended(&ledger->targets[target]);
    }
    uint64_t requests = ledger_requests(ledger).begun;
    return whole == by_status && whole == timed && target_begun == requests && target_ended == requests;
}
