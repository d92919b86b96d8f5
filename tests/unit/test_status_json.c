/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/status_json.h"
#include "ipc/admin.pb-c.h"
#include "tests/unit/types.pb-c.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The message as it is printed, exactly. */
static void expect_json(const void *message, const char *expected)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_true(status_json_print(out, message, false));
    fclose(out);
    assert_int_equal(text[size - 1], '\n');
    text[size - 1] = '\0';
    assert_string_equal(text, expected);
    free(text);
}

static void empty_status_has_null_and_empty_list(void **state)
{
    Gapless__Admin__Status status = GAPLESS__ADMIN__STATUS__INIT;
    expect_json(&status, "{\"master\": null, \"services\": []}");
}

static void worker_without_counters_has_nulls(void **state)
{
    Gapless__Admin__Worker worker = GAPLESS__ADMIN__WORKER__INIT;
    worker.pid = 17;
    worker.state = (char *)"ready";
    expect_json(&worker, "{\"pid\": 17, \"state\": \"ready\", \"connections\": null, \"in_flight\": null, "
                         "\"requests\": null, \"bytes_in\": null, \"bytes_out\": null}");
    worker.has_connections = worker.has_bytes_out = 1;
    worker.bytes_out = 1ull << 40;
    expect_json(&worker, "{\"pid\": 17, \"state\": \"ready\", \"connections\": 0, \"in_flight\": null, "
                         "\"requests\": null, \"bytes_in\": null, \"bytes_out\": 1099511627776}");
}

/* The keys that DESIGN promises, in the order of the .proto. */
static void status_has_the_keys_that_are_documented(void **state)
{
    Gapless__Admin__Master master = GAPLESS__ADMIN__MASTER__INIT;
    master.pid = 1;
    master.version = (char *)"0.1.0";
    master.uptime_s = 0.25;
    Gapless__Admin__Tracker tracker = GAPLESS__ADMIN__TRACKER__INIT;
    tracker.name = (char *)"native";
    tracker.precision = (char *)"exact";
    Gapless__Admin__Listener listener = GAPLESS__ADMIN__LISTENER__INIT, *listeners = &listener;
    listener.name = (char *)"web";
    listener.address = (char *)"tcp:80";
    listener.steering = (char *)"shared";
    Gapless__Admin__Generation generation = GAPLESS__ADMIN__GENERATION__INIT, *generations = &generation;
    generation.id = 3;
    generation.state = (char *)"active";
    generation.started_at = (char *)"2026-01-31T12:00:00.000Z";
    Gapless__Admin__Upgrade upgrade = GAPLESS__ADMIN__UPGRADE__INIT;
    upgrade.state = (char *)"idle";
    Gapless__Admin__Service service = GAPLESS__ADMIN__SERVICE__INIT, *services = &service;
    service.name = (char *)"web";
    service.state = (char *)"serving";
    service.has_generation = 1;
    service.generation = 3;
    service.tracker = &tracker;
    service.n_listeners = service.n_generations = 1;
    service.listeners = &listeners;
    service.generations = &generations;
    service.upgrade = &upgrade;
    Gapless__Admin__Status status = GAPLESS__ADMIN__STATUS__INIT;
    status.master = &master;
    status.n_services = 1;
    status.services = &services;
    expect_json(&status,
        "{\"master\": {\"pid\": 1, \"version\": \"0.1.0\", \"uptime_s\": 0.25, \"history\": null}, "
        "\"services\": ["
        "{\"name\": \"web\", \"state\": \"serving\", \"generation\": 3, "
        "\"tracker\": {\"name\": \"native\", \"precision\": \"exact\", \"reason\": null}, "
        "\"listeners\": [{\"name\": \"web\", \"address\": \"tcp:80\", \"steering\": \"shared\", \"reason\": "
        "null}], "
        "\"generations\": [{\"id\": 3, \"state\": \"active\", \"version\": null, "
        "\"started_at\": \"2026-01-31T12:00:00.000Z\", \"idle_closed\": null, \"workers\": [], \"farewell\": "
        "null}], "
        "\"upgrade\": {\"state\": \"idle\", \"phase\": null, \"started_at\": null, \"reason\": null, "
        "\"from\": null, \"to\": null, \"ends_in_s\": null, \"previous\": null}, "
        "\"keepalive\": null, \"vault\": null}]}");
}

static void reply_has_only_the_body_that_is_set(void **state)
{
    Gapless__Admin__Result result = GAPLESS__ADMIN__RESULT__INIT;
    result.code = 3;
    result.reason = (char *)"one is under way";
    Gapless__Admin__Reply reply = GAPLESS__ADMIN__REPLY__INIT;
    expect_json(&reply, "{}");
    reply.body_case = GAPLESS__ADMIN__REPLY__BODY_RESULT;
    reply.result = &result;
    expect_json(&reply, "{\"result\": {\"code\": 3, \"reason\": \"one is under way\"}}");
}

static void oneof_members_keep_their_place(void **state)
{
    Gapless__Test__Choice choice = GAPLESS__TEST__CHOICE__INIT;
    expect_json(&choice, "{\"before\": 0, \"after\": null}");
    choice.body_case = GAPLESS__TEST__CHOICE__BODY_NUMBER;
    choice.number = 0;
    expect_json(&choice, "{\"before\": 0, \"number\": 0, \"after\": null}");
    choice.body_case = GAPLESS__TEST__CHOICE__BODY_TEXT;
    choice.text = (char *)"";
    expect_json(&choice, "{\"before\": 0, \"text\": \"\", \"after\": null}");
}

static void every_absent_type_is_null(void **state)
{
    Gapless__Test__Optional none = GAPLESS__TEST__OPTIONAL__INIT;
    json_t *json = status_json(&none.base);
    assert_int_equal(json_object_size(json), 17);
    const char *key;
    json_t *value;
    json_object_foreach(json, key, value) if (!json_is_null(value)) fail_msg("%s isn't null", key);
    json_decref(json);
}

static void every_type_has_its_value(void **state)
{
    Gapless__Test__Inner inner = GAPLESS__TEST__INNER__INIT;
    inner.number = -5;
    uint8_t bytes[] = {0xfb, 0xff, 0x00, 0x01};
    Gapless__Test__Optional all = GAPLESS__TEST__OPTIONAL__INIT;
    all.has_f_int32 = all.has_f_sint32 = all.has_f_sfixed32 = all.has_f_uint32 = all.has_f_fixed32 = 1;
    all.has_f_int64 = all.has_f_sint64 = all.has_f_sfixed64 = all.has_f_uint64 = all.has_f_fixed64 = 1;
    all.has_f_float = all.has_f_double = all.has_f_bool = all.has_f_enum = all.has_f_bytes = 1;
    all.f_int32 = all.f_sint32 = all.f_sfixed32 = INT32_MIN;
    all.f_uint32 = all.f_fixed32 = UINT32_MAX;
    all.f_int64 = all.f_sint64 = all.f_sfixed64 = INT64_MIN;
    all.f_uint64 = all.f_fixed64 = INT64_MAX;
    all.f_float = 0.5f;
    all.f_double = 0.1;
    all.f_bool = 1;
    all.f_enum = GAPLESS__TEST__COLOR__COLOR_BLUE;
    all.f_string = (char *)"a\"b\n\xc3\xa9";
    all.f_bytes = (ProtobufCBinaryData){.len = sizeof bytes, .data = bytes};
    all.f_message = &inner;
    expect_json(&all, "{\"f_int32\": -2147483648, \"f_sint32\": -2147483648, \"f_sfixed32\": -2147483648, "
                      "\"f_uint32\": 4294967295, \"f_fixed32\": 4294967295, "
                      "\"f_int64\": -9223372036854775808, \"f_sint64\": -9223372036854775808, "
                      "\"f_sfixed64\": -9223372036854775808, \"f_uint64\": 9223372036854775807, "
                      "\"f_fixed64\": 9223372036854775807, \"f_float\": 0.5, \"f_double\": 0.1, "
                      "\"f_bool\": true, \"f_enum\": \"COLOR_BLUE\", \"f_string\": \"a\\\"b\\n\xc3\xa9\", "
                      "\"f_bytes\": \"+/8AAQ==\", \"f_message\": {\"number\": -5}}");
}

static void numbers_that_json_lacks_are_real_or_null(void **state)
{
    uint64_t large[] = {UINT64_MAX, 1ull << 63};
    double odd[] = {NAN, INFINITY, -INFINITY, 1.5};
    Gapless__Test__Repeated lists = GAPLESS__TEST__REPEATED__INIT;
    lists.n_f_uint64 = 2;
    lists.f_uint64 = large;
    lists.n_f_double = 4;
    lists.f_double = odd;
    json_t *json = status_json(&lists.base);
    assert_non_null(json);
    json_t *reals = json_object_get(json, "f_uint64");
    assert_true(json_real_value(json_array_get(reals, 0)) == 18446744073709551616.0);
    assert_true(json_real_value(json_array_get(reals, 1)) == 9223372036854775808.0);
    json_t *doubles = json_object_get(json, "f_double");
    for (size_t i = 0; i < 3; i++)
        assert_true(json_is_null(json_array_get(doubles, i)));
    assert_true(json_real_value(json_array_get(doubles, 3)) == 1.5);
    json_decref(json);
}

static void lists_have_all_their_values(void **state)
{
    Gapless__Test__Inner one = GAPLESS__TEST__INNER__INIT, two = GAPLESS__TEST__INNER__INIT;
    one.number = 1;
    two.number = 2;
    Gapless__Test__Inner *inners[] = {&one, &two};
    uint32_t numbers[] = {1, 2, 3};
    protobuf_c_boolean bools[] = {1, 0};
    Gapless__Test__Color colors[] = {GAPLESS__TEST__COLOR__COLOR_RED, (Gapless__Test__Color)99};
    char *strings[] = {(char *)"", (char *)"x"};
    uint8_t byte = 'M';
    ProtobufCBinaryData bytes[] = {{.len = 0}, {.len = 1, .data = &byte}};
    Gapless__Test__Repeated lists = GAPLESS__TEST__REPEATED__INIT;
    expect_json(&lists,
        "{\"f_uint32\": [], \"f_uint64\": [], \"f_double\": [], \"f_bool\": [], \"f_enum\": [], "
        "\"f_string\": [], \"f_bytes\": [], \"f_message\": []}");
    lists.n_f_uint32 = 3;
    lists.f_uint32 = numbers;
    lists.n_f_bool = lists.n_f_enum = lists.n_f_string = lists.n_f_bytes = lists.n_f_message = 2;
    lists.f_bool = bools;
    lists.f_enum = colors;
    lists.f_string = strings;
    lists.f_bytes = bytes;
    lists.f_message = inners;
    expect_json(&lists,
        "{\"f_uint32\": [1, 2, 3], \"f_uint64\": [], \"f_double\": [], \"f_bool\": [true, false], "
        "\"f_enum\": [\"COLOR_RED\", 99], \"f_string\": [\"\", \"x\"], \"f_bytes\": [\"\", \"TQ==\"], "
        "\"f_message\": [{\"number\": 1}, {\"number\": 2}]}");
}

static void text_that_is_not_utf8_is_made_so(void **state)
{
    static const struct {
        const char *text, *json;
    } cases[] = {
        {"ok \xf0\x9f\x98\x80", "ok \xf0\x9f\x98\x80"},
        {"\xff", "\xef\xbf\xbd"},
        {"a\xc3", "a\xef\xbf\xbd"},                                                 /* cut off */
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},                                   /* overlong */
        {"\xe0\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},                   /* overlong */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},                   /* surrogate */
        {"\xf4\x90\x80\x80x", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx"}, /* beyond U+10FFFF */
        {"\xf5\x80\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\x80\xc3\xa9", "\xef\xbf\xbd\xc3\xa9"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Gapless__Test__Optional message = GAPLESS__TEST__OPTIONAL__INIT;
        message.f_string = (char *)cases[i].text;
        json_t *json = status_json(&message.base);
        assert_non_null(json);
        assert_string_equal(json_string_value(json_object_get(json, "f_string")), cases[i].json);
        json_decref(json);
    }
}

static void printing_to_a_full_disk_is_seen(void **state)
{
    Gapless__Admin__Status status = GAPLESS__ADMIN__STATUS__INIT;
    FILE *full = fopen("/dev/full", "w");
    assert_non_null(full);
    assert_false(status_json_print(full, &status.base, true));
    fclose(full);
}

int main(void)
{
    const struct CMUnitTest status_json_cases[] = {
        cmocka_unit_test(empty_status_has_null_and_empty_list),
        cmocka_unit_test(worker_without_counters_has_nulls),
        cmocka_unit_test(status_has_the_keys_that_are_documented),
        cmocka_unit_test(reply_has_only_the_body_that_is_set),
        cmocka_unit_test(oneof_members_keep_their_place),
        cmocka_unit_test(every_absent_type_is_null),
        cmocka_unit_test(every_type_has_its_value),
        cmocka_unit_test(numbers_that_json_lacks_are_real_or_null),
        cmocka_unit_test(lists_have_all_their_values),
        cmocka_unit_test(text_that_is_not_utf8_is_made_so),
        cmocka_unit_test(printing_to_a_full_disk_is_seen),
    };
    return cmocka_run_group_tests(status_json_cases, NULL, NULL);
}
