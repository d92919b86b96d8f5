/* SPDX-License-Identifier: BSD-2-Clause */
#include "cli/doctor/finding.h"

#include "cli/table.h"

#include <stdarg.h>
#include <string.h>

/* "limited" and two spaces; the longest name and two. */
#define STATE_WIDTH 9
#define NAME_WIDTH 20

static const char *const state_names[FINDING_STATE_COUNT] = {"unknown", "ok", "limited", "no"};
static const char *const need_names[FINDING_NEED_COUNT] = {"pidfd", "capture", "steering", "tracking"};

/* Which findings satisfy a need: a run of them. */
static const struct {
    enum finding_id first;
    enum finding_id last;
} needs[FINDING_NEED_COUNT] = {
    [FINDING_NEED_PIDFD] = {FINDING_PIDFD, FINDING_PIDFD},
    [FINDING_NEED_CAPTURE] = {FINDING_CAPTURE, FINDING_CAPTURE},
    [FINDING_NEED_STEERING] = {FINDING_STEERING_EBPF, FINDING_STEERING_PATH},
    [FINDING_NEED_TRACKING] = {FINDING_TRACKING_EBPF, FINDING_TRACKING_SOCK_DIAG},
};

const char *finding_name(enum finding_id id)
{
    static const char *const names[FINDING_COUNT] = {
        [FINDING_KERNEL] = "kernel",
        [FINDING_PIDFD] = "pidfd",
        [FINDING_OPEN_FILES] = "open_files",
        [FINDING_CAPTURE] = "capture",
        [FINDING_NO_NEW_PRIVS] = "no_new_privs",
        [FINDING_STEERING_EBPF] = "steering_ebpf",
        [FINDING_STEERING_CBPF] = "steering_cbpf",
        [FINDING_STEERING_PATH] = "steering_path",
        [FINDING_TRACKING_EBPF] = "tracking_ebpf",
        [FINDING_TRACKING_SOCK_DIAG] = "tracking_sock_diag",
        [FINDING_KEEPALIVE] = "keepalive",
    };
    return (unsigned)id < FINDING_COUNT ? names[id] : "?";
}

void finding_set(struct finding *finding, enum finding_state state, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding->detail, sizeof finding->detail, format, arguments);
    va_end(arguments);
    finding->advice[0] = 0;
    finding->state = state;
}

void finding_advise(struct finding *finding, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding->advice, sizeof finding->advice, format, arguments);
    va_end(arguments);
}

bool findings_lack(const struct findings *findings, enum finding_need need)
{
    for (unsigned id = needs[need].first; id <= needs[need].last; id++)
        if (findings->all[id].state == FINDING_OK || findings->all[id].state == FINDING_LIMITED)
            return false;
    return true;
}

bool findings_suffice(const struct findings *findings)
{
    for (unsigned need = 0; need < FINDING_NEED_COUNT; need++)
        if (findings_lack(findings, need))
            return false;
    return true;
}

static void print_one(FILE *out, enum finding_id id, const struct finding *finding)
{
    fprintf(out, "%-*s%-*s", STATE_WIDTH, state_names[finding->state], NAME_WIDTH, finding_name(id));
    table_put_text(out, finding->detail);
    fputc('\n', out);
    if (!finding->advice[0])
        return;
    fprintf(out, "%*s", STATE_WIDTH + NAME_WIDTH, "");
    table_put_text(out, finding->advice);
    fputc('\n', out);
}

void findings_print(FILE *out, const struct findings *findings)
{
    for (unsigned id = 0; id < FINDING_COUNT; id++)
        print_one(out, id, &findings->all[id]);
    if (findings_suffice(findings)) {
        fputs("gapless works here\n", out);
        return;
    }
    const char *between = "gapless doesn't work as it should here: there is no ";
    for (unsigned need = 0; need < FINDING_NEED_COUNT; need++)
        if (findings_lack(findings, need)) {
            fprintf(out, "%s%s", between, need_names[need]);
            between = ", no ";
        }
    fputc('\n', out);
}

/* JSON is UTF-8; what comes from elsewhere (TMPDIR) needn't be, and a long text is cut anywhere. */
static json_t *text_json(const char *text)
{
    json_t *json = json_string(text);
    char copy[sizeof((struct finding *)NULL)->detail];
    snprintf(copy, sizeof copy, "%s", text);
    for (char *c = copy; !json && *c; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    return json ? json : json_string(copy);
}

static json_t *one_json(const struct finding *finding)
{
    return json_pack("{s:s, s:o, s:o}", "state", state_names[finding->state], "detail",
        text_json(finding->detail), "advice", finding->advice[0] ? text_json(finding->advice) : json_null());
}

json_t *findings_json(const struct findings *findings)
{
    json_t *missing = json_array(), *all = json_object();
    int failed = !missing || !all;
    for (unsigned need = 0; need < FINDING_NEED_COUNT && !failed; need++)
        if (findings_lack(findings, need))
            failed = json_array_append_new(missing, json_string(need_names[need]));
    for (unsigned id = 0; id < FINDING_COUNT && !failed; id++)
        failed = json_object_set_new(all, finding_name(id), one_json(&findings->all[id]));
    json_t *json = NULL;
    if (!failed)
        json = json_pack(
            "{s:b, s:O, s:O}", "works", findings_suffice(findings), "missing", missing, "findings", all);
    json_decref(missing);
    json_decref(all);
    return json;
}
