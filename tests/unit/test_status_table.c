/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/status_table.h"
#include "cli/table.h"

#include <stdlib.h>
#include <string.h>

static void expect_table(const Gapless__Admin__Status *status, const char *expected)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_true(status_table_print(out, status));
    fclose(out);
    assert_string_equal(text, expected);
    free(text);
}

static void table_shows_services_listeners_and_workers(void **state)
{
    Gapless__Admin__Master master = GAPLESS__ADMIN__MASTER__INIT;
    master.pid = 4711;
    master.version = (char *)"0.1.0";
    master.uptime_s = 7384.9;
    Gapless__Admin__Listener web = GAPLESS__ADMIN__LISTENER__INIT, local = GAPLESS__ADMIN__LISTENER__INIT;
    Gapless__Admin__Listener *listeners[] = {&web, &local};
    web.name = (char *)"web";
    web.address = (char *)"tcp:8080";
    web.steering = local.steering = (char *)"shared";
    local.name = (char *)"local";
    local.address = (char *)"unix:/run/web.sock";
    local.reason = (char *)"one socket for all";
    Gapless__Admin__Worker native = GAPLESS__ADMIN__WORKER__INIT, other = GAPLESS__ADMIN__WORKER__INIT;
    Gapless__Admin__Worker *old_workers[] = {&native}, *new_workers[] = {&native, &other};
    native.pid = 20011;
    native.state = other.state = (char *)"ready";
    native.has_connections = native.has_in_flight = native.has_requests = 1;
    native.has_bytes_in = native.has_bytes_out = 1;
    native.connections = 12;
    native.requests = 40213;
    native.bytes_in = 1023;
    native.bytes_out = 1536ull * 1024;
    other.pid = 7;
    Gapless__Admin__Generation old = GAPLESS__ADMIN__GENERATION__INIT, new = GAPLESS__ADMIN__GENERATION__INIT;
    Gapless__Admin__Generation empty = GAPLESS__ADMIN__GENERATION__INIT;
    Gapless__Admin__Generation *generations[] = {&old, &new, &empty};
    old.id = 9;
    old.state = (char *)"draining";
    old.version = (char *)"1.3";
    old.n_workers = 1;
    old.workers = old_workers;
    new.id = 10;
    new.state = (char *)"active";
    new.n_workers = 2;
    new.workers = new_workers;
    empty.id = 11;
    empty.state = (char *)"starting";
    Gapless__Admin__Upgrade upgrade = GAPLESS__ADMIN__UPGRADE__INIT;
    upgrade.state = (char *)"running";
    upgrade.phase = (char *)"retire";
    upgrade.started_at = (char *)"2026-01-31T12:00:00Z";
    upgrade.reason = (char *)"worker 0 exited with code 1";
    Gapless__Admin__Tracker tracker = GAPLESS__ADMIN__TRACKER__INIT;
    tracker.name = (char *)"native";
    tracker.precision = (char *)"exact";
    Gapless__Admin__Service service = GAPLESS__ADMIN__SERVICE__INIT, none = GAPLESS__ADMIN__SERVICE__INIT;
    Gapless__Admin__Service *services[] = {&service, &none};
    service.name = (char *)"web";
    service.state = (char *)"upgrading";
    service.has_generation = 1;
    service.generation = 10;
    service.tracker = &tracker;
    service.upgrade = &upgrade;
    tracker.reason = (char *)"the workers say it";
    Gapless__Admin__Keepalive keepalive = GAPLESS__ADMIN__KEEPALIVE__INIT;
    keepalive.reason = (char *)"no BPF";
    service.keepalive = &keepalive;
    service.n_listeners = 2;
    service.listeners = listeners;
    service.n_generations = 3;
    service.generations = generations;
    none.name = (char *)"none";
    none.state = (char *)"failed";
    Gapless__Admin__Status status = GAPLESS__ADMIN__STATUS__INIT;
    status.master = &master;
    status.n_services = 2;
    status.services = services;
    expect_table(&status,
        "gapless 0.1.0, pid 4711, up 2 h 3 min\n"
        "\n"
        "web: upgrading, generation 10\n"
        "  upgrade running, phase retire, since 2026-01-31T12:00:00Z\n"
        "  the last upgrade failed: worker 0 exited with code 1\n"
        "  in flight by native, exact (the workers say it)\n"
        "  clients of kept connections aren't told to close (no BPF)\n"
        "  LISTENER  ADDRESS             STEERING\n"
        "  web       tcp:8080            shared\n"
        "  local     unix:/run/web.sock  shared (one socket for all)\n"
        "  GENERATION  STATE     VERSION  WORKER  STATE  CONNECTIONS  IN FLIGHT  REQUESTS    IN      OUT\n"
        "           9  draining  1.3       20011  ready           12          0     40213  1023  1.5 MiB\n"
        "          10  active    -         20011  ready           12          0     40213  1023  1.5 MiB\n"
        "          10  active    -             7  ready            -          -         -     -        -\n"
        "          11  starting  -             -  -                -          -         -     -        -\n"
        "\n"
        "none: failed, generation -\n");
}

static void upgrade_says_from_where_to_where_and_for_how_long(void **state)
{
    static const struct {
        Gapless__Admin__Upgrade upgrade;
        const char *text;
    } cases[] = {
        {.upgrade = {.phase = (char *)"observe",
             .has_from = 1,
             .from = 3,
             .has_to = 1,
             .to = 4,
             .has_ends_in_s = 1,
             .ends_in_s = 12.34,
             .previous = (char *)"generation 3 (1.4.2)"},
            .text = "  upgrade running, 3 to 4, phase observe for another 12.3 s, since now\n"
                    "  a rollback goes back to generation 3 (1.4.2)\n"},
        {.upgrade = {.phase = (char *)"spawn", .has_to = 1, .to = 2},
            .text = "  upgrade running, to 2, phase spawn, since now\n"},
        {.upgrade = {.phase = (char *)"canary", .has_ends_in_s = 1, .ends_in_s = -0.5},
            .text = "  upgrade running, phase canary for another 0.0 s, since now\n"},
        {.upgrade = {.reason = (char *)"rolled back in canary: it crashed"},
            .text = "  the last upgrade was rolled back in canary: it crashed\n"},
        {.upgrade = {.previous = (char *)"generation 1"}, .text = "  a rollback goes back to generation 1\n"},
        {.upgrade = {.reason = (char *)""}, .text = ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char expected[256];
        Gapless__Admin__Upgrade upgrade = cases[i].upgrade;
        upgrade.base = (ProtobufCMessage){.descriptor = &gapless__admin__upgrade__descriptor};
        upgrade.state = (char *)"running";
        upgrade.started_at = (char *)"now";
        Gapless__Admin__Service service = GAPLESS__ADMIN__SERVICE__INIT, *services = &service;
        service.name = (char *)"web";
        service.state = (char *)"upgrading";
        service.upgrade = &upgrade;
        Gapless__Admin__Status status = GAPLESS__ADMIN__STATUS__INIT;
        status.n_services = 1;
        status.services = &services;
        snprintf(expected, sizeof expected, "\nweb: upgrading, generation -\n%s", cases[i].text);
        expect_table(&status, expected);
    }
}

static void table_of_nothing_says_so(void **state)
{
    Gapless__Admin__Status status = GAPLESS__ADMIN__STATUS__INIT;
    expect_table(&status, "\nno services\n");
}

static void uptime_has_two_units(void **state)
{
    static const struct {
        double s;
        const char *text;
    } cases[] = {{-1, "0 s"}, {59.9, "59 s"}, {60, "1 min 0 s"}, {3599, "59 min 59 s"}, {3600, "1 h 0 min"},
        {86399, "23 h 59 min"}, {100 * 86400.0, "100 d 0 h"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char expected[128];
        Gapless__Admin__Master master = GAPLESS__ADMIN__MASTER__INIT;
        master.pid = 1;
        master.version = (char *)"1";
        master.uptime_s = cases[i].s;
        Gapless__Admin__Status status = GAPLESS__ADMIN__STATUS__INIT;
        status.master = &master;
        snprintf(expected, sizeof expected, "gapless 1, pid 1, up %s\n\nno services\n", cases[i].text);
        expect_table(&status, expected);
    }
}

static void bytes_have_a_unit_that_fits(void **state)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {{0, "0"}, {1023, "1023"}, {1024, "1.0 KiB"}, {1024ull * 1024 - 1, "1.0 MiB"},
        {1023ull * 1024, "1023.0 KiB"}, {3ull << 40, "3.0 TiB"}, {UINT64_MAX, "16.0 EiB"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Gapless__Admin__Worker worker = GAPLESS__ADMIN__WORKER__INIT, *workers = &worker;
        worker.has_bytes_out = 1;
        worker.bytes_out = cases[i].bytes;
        Gapless__Admin__Generation generation = GAPLESS__ADMIN__GENERATION__INIT, *generations = &generation;
        generation.n_workers = 1;
        generation.workers = &workers;
        Gapless__Admin__Service service = GAPLESS__ADMIN__SERVICE__INIT, *services = &service;
        service.n_generations = 1;
        service.generations = &generations;
        Gapless__Admin__Status status = GAPLESS__ADMIN__STATUS__INIT;
        status.n_services = 1;
        status.services = &services;
        char *text = NULL, expected[64];
        size_t size = 0;
        FILE *out = open_memstream(&text, &size);
        assert_true(status_table_print(out, &status));
        fclose(out);
        snprintf(expected, sizeof expected, "  %s\n", cases[i].text);
        assert_true(size > strlen(expected));
        assert_string_equal(text + size - strlen(expected), expected);
        free(text);
    }
}

static void text_from_elsewhere_cannot_steer_the_terminal(void **state)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    table_put_text(out, "a\x1b[31mb\n\t\x7f \xc2\x9b"
                        "1m \xc3\xa9 \xc2\xa9");
    fclose(out);
    assert_string_equal(text, "a?[31mb??? ?1m \xc3\xa9 \xc2\xa9");
    free(text);
}

static void columns_count_characters_not_bytes(void **state)
{
    static const struct table_column columns[] = {
        {.title = "A"}, {.title = "B", .right = true}, {.title = "C"}};
    struct table *table = table_new(columns, 3);
    table_add(table, "\xc3\xa9\xc3\xa9");
    table_add(table, "%d", 10);
    table_add(table, "x");
    table_add(table, "%s", "not a whole row");
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_true(table_print(table, out, 1));
    fclose(out);
    /* The cell that is alone in its row is not printed; it only widens its column. */
    assert_string_equal(text, " A                 B  C\n \xc3\xa9\xc3\xa9               10  x\n");
    free(text);
    table_free(table);
}

static void line_below_a_row_widens_no_column(void **state)
{
    static const struct table_column columns[] = {{.title = "A"}, {.title = "B"}};
    struct table *table = table_new(columns, 2);
    table_add_line(table, "below the titles, and longer than all of them");
    for (int i = 0; i < 2; i++) {
        table_add(table, "%d", i);
        table_add(table, "x");
    }
    for (int i = 0; i < 20; i++)
        table_add_line(table, i ? "more"
                                : "be\x1b"
                                  "low");
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_true(table_print(table, out, 1));
    fclose(out);
    static const char begin[] =
        " A  B\n below the titles, and longer than all of them\n 0  x\n 1  x\n be?low\n more\n";
    assert_memory_equal(text, begin, sizeof begin - 1);
    assert_int_equal(size, sizeof begin - 1 + 18 * strlen(" more\n"));
    free(text);
    table_free(table);
}

int main(void)
{
    const struct CMUnitTest status_table[] = {
        cmocka_unit_test(table_shows_services_listeners_and_workers),
        cmocka_unit_test(upgrade_says_from_where_to_where_and_for_how_long),
        cmocka_unit_test(table_of_nothing_says_so),
        cmocka_unit_test(uptime_has_two_units),
        cmocka_unit_test(bytes_have_a_unit_that_fits),
        cmocka_unit_test(text_from_elsewhere_cannot_steer_the_terminal),
        cmocka_unit_test(columns_count_characters_not_bytes),
        cmocka_unit_test(line_below_a_row_widens_no_column),
    };
    return cmocka_run_group_tests(status_table, NULL, NULL);
}
