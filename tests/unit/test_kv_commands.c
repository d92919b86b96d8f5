/* SPDX-License-Identifier: BSD-2-Clause */
#include "examples/kv/commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define NOW UINT64_C(1700000000000)

/* A server without connections: its requests come as text. */
struct server {
    struct commands commands;
    struct counters counters;
    struct evbuffer *output;
    char changed[1000]; /* the keys, each with a space behind it */
    bool again;
    enum command_result result; /* of the last request */
};

static void on_changed(const char *key, size_t key_size, void *arg)
{
    struct server *server = arg;
    strncat(server->changed, key, key_size);
    strcat(server->changed, " ");
}

static int make(void **state)
{
    struct server *server = calloc(1, sizeof *server);
    server->commands = (struct commands){.store = store_new(1000000, 1, 1000),
        .counters = &server->counters,
        .version = "7",
        .schema = 2,
        .value_max = 1000,
        .now_ms = NOW,
        .changed = on_changed,
        .arg = server};
    server->output = evbuffer_new();
    *state = server;
    return 0;
}

static int unmake(void **state)
{
    struct server *server = *state;
    store_free(server->commands.store);
    evbuffer_free(server->output);
    free(server);
    return 0;
}

/* Executes a request ("set k 0 0 1\r\nx\r\n") and holds its answer against what is expected. */
static void ask(struct server *server, const char *text, const char *expected)
{
    struct protocol_request request;
    size_t line_size;
    const char *refused;
    assert_int_equal(protocol_parse(text, strlen(text), &request, &line_size, &refused), PROTOCOL_REQUEST);
    const char *value = request.has_value ? text + line_size : NULL;
    server->result = command_execute(&server->commands, &request, value, server->again, server->output);
    evbuffer_add(server->output, "", 1);
    assert_string_equal((char *)evbuffer_pullup(server->output, -1), expected);
    evbuffer_drain(server->output, evbuffer_get_length(server->output));
}

static void assert_changed(struct server *server, const char *keys)
{
    assert_string_equal(server->changed, keys);
    server->changed[0] = 0;
}

static uint64_t unique_of(const struct server *server, const char *key)
{
    return store_find(server->commands.store, key, strlen(key), NOW)->fields.unique;
}

static void stored_values_are_read(void **state)
{
    struct server *server = *state;
    ask(server, "set a 5 0 3\r\nabc\r\n", "STORED\r\n");
    ask(server, "set b 4294967295 0 0 noreply\r\n\r\n", "");
    assert_changed(server, "a b ");
    ask(server, "get a x b\r\n", "VALUE a 5 3\r\nabc\r\nVALUE b 4294967295 0\r\n\r\nEND\r\n");
    char expected[200];
    snprintf(expected, sizeof expected, "VALUE a 5 3 %" PRIu64 "\r\nabc\r\nEND\r\n", unique_of(server, "a"));
    ask(server, "gets a\r\n", expected);
    assert_changed(server, "");
}

static void add_and_replace_ask_what_is_there(void **state)
{
    struct server *server = *state;
    ask(server, "replace a 0 0 1\r\n1\r\n", "NOT_STORED\r\n");
    ask(server, "add a 0 0 1\r\n2\r\n", "STORED\r\n");
    ask(server, "add a 0 0 1\r\n3\r\n", "NOT_STORED\r\n");
    assert_changed(server, "a ");
    ask(server, "replace a 0 0 1\r\n4\r\n", "STORED\r\n");
    ask(server, "get a\r\n", "VALUE a 0 1\r\n4\r\nEND\r\n");
}

static void cas_stores_only_what_was_read(void **state)
{
    struct server *server = *state;
    char request[100];
    ask(server, "cas a 0 0 1 5\r\n1\r\n", "NOT_FOUND\r\n");
    ask(server, "set a 0 0 1\r\n1\r\n", "STORED\r\n");
    snprintf(request, sizeof request, "cas a 0 0 1 %" PRIu64 "\r\n2\r\n", unique_of(server, "a"));
    ask(server, request, "STORED\r\n");
    server->changed[0] = 0;
    ask(server, request, "EXISTS\r\n");
    assert_changed(server, "");
    ask(server, "get a\r\n", "VALUE a 0 1\r\n2\r\nEND\r\n");
}

static void incr_and_decr_count_as_memcached_does(void **state)
{
    struct server *server = *state;
    ask(server, "incr n 1\r\n", "NOT_FOUND\r\n");
    ask(server, "set n 7 100 2\r\n10\r\n", "STORED\r\n");
    server->changed[0] = 0;
    ask(server, "incr n 5\r\n", "15\r\n");
    ask(server, "decr n 6 noreply\r\n", "");
    assert_changed(server, "n n ");
    ask(server, "decr n 100\r\n", "0\r\n");
    ask(server, "get n\r\n", "VALUE n 7 1\r\n0\r\nEND\r\n");
    ask(server, "incr n 18446744073709551615\r\n", "18446744073709551615\r\n");
    ask(server, "incr n 2\r\n", "1\r\n");
    assert_true(store_find(server->commands.store, "n", 1, NOW)->fields.expires_ms == NOW + 100000);
    ask(server, "set t 0 0 2\r\nxy\r\n", "STORED\r\n");
    ask(server, "incr t 1\r\n", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
    ask(server, "set e 0 0 0\r\n\r\n", "STORED\r\n");
    ask(server, "decr e 1\r\n", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
}

static void delete_and_touch_say_whether_it_was_there(void **state)
{
    struct server *server = *state;
    ask(server, "set a 0 0 1\r\n1\r\n", "STORED\r\n");
    server->changed[0] = 0;
    ask(server, "touch a 10\r\n", "TOUCHED\r\n");
    ask(server, "touch b 10\r\n", "NOT_FOUND\r\n");
    assert_changed(server, "a ");
    server->commands.now_ms = NOW + 9999;
    ask(server, "get a\r\n", "VALUE a 0 1\r\n1\r\nEND\r\n");
    server->commands.now_ms = NOW + 10000;
    ask(server, "get a\r\n", "END\r\n");
    ask(server, "delete a\r\n", "NOT_FOUND\r\n"); /* it had expired: nothing has changed */
    assert_changed(server, "");
    ask(server, "set a 0 0 1\r\n1\r\n", "STORED\r\n");
    ask(server, "delete a\r\n", "DELETED\r\n");
    assert_changed(server, "a a ");
}

static void item_that_is_over_when_it_is_stored_is_never_there(void **state)
{
    struct server *server = *state;
    ask(server, "set a 0 -1 1\r\n1\r\n", "STORED\r\n");
    ask(server, "get a\r\n", "END\r\n");
    ask(server, "set b 0 0 1\r\n1\r\n", "STORED\r\n");
    ask(server, "touch b -1\r\n", "TOUCHED\r\n");
    ask(server, "get b\r\n", "END\r\n");
}

static void what_does_not_fit_is_refused(void **state)
{
    struct server *server = *state;
    struct store_value large = {.data = calloc(1, 999000), .size = 999000};
    assert_int_equal(store_set(server->commands.store, "large", 5, &large), 0);
    char *request = malloc(2000);
    snprintf(request, 2000, "set a 0 0 1000\r\n%01000d\r\n", 1);
    ask(server, request, "SERVER_ERROR out of memory storing object\r\n");
    assert_changed(server, "");
    free((void *)large.data);
    free(request);
}

static void flush_is_answered_when_all_is_gone(void **state)
{
    struct server *server = *state;
    ask(server, "set a 0 0 1\r\n1\r\n", "STORED\r\n");
    server->changed[0] = 0;
    ask(server, "flush_all\r\n", "");
    assert_int_equal(server->result, COMMAND_WAIT);
    ask(server, "get a\r\n", "END\r\n");
    while (store_flushing(server->commands.store))
        store_sweep(server->commands.store, 100, NOW, on_changed, server);
    assert_changed(server, "a ");
    server->again = true;
    ask(server, "flush_all\r\n", "OK\r\n");
    assert_int_equal(server->result, COMMAND_DONE);
}

static void get_of_many_keys_is_answered_in_parts(void **state)
{
    struct server *server = *state;
    char line[2000] = "get", key[8];
    for (unsigned i = 0; i < 200; i++) {
        snprintf(key, sizeof key, " k%u", i);
        strcat(line, key);
    }
    strcat(line, "\r\n");
    struct protocol_request request;
    size_t line_size;
    const char *refused;
    assert_int_equal(protocol_parse(line, strlen(line), &request, &line_size, &refused), PROTOCOL_REQUEST);
    unsigned parts = 1;
    while (command_execute(&server->commands, &request, NULL, false, server->output) == COMMAND_PART) {
        assert_int_equal(evbuffer_get_length(server->output), 0);
        parts++;
    }
    assert_true(parts >= 3);
    assert_int_equal(server->counters.values[COUNTER_GET_MISSES], 200);
    evbuffer_add(server->output, "", 1);
    assert_string_equal((char *)evbuffer_pullup(server->output, -1), "END\r\n");
}

static void another_versions_items_are_only_read(void **state)
{
    static const char *const writes[] = {"set a 0 0 1\r\n2\r\n", "add b 0 0 1\r\n2\r\n",
        "replace a 0 0 1\r\n2\r\n", "cas a 0 0 1 5\r\n2\r\n", "delete a\r\n", "incr a 1\r\n", "decr a 1\r\n",
        "touch a 0\r\n", "flush_all\r\n"};
    struct server *server = *state;
    ask(server, "set a 0 0 1\r\n1\r\n", "STORED\r\n");
    server->changed[0] = 0;
    server->commands.read_only = true;
    for (unsigned i = 0; i < sizeof writes / sizeof writes[0]; i++) {
        ask(server, writes[i], "");
        assert_int_equal(server->result, COMMAND_READ_ONLY);
    }
    ask(server, "get a\r\n", "VALUE a 0 1\r\n1\r\nEND\r\n");
    ask(server, "version\r\n", "VERSION 7\r\n");
    assert_int_equal(server->result, COMMAND_DONE);
    assert_changed(server, "");
    server->commands.read_only = false;
    ask(server, writes[0], "STORED\r\n");
    assert_int_equal(server->result, COMMAND_DONE);
}

static void other_answers_are_memcacheds(void **state)
{
    struct server *server = *state;
    ask(server, "version\r\n", "VERSION 7\r\n");
    ask(server, "verbosity 1\r\n", "OK\r\n");
    ask(server, "verbosity 1 noreply\r\n", "");
    ask(server, "quit\r\n", "");
    assert_int_equal(server->result, COMMAND_QUIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(stored_values_are_read, make, unmake),
        cmocka_unit_test_setup_teardown(add_and_replace_ask_what_is_there, make, unmake),
        cmocka_unit_test_setup_teardown(cas_stores_only_what_was_read, make, unmake),
        cmocka_unit_test_setup_teardown(incr_and_decr_count_as_memcached_does, make, unmake),
        cmocka_unit_test_setup_teardown(delete_and_touch_say_whether_it_was_there, make, unmake),
        cmocka_unit_test_setup_teardown(item_that_is_over_when_it_is_stored_is_never_there, make, unmake),
        cmocka_unit_test_setup_teardown(what_does_not_fit_is_refused, make, unmake),
        cmocka_unit_test_setup_teardown(flush_is_answered_when_all_is_gone, make, unmake),
        cmocka_unit_test_setup_teardown(get_of_many_keys_is_answered_in_parts, make, unmake),
        cmocka_unit_test_setup_teardown(another_versions_items_are_only_read, make, unmake),
        cmocka_unit_test_setup_teardown(other_answers_are_memcacheds, make, unmake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
