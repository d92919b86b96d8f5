/* SPDX-License-Identifier: BSD-2-Clause */
/* What `gapless doctor` says of what was found, and what becomes of a try that hangs or crashes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/doctor/bounded.h"
#include "cli/doctor/finding.h"
#include "cli/doctor/rights.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* A deadline that isn't reached, and one that is. */
#define PATIENCE_MS 10000
#define SOON_MS 20

static void fill(struct findings *findings, enum finding_state state)
{
    for (unsigned id = 0; id < FINDING_COUNT; id++)
        finding_set(&findings->all[id], state, "detail %u", id);
}

static char *text_of(const struct findings *findings)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    findings_print(out, findings);
    fclose(out);
    return text;
}

static void text_has_a_line_for_each_and_its_advice_below(void **state)
{
    struct findings findings;
    fill(&findings, FINDING_OK);
    finding_set(&findings.all[FINDING_CAPTURE], FINDING_LIMITED, "half of it\033[2J");
    finding_advise(&findings.all[FINDING_CAPTURE], "use Linux %s", "7.0");
    finding_set(&findings.all[FINDING_STEERING_EBPF], FINDING_NO, "not permitted");
    char *text = text_of(&findings);
    assert_string_equal(text, "ok       kernel              detail 0\n"
                              "ok       pidfd               detail 1\n"
                              "ok       open_files          detail 2\n"
                              "limited  capture             half of it?[2J\n"
                              "                             use Linux 7.0\n"
                              "ok       no_new_privs        detail 4\n"
                              "no       steering_ebpf       not permitted\n"
                              "ok       steering_cbpf       detail 6\n"
                              "ok       steering_path       detail 7\n"
                              "ok       tracking_ebpf       detail 8\n"
                              "ok       tracking_sock_diag  detail 9\n"
                              "ok       keepalive           detail 10\n"
                              "gapless works here\n");
    free(text);
}

static void text_sums_up_what_is_missing(void **state)
{
    struct findings findings;
    fill(&findings, FINDING_NO);
    char *text = text_of(&findings);
    assert_non_null(strstr(text, "\ngapless doesn't work as it should here: there is no pidfd, no capture, "
                                 "no steering, no tracking\n"));
    free(text);
    fill(&findings, FINDING_OK);
    finding_set(&findings.all[FINDING_CAPTURE], FINDING_NO, "no");
    text = text_of(&findings);
    assert_non_null(strstr(text, "\ngapless doesn't work as it should here: there is no capture\n"));
    free(text);
}

/* Each need, with each of what satisfies it, in each state: nothing else matters. */
static void one_form_of_each_need_suffices(void **state)
{
    static const struct {
        enum finding_need need;
        enum finding_id forms[3];
        unsigned count;
    } needs[] = {
        {FINDING_NEED_PIDFD, {FINDING_PIDFD}, 1},
        {FINDING_NEED_CAPTURE, {FINDING_CAPTURE}, 1},
        {FINDING_NEED_STEERING, {FINDING_STEERING_EBPF, FINDING_STEERING_CBPF, FINDING_STEERING_PATH}, 3},
        {FINDING_NEED_TRACKING, {FINDING_TRACKING_EBPF, FINDING_TRACKING_SOCK_DIAG}, 2},
    };
    struct findings findings;
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++) {
        fill(&findings, FINDING_OK);
        finding_set(&findings.all[FINDING_OPEN_FILES], FINDING_NO, "no");
        finding_set(&findings.all[FINDING_NO_NEW_PRIVS], FINDING_NO, "no");
        finding_set(&findings.all[FINDING_KEEPALIVE], FINDING_NO, "no");
        for (unsigned form = 0; form < needs[i].count; form++)
            finding_set(&findings.all[needs[i].forms[form]], FINDING_NO, "no");
        assert_false(findings_suffice(&findings));
        for (unsigned need = 0; need < FINDING_NEED_COUNT; need++)
            assert_int_equal(findings_lack(&findings, need), need == needs[i].need);
        for (unsigned form = 0; form < needs[i].count; form++)
            for (unsigned s = FINDING_UNKNOWN; s < FINDING_STATE_COUNT; s++) {
                finding_set(&findings.all[needs[i].forms[form]], s, "so");
                assert_int_equal(findings_suffice(&findings), s == FINDING_OK || s == FINDING_LIMITED);
            }
    }
}

static void json_says_the_same_by_stable_keys(void **state)
{
    struct findings findings;
    fill(&findings, FINDING_OK);
    finding_set(&findings.all[FINDING_CAPTURE], FINDING_NO, "taken");
    finding_advise(&findings.all[FINDING_CAPTURE], "go elsewhere");
    json_t *json = findings_json(&findings);
    assert_non_null(json);
    int works = 1;
    const char *missing, *capture_state, *detail, *advice, *kernel;
    json_t *nothing;
    assert_int_equal(
        json_unpack(json, "{s:b, s:[s!], s:{s:{s:s, s:s, s:s !}, s:{s:s, s:s, s:o !}}}", "works", &works,
            "missing", &missing, "findings", "capture", "state", &capture_state, "detail", &detail, "advice",
            &advice, "kernel", "state", &kernel, "detail", &kernel, "advice", &nothing),
        0);
    assert_int_equal(works, 0);
    assert_string_equal(missing, "capture");
    assert_string_equal(capture_state, "no");
    assert_string_equal(detail, "taken");
    assert_string_equal(advice, "go elsewhere");
    assert_string_equal(kernel, "detail 0");
    assert_true(json_is_null(nothing));
    assert_int_equal(json_object_size(json_object_get(json, "findings")), FINDING_COUNT);
    json_decref(json);
}

static void json_is_utf8_whatever_the_detail_is(void **state)
{
    struct findings findings;
    fill(&findings, FINDING_OK);
    finding_set(&findings.all[FINDING_KERNEL], FINDING_NO, "in /\xff\xfe");
    finding_set(&findings.all[FINDING_CAPTURE], FINDING_NO, "in /\xc3\xa9");
    json_t *json = findings_json(&findings);
    const char *kernel, *capture;
    assert_int_equal(json_unpack(json, "{s:{s:{s:s}, s:{s:s}}}", "findings", "kernel", "detail", &kernel,
                         "capture", "detail", &capture),
        0);
    assert_string_equal(kernel, "in /??");
    assert_string_equal(capture, "in /\xc3\xa9");
    json_decref(json);
}

/* The longest that there is. */
static void advice_is_whole_whatever_failed(void **state)
{
    static const cap_value_t needed[] = {CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN};
    static const char otherwise[] =
        "without, the drain signal and a proxy's retry are what is left (docs/keepalive.md)";
    static const struct rights_bpf bpf = {.needed = needed,
        .count = 3,
        .kernel = "Linux 6.3 or later with CONFIG_DEBUG_INFO_BTF",
        .otherwise = otherwise};
    static const int codes[] = {EPERM, ENODATA, EOPNOTSUPP};
    struct finding finding;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        finding_set(&finding, FINDING_NO, "no");
        rights_advise_bpf(&finding, codes[i], &bpf);
        const char *found = strstr(finding.advice, otherwise);
        assert_non_null(found);
        assert_string_equal(found, otherwise);
    }
}

static void find(struct findings *findings)
{
    finding_set(&findings->all[FINDING_PIDFD], FINDING_OK, "found");
}

static void find_nothing(struct findings *findings)
{
}

static void crash(struct findings *findings)
{
    signal(SIGUSR1, SIG_DFL);
    raise(SIGUSR1);
}

static void hang(struct findings *findings)
{
    for (;;)
        pause();
}

static void expect(doctor_try *try, int timeout_ms, enum finding_state expected, const char *words)
{
    struct findings *findings =
        mmap(NULL, sizeof *findings, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(findings, MAP_FAILED);
    bounded_run(try, FINDING_PIDFD, timeout_ms, findings);
    assert_int_equal(findings->all[FINDING_PIDFD].state, expected);
    assert_string_equal(findings->all[FINDING_PIDFD].detail, words);
    /* Nothing is left. */
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    munmap(findings, sizeof *findings);
}

static void try_says_what_it_found(void **state)
{
    expect(find, PATIENCE_MS, FINDING_OK, "found");
}

static void try_that_fails_to_answer_is_a_finding(void **state)
{
    char words[64];
    snprintf(words, sizeof words, "trying it was ended by signal %d", SIGUSR1);
    expect(crash, PATIENCE_MS, FINDING_NO, words);
    expect(find_nothing, PATIENCE_MS, FINDING_NO, "trying it ended without an answer");
}

static void try_that_hangs_is_ended_and_a_finding(void **state)
{
    expect(hang, SOON_MS, FINDING_NO, "no answer within 20 ms");
    expect(find, 0, FINDING_NO, "no answer within 0 ms");
}

int main(void)
{
    const struct CMUnitTest doctor[] = {
        cmocka_unit_test(text_has_a_line_for_each_and_its_advice_below),
        cmocka_unit_test(text_sums_up_what_is_missing),
        cmocka_unit_test(one_form_of_each_need_suffices),
        cmocka_unit_test(json_says_the_same_by_stable_keys),
        cmocka_unit_test(json_is_utf8_whatever_the_detail_is),
        cmocka_unit_test(advice_is_whole_whatever_failed),
        cmocka_unit_test(try_says_what_it_found),
        cmocka_unit_test(try_that_fails_to_answer_is_a_finding),
        cmocka_unit_test(try_that_hangs_is_ended_and_a_finding),
    };
    return cmocka_run_group_tests(doctor, NULL, NULL);
}
