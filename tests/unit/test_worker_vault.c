/* SPDX-License-Identifier: BSD-2-Clause */
#include "control_peer.h"
#include "tests/unit/open_fds.h"
#include "worker/gapless_state.h"
#include "worker/gapless_vault.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#define SOON_MS 10000 /* far longer than anything here takes */

static struct channel *peer;
static struct gapless *g;
static unsigned before;

/* What callbacks were told. */
static struct {
    unsigned calls;
    int codes[8];
    const void *args[8];
    unsigned fd_count;
    unsigned entry_count;
    char names[512];
    char message[508];
} told;

static int set_up(void **state)
{
    memset(&told, 0, sizeof told);
    peer = peer_open_taking();
    peer_send_welcome(peer, 0);
    peer_send_listeners(peer, 1, true, "", NULL, 0);
    g = gapless_open("test 1", SOON_MS, NULL);
    assert_non_null(g);
    peer_expect(peer, GAPLESS__CONTROL__CONTROL__BODY_HELLO);
    peer_expect_acknowledge(peer, 1, 0);
    before = open_fds();
    return 0;
}

static int tear_down(void **state)
{
    gapless_close(g);
    channel_free(peer);
    unsetenv("GAPLESS_FD");
    return 0;
}

static void on_answer(struct gapless *of, const struct gapless_vault_result *result, void *arg)
{
    assert_ptr_equal(of, g);
    told.codes[told.calls] = result->error.code;
    told.args[told.calls++] = arg;
    told.fd_count += result->fd_count;
    told.entry_count = result->entry_count;
    memcpy(told.message, result->error.message, sizeof told.message);
    for (unsigned i = 0; i < result->fd_count; i++) {
        assert_true(fcntl(result->fds[i], F_GETFD) & FD_CLOEXEC);
        close(result->fds[i]);
    }
    for (unsigned i = 0; i < result->entry_count; i++) {
        char one[64];
        snprintf(one, sizeof one, "%s=%u/%d ", result->entries[i].name, result->entries[i].descriptors,
            (int)result->entries[i].bytes);
        strncat(told.names, one, sizeof told.names - strlen(told.names) - 1);
    }
}

static void get(const char *name, void *arg)
{
    struct gapless_vault_request request = {.name = name, .callback = on_answer, .arg = arg};
    assert_int_equal(gapless_vault_get(g, &request, NULL), 0);
}

static void send_answer(Gapless__Control__Vault *body, const int *fds, unsigned fd_count)
{
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_VAULT;
    message.vault = body;
    peer_send(peer, &message, fds, fd_count);
}

/* Answers with entries called a, b, … and as many descriptors. */
static void answer(uint64_t request, unsigned entries, bool more)
{
    static const int fds[] = {0, 1, 2, 0, 1, 2, 0, 1};
    Gapless__Control__VaultEntry items[8], *pointers[8];
    char names[8][2];
    for (unsigned i = 0; i < entries; i++) {
        gapless__control__vault_entry__init(&items[i]);
        names[i][0] = (char)('a' + i);
        names[i][1] = 0;
        items[i].name = names[i];
        items[i].descriptors = i;
        items[i].bytes = 10 * (uint64_t)i;
        pointers[i] = &items[i];
    }
    Gapless__Control__Vault body = GAPLESS__CONTROL__VAULT__INIT;
    body.request = request;
    body.entries = pointers;
    body.n_entries = entries;
    body.more = more;
    send_answer(&body, fds, entries);
}

static void answer_code(uint64_t request, int code)
{
    Gapless__Control__Vault body = GAPLESS__CONTROL__VAULT__INIT;
    body.request = request;
    body.code = code;
    body.reason = (char[]){"because"};
    send_answer(&body, NULL, 0);
}

static void a_put_sends_the_name_and_lends_the_descriptors(void **state)
{
    struct gapless_vault_request request = {"a b", (const int[]){0, 1, 2}, 3, on_answer, &told};
    assert_int_equal(gapless_vault_put(g, &request, NULL), 0);
    assert_int_equal(open_fds(), before);
    struct fd_list fds = {.count = 0};
    Gapless__Control__Control *message = peer_look(peer, &fds);
    assert_int_equal(message->body_case, GAPLESS__CONTROL__CONTROL__BODY_PUT);
    assert_int_equal(message->put->request, 1);
    assert_string_equal(message->put->name, "a b");
    assert_int_equal(fds.count, 3);
    gapless__control__control__free_unpacked(message, NULL);
    fd_list_done(&fds);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    assert_int_equal(told.calls, 0);
    answer(1, 0, false);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    assert_int_equal(told.calls, 1);
    assert_int_equal(told.codes[0], 0);
    assert_ptr_equal(told.args[0], &told);
}

static void answers_find_their_requests_in_any_order(void **state)
{
    int one, two, three;
    get("x", &one);
    get("y", &two);
    get("z", &three);
    answer(2, 1, false);
    answer_code(3, ENOENT);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    answer(1, 2, false);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    assert_int_equal(told.calls, 3);
    assert_ptr_equal(told.args[0], &two);
    assert_ptr_equal(told.args[1], &three);
    assert_ptr_equal(told.args[2], &one);
    assert_int_equal(told.codes[1], ENOENT);
    assert_int_equal(told.fd_count, 3);
    assert_int_equal(open_fds(), before);
}

static void a_list_is_told_when_all_of_it_has_come(void **state)
{
    assert_int_equal(gapless_vault_list(g, &(struct gapless_vault_request){.callback = on_answer}, NULL), 0);
    peer_expect(peer, GAPLESS__CONTROL__CONTROL__BODY_LIST);
    Gapless__Control__Vault body = GAPLESS__CONTROL__VAULT__INIT;
    Gapless__Control__VaultEntry item = GAPLESS__CONTROL__VAULT_ENTRY__INIT, *pointer = &item;
    item.name = (char[]){"first"};
    body.request = 1;
    body.entries = &pointer;
    body.n_entries = 1;
    body.more = true;
    send_answer(&body, NULL, 0);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    assert_int_equal(told.calls, 0);
    item.name = (char[]){"last"};
    item.descriptors = 2;
    item.bytes = 30;
    body.more = false;
    send_answer(&body, NULL, 0);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    assert_int_equal(told.calls, 1);
    assert_string_equal(told.names, "first=0/0 last=2/30 ");
}

static void what_nobody_waits_for_is_closed(void **state)
{
    get("x", NULL);
    struct gapless_vault_request silent = {.name = "x"};
    assert_int_equal(gapless_vault_get(g, &silent, NULL), 0);
    answer(2, 3, false);
    answer(7, 4, false);
    answer_code(8, EIO);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    assert_int_equal(open_fds(), before);
    assert_int_equal(told.calls, 0);
}

static void a_restarted_master_fails_what_was_asked_before(void **state)
{
    get("x", NULL);
    get("y", NULL);
    answer_code(0, ECONNRESET);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    assert_int_equal(told.calls, 2);
    assert_int_equal(told.codes[0], ECONNRESET);
    assert_int_equal(told.codes[1], ECONNRESET);
    get("z", NULL);
    answer(3, 1, false);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    assert_int_equal(told.codes[2], 0);
}

static void on_answer_ask_again(struct gapless *of, const struct gapless_vault_result *result, void *arg)
{
    on_answer(of, result, arg);
    get("again", arg);
}

static void a_callback_may_ask_again(void **state)
{
    struct gapless_vault_request request = {.name = "x", .callback = on_answer_ask_again};
    assert_int_equal(gapless_vault_get(g, &request, NULL), 0);
    assert_int_equal(gapless_vault_get(g, &request, NULL), 0);
    answer_code(0, 0);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    assert_int_equal(told.calls, 2);
    assert_int_equal(told.codes[0], ECONNRESET);
    answer(3, 0, false);
    answer(4, 0, false);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    assert_int_equal(told.calls, 4);
}

static void a_lost_connection_is_told_to_all(void **state)
{
    get("x", NULL);
    get("y", NULL);
    answer(1, 1, false);
    channel_free(peer);
    peer = NULL;
    assert_int_equal(gapless_dispatch(g, NULL), -EPIPE);
    assert_int_equal(told.calls, 2);
    assert_int_equal(told.codes[0], 0);
    assert_int_equal(told.codes[1], EPIPE);
    struct gapless_vault_request request = {.name = "x", .callback = on_answer};
    assert_int_equal(gapless_vault_get(g, &request, NULL), -EPIPE);
    assert_int_equal(gapless_vault_wait(g, SOON_MS, NULL), 0);
    assert_int_equal(told.calls, 2);
}

static void closing_calls_nobody(void **state)
{
    get("x", NULL);
    gapless_close(g);
    g = NULL;
    assert_int_equal(told.calls, 0);
}

static unsigned drains;

static void on_drain(struct gapless *of, uint64_t timeout_ms, void *arg)
{
    drains++;
}

static void waiting_hears_nothing_but_answers_and_the_rest_after_it(void **state)
{
    drains = 0;
    gapless_set_drain(g, on_drain, NULL);
    get("x", NULL);
    get("y", NULL);
    answer(1, 1, false);
    peer_send_drain(peer, 5);
    answer(2, 2, false);
    assert_int_equal(gapless_vault_wait(g, SOON_MS, NULL), 0);
    assert_int_equal(told.calls, 2);
    assert_int_equal(drains, 1);
    assert_true(gapless_draining(g));
    get("z", NULL);
    peer_send_refusal(peer, "no more");
    answer(3, 0, false);
    struct gapless_error error;
    assert_int_equal(gapless_vault_wait(g, SOON_MS, &error), -EPIPE);
    assert_non_null(strstr(error.message, "no more"));
    assert_int_equal(told.calls, 3);
    assert_int_equal(told.codes[2], 0);
}

static void a_refusal_before_the_answer_ends_the_wait_at_its_time(void **state)
{
    get("x", NULL);
    peer_send_refusal(peer, "no more");
    channel_free(peer);
    peer = NULL;
    struct gapless_error error;
    assert_int_equal(gapless_vault_wait(g, SOON_MS, &error), -EPIPE);
    assert_non_null(strstr(error.message, "no more"));
    assert_int_equal(told.calls, 1);
    assert_int_equal(told.codes[0], EPIPE);
    assert_int_equal(gapless_fd(g), -1);
}

static void a_wait_has_an_end_and_the_answer_may_come_yet(void **state)
{
    get("x", NULL);
    peer_send_drain(peer, 5);
    struct gapless_error error = {.code = 0};
    assert_int_equal(gapless_vault_wait(g, 20, &error), -ETIMEDOUT);
    assert_int_equal(error.code, ETIMEDOUT);
    assert_int_equal(told.calls, 0);
    assert_true(gapless_draining(g));
    answer(1, 3, false);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    assert_int_equal(told.fd_count, 3);
    assert_int_equal(open_fds(), before);
}

static int on_init(void *arg, struct gapless_error *error)
{
    get("x", NULL);
    int r = gapless_vault_wait(g, SOON_MS, error);
    assert_int_equal(drains, 0);
    return r;
}

static void a_hook_may_wait_and_the_rest_is_heard_when_it_has_returned(void **state)
{
    drains = 0;
    gapless_set_drain(g, on_drain, NULL);
    assert_non_null(gapless_state_new(g, &(struct gapless_state_hooks){.init = on_init}, NULL));
    peer_send_drain(peer, 5);
    answer(1, 1, false);
    assert_int_equal(gapless_ready(g, NULL), 0);
    assert_int_equal(told.codes[0], 0);
    assert_int_equal(told.fd_count, 1);
    assert_int_equal(drains, 1);
}

static void a_connection_that_is_lost_in_a_hook_is_told_to_it_and_then_to_the_server(void **state)
{
    drains = 0;
    assert_non_null(gapless_state_new(g, &(struct gapless_state_hooks){.init = on_init}, NULL));
    peer_send_drain(peer, 5);
    peer_send_raw(peer, "\xff\xff\xff", 3);
    struct gapless_error error;
    assert_int_equal(gapless_ready(g, &error), -EBADMSG);
    assert_int_equal(told.calls, 1);
    assert_int_equal(told.codes[0], EPIPE);
    assert_int_equal(gapless_dispatch(g, NULL), -EPIPE);
}

static unsigned reloads;

static int on_reloadable(void *arg, struct gapless_error *error)
{
    reloads++;
    return 0;
}

static void on_take(const struct gapless_connection *connection, int *fd, void *arg)
{
}

static void on_answer_offer(struct gapless *of, const struct gapless_vault_result *result, void *arg)
{
    int fd = dup(0);
    on_answer(of, result, arg);
    assert_int_equal(gapless_offer(arg, &fd, &(struct gapless_connection){.listener = ""}, NULL), 0);
    assert_int_equal(reloads, 0);
}

static void no_hook_is_called_in_a_callback_of_a_wait(void **state)
{
    Gapless__Control__Control message = GAPLESS__CONTROL__CONTROL__INIT;
    Gapless__Control__Release release = GAPLESS__CONTROL__RELEASE__INIT;
    Gapless__Control__AskReload ask = GAPLESS__CONTROL__ASK_RELOAD__INIT;
    const struct gapless_state_hooks hooks = {.reloadable = on_reloadable, .take = on_take};
    struct gapless_state *s = gapless_state_new(g, &hooks, NULL);
    assert_int_equal(gapless_ready(g, NULL), 0);
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_RELEASE;
    message.release = &release;
    peer_send(peer, &message, NULL, 0);
    assert_int_equal(gapless_dispatch(g, NULL), 0);
    struct gapless_vault_request request = {.name = "x", .callback = on_answer_offer, .arg = s};
    assert_int_equal(gapless_vault_get(g, &request, NULL), 0);
    reloads = 0;
    message.body_case = GAPLESS__CONTROL__CONTROL__BODY_ASK_RELOAD;
    message.ask_reload = &ask;
    peer_send(peer, &message, NULL, 0);
    answer(1, 1, false);
    assert_int_equal(gapless_vault_wait(g, SOON_MS, NULL), 0);
    assert_int_equal(told.calls, 1);
    assert_int_equal(reloads, 1);
}

static void what_can_not_be_asked_is_refused_at_once(void **state)
{
    int many[GAPLESS_VAULT_DESCRIPTORS + 1] = {0};
    struct gapless_vault_request requests[] = {{.name = NULL, .fds = many, .fd_count = 1},
        {.name = "x", .fds = many, .fd_count = 0},
        {.name = "x", .fds = many, .fd_count = GAPLESS_VAULT_DESCRIPTORS + 1}};
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
        assert_int_equal(gapless_vault_put(g, &requests[i], NULL), -EINVAL);
    assert_int_equal(gapless_vault_get(g, &requests[0], NULL), -EINVAL);
    struct gapless_vault_request bad = {.name = "x", .fds = (const int[]){100000}, .fd_count = 1};
    assert_int_equal(gapless_vault_put(g, &bad, NULL), -EBADF);
    peer_expect_nothing(peer);
}

static void out_of_descriptors_is_told_and_the_channel_goes_on(void **state)
{
    get("x", NULL);
    get("y", NULL);
    answer(1, 8, false);
    answer(2, 1, false);
    struct rlimit saved;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &saved), 0);
    int next = dup(0);
    struct rlimit low = {.rlim_cur = (rlim_t)next + 3, .rlim_max = saved.rlim_max};
    close(next);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    int r = gapless_dispatch(g, NULL);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &saved), 0);
    assert_int_equal(r, 0);
    assert_int_equal(told.calls, 2);
    assert_int_equal(told.codes[0], EMFILE);
    assert_int_equal(told.codes[1], 0);
    assert_int_equal(told.fd_count, 1);
    assert_int_equal(open_fds(), before);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_put_sends_the_name_and_lends_the_descriptors),
        CASE(answers_find_their_requests_in_any_order),
        CASE(a_list_is_told_when_all_of_it_has_come),
        CASE(what_nobody_waits_for_is_closed),
        CASE(a_restarted_master_fails_what_was_asked_before),
        CASE(a_callback_may_ask_again),
        CASE(a_lost_connection_is_told_to_all),
        CASE(closing_calls_nobody),
        CASE(waiting_hears_nothing_but_answers_and_the_rest_after_it),
        CASE(a_refusal_before_the_answer_ends_the_wait_at_its_time),
        CASE(a_wait_has_an_end_and_the_answer_may_come_yet),
        CASE(a_hook_may_wait_and_the_rest_is_heard_when_it_has_returned),
        CASE(a_connection_that_is_lost_in_a_hook_is_told_to_it_and_then_to_the_server),
        CASE(no_hook_is_called_in_a_callback_of_a_wait),
        CASE(what_can_not_be_asked_is_refused_at_once),
        CASE(out_of_descriptors_is_told_and_the_channel_goes_on),
    };
    return cmocka_run_group_tests_name("worker vault", tests, NULL, NULL);
}
