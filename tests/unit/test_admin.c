/* SPDX-License-Identifier: BSD-2-Clause */
/* The admin socket's clients: requests, answers, and what a client can do wrong. */
#include "admin_core.h"

#include <sys/resource.h>

static void admin_answers_a_status(void **state)
{
    struct core *core = *state;
    core_open(core);
    core_expect_alive(core);
    assert_int_equal(core->status, 1);
    assert_int_equal(core->cancelled, 0);
}

static void admin_gives_the_core_what_was_asked_and_by_whom(void **state)
{
    struct core *core = *state;
    core_open(core);
    struct peer peer;
    uint8_t frame[64];
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, upgrade_frame(frame, "web", true));
    assert_true(core_run_until(core, core->upgrade == 1));
    assert_string_equal(core->service, "web");
    assert_true(core->no_wait);
    assert_int_equal(admin_request_uid(core->request), geteuid());
    assert_int_equal(admin_request_pid(core->request), getpid());
    admin_reply_result(core->request, 3, "one is under way");
    peer_expect_result(core, &peer, 3, "one is under way");
    peer_close(&peer);
}

static void admin_gives_the_core_rollback_restart_and_dry_run(void **state)
{
    struct core *core = *state;
    core_open(core);
    struct peer peer;
    uint8_t frame[64];
    Gapless__Admin__Request request = GAPLESS__ADMIN__REQUEST__INIT;
    Gapless__Admin__RollbackRequest rollback = GAPLESS__ADMIN__ROLLBACK_REQUEST__INIT;
    rollback.service = (char *)"web";
    request.body_case = GAPLESS__ADMIN__REQUEST__BODY_ROLLBACK;
    request.rollback = &rollback;
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, request_frame(&request, frame));
    assert_true(core_run_until(core, core->rollback == 1));
    assert_string_equal(core->service, "web");
    assert_false(core->no_wait || core->force);
    admin_reply_result(core->request, 3, "nothing to go back to");
    peer_expect_result(core, &peer, 3, "nothing to go back to");
    peer_close(&peer);
    rollback.has_force = rollback.force = 1;
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, request_frame(&request, frame));
    assert_true(core_run_until(core, core->rollback == 2));
    assert_true(core->force);
    admin_reply_result(core->request, 0, "");
    peer_expect_result(core, &peer, 0, "");
    peer_close(&peer);
    Gapless__Admin__RestartRequest restart = GAPLESS__ADMIN__RESTART_REQUEST__INIT;
    restart.has_no_wait = restart.no_wait = 1;
    request.body_case = GAPLESS__ADMIN__REQUEST__BODY_RESTART;
    request.restart = &restart;
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, request_frame(&request, frame));
    assert_true(core_run_until(core, core->restart == 1));
    assert_string_equal(core->service, "");
    assert_true(core->no_wait);
    /* Such a client, too, may leave. */
    peer_close(&peer);
    assert_true(core_run_until(core, core->cancelled == 1));
    Gapless__Admin__UpgradeRequest upgrade = GAPLESS__ADMIN__UPGRADE_REQUEST__INIT;
    upgrade.has_dry_run = upgrade.dry_run = 1;
    request.body_case = GAPLESS__ADMIN__REQUEST__BODY_UPGRADE;
    request.upgrade = &upgrade;
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, request_frame(&request, frame));
    assert_true(core_run_until(core, core->upgrade == 1));
    assert_true(core->dry_run);
    admin_reply_result(core->request, 0, NULL);
    peer_expect_result(core, &peer, 0, "");
    peer_close(&peer);
}

static void admin_sends_progress_as_it_comes(void **state)
{
    struct core *core = *state;
    core_open(core);
    struct peer peer;
    uint8_t frame[64];
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, upgrade_frame(frame, NULL, false));
    assert_true(core_run_until(core, core->upgrade == 1));
    assert_string_equal(core->service, "");
    assert_false(core->no_wait);
    for (unsigned i = 0; i < 3; i++) {
        Gapless__Admin__Progress progress = GAPLESS__ADMIN__PROGRESS__INIT;
        progress.service = (char *)"web";
        progress.phase = (char *)"spawn";
        progress.text = (char *)"";
        progress.elapsed_ms = i;
        admin_reply_progress(core->request, &progress);
        Gapless__Admin__Reply *reply = peer_await(core, &peer);
        assert_int_equal(reply->body_case, GAPLESS__ADMIN__REPLY__BODY_PROGRESS);
        assert_int_equal(reply->progress->elapsed_ms, i);
        gapless__admin__reply__free_unpacked(reply, NULL);
    }
    admin_reply_result(core->request, 0, NULL);
    peer_expect_result(core, &peer, 0, "");
    peer_close(&peer);
}

/* The master may exit right after its last answer. */
static void admin_has_sent_a_result_when_the_call_returns(void **state)
{
    struct core *core = *state;
    core_open(core);
    core->hold = true;
    struct peer peer;
    uint8_t frame[64];
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, status_frame(frame));
    assert_true(core_run_until(core, core->status == 1));
    admin_reply_result(core->request, 0, "stopped");
    core_close(core);
    peer_expect_result(core, &peer, 0, "stopped");
    peer_close(&peer);
}

static void admin_takes_a_request_byte_by_byte(void **state)
{
    struct core *core = *state;
    core_open(core);
    struct peer peer;
    uint8_t frame[64];
    peer_connect(&peer, core->path);
    size_t size = upgrade_frame(frame, "byte-by-byte", false);
    for (size_t i = 0; i < size; i++) {
        assert_int_equal(core->upgrade, 0);
        peer_send(&peer, frame + i, 1);
        event_base_loop(core->base, EVLOOP_NONBLOCK);
    }
    assert_true(core_run_until(core, core->upgrade == 1));
    assert_string_equal(core->service, "byte-by-byte");
    admin_reply_result(core->request, 0, NULL);
    peer_expect_result(core, &peer, 0, "");
    peer_close(&peer);
}

/* Sends bytes that are no request; they cost the client its connection and nobody else anything. */
static void expect_refused(struct core *core, const void *data, size_t size, const char *reason)
{
    unsigned refused = core->refused;
    struct peer peer;
    peer_connect(&peer, core->path);
    peer_send(&peer, data, size);
    peer_expect_result(core, &peer, 2, reason);
    assert_int_equal(core->refused, refused + 1);
    assert_int_equal(core->why.blame, BLAME_PEER);
    peer_close(&peer);
    core_expect_alive(core);
    assert_int_equal(core->cancelled, 0);
}

static void admin_cuts_off_what_is_not_a_request(void **state)
{
    struct core *core = *state;
    core_open(core);
    static const uint8_t garbage[] = {4, 0xff, 0xff, 0xff, 0xff};
    expect_refused(core, garbage, sizeof garbage, "not a request");
    expect_refused(
        core, "GET / HTTP/1.1\r\nHost: x.example, and a line that is longer than its G says\r\n\r\n", 78, "");
    static const uint8_t overlong[] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x01};
    expect_refused(core, overlong, sizeof overlong, "length");
    static const uint8_t empty[] = {0};
    expect_refused(core, empty, sizeof empty, "doesn't know that request");
    /* Field 15, which no version has yet. */
    static const uint8_t unknown[] = {2, 0x7a, 0x00};
    expect_refused(core, unknown, sizeof unknown, "doesn't know that request");
}

static void admin_cuts_off_an_oversize_frame_at_its_header(void **state)
{
    struct core *core = *state;
    core_open(core);
    uint8_t header[FRAME_HEADER_MAX];
    size_t size = frame_header(ADMIN_REQUEST_MAX + 1, header);
    expect_refused(core, header, size, "65537");
    size = frame_header(UINT32_MAX, header);
    expect_refused(core, header, size, "at most 65536");
}

static void admin_takes_the_largest_request(void **state)
{
    struct core *core = *state;
    core_open(core);
    static uint8_t frame[FRAME_HEADER_MAX + ADMIN_REQUEST_MAX];
    static char service[ADMIN_REQUEST_MAX];
    /* Tag and length of the message and of the string in it: 4 bytes each, this being three varint digits
     * long. */
    memset(service, 'x', ADMIN_REQUEST_MAX - 8);
    struct peer peer;
    peer_connect(&peer, core->path);
    size_t size = upgrade_frame(frame, service, false);
    assert_int_equal(size, 3 + ADMIN_REQUEST_MAX);
    peer_send(&peer, frame, size);
    assert_true(core_run_until(core, core->upgrade == 1));
    admin_reply_result(core->request, 0, NULL);
    peer_expect_result(core, &peer, 0, "");
    peer_close(&peer);
}

static void admin_forgets_who_leaves_in_mid_request(void **state)
{
    struct core *core = *state;
    core_open(core);
    struct admin_limits limits = ADMIN_LIMITS;
    limits.clients = 1;
    admin_set_limits(core->admin, &limits);
    for (unsigned i = 0; i < 10; i++) {
        struct peer peer;
        peer_connect(&peer, core->path);
        peer_send(&peer, "\x10half", 5);
        event_base_loop(core->base, EVLOOP_NONBLOCK);
        peer_close(&peer);
        event_base_loop(core->base, EVLOOP_NONBLOCK);
    }
    /* With room for one only, this needs all of them to be gone. */
    core_expect_alive(core);
    assert_int_equal(core->refused, 0);
    assert_int_equal(core->cancelled, 0);
}

static void admin_cuts_off_who_sends_no_whole_request_in_time(void **state)
{
    struct core *core = *state;
    core_open(core);
    struct admin_limits limits = ADMIN_LIMITS;
    limits.request_ms = 100;
    admin_set_limits(core->admin, &limits);
    struct peer silent, slow;
    peer_connect(&silent, core->path);
    peer_connect(&slow, core->path);
    int64_t start = now_ms();
    /* It never rests, so only a deadline for the whole of it ends this. */
    peer_send(&slow, "\x7f", 1);
    while (core->refused < 2 && now_ms() < start + DEADLINE_MS) {
        send(slow.fd, "x", 1, MSG_NOSIGNAL);
        event_base_loop(core->base, EVLOOP_NONBLOCK);
        poll(NULL, 0, 5);
    }
    assert_true(now_ms() - start >= 100);
    peer_expect_result(core, &silent, 2, "100 ms");
    Gapless__Admin__Reply *reply = peer_await(core, &slow);
    assert_int_equal(reply->result->code, 2);
    gapless__admin__reply__free_unpacked(reply, NULL);
    peer_close(&silent);
    peer_close(&slow);
    core_expect_alive(core);
}

static void admin_cuts_off_who_sends_more_than_one_request(void **state)
{
    struct core *core = *state;
    core_open(core);
    uint8_t frames[64];
    size_t size = status_frame(frames);
    size += status_frame(frames + size);
    expect_refused(core, frames, size, "more on the connection");
    assert_int_equal(core->status, 1);
}

static void admin_cancels_the_request_of_who_sends_more(void **state)
{
    struct core *core = *state;
    core_open(core);
    struct peer peer;
    uint8_t frame[64];
    size_t size = upgrade_frame(frame, "web", false);
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, size);
    assert_true(core_run_until(core, core->upgrade == 1));
    peer_send(&peer, frame, size);
    assert_true(core_run_until(core, core->cancelled == 1));
    assert_null(core->request);
    assert_int_equal(core->upgrade, 1);
    peer_expect_result(core, &peer, 2, "more on the connection");
    peer_close(&peer);
    core_expect_alive(core);
}

static void admin_cancels_the_request_of_who_leaves(void **state)
{
    struct core *core = *state;
    core_open(core);
    uint8_t frame[64];
    for (unsigned half = 0; half < 2; half++) {
        struct peer peer;
        peer_connect(&peer, core->path);
        peer_send(&peer, frame, upgrade_frame(frame, "web", false));
        assert_true(core_run_until(core, core->upgrade == half + 1));
        if (half)
            shutdown(peer.fd, SHUT_WR);
        else
            peer_close(&peer);
        assert_true(core_run_until(core, core->cancelled == half + 1));
        peer_close(&peer);
    }
    core_expect_alive(core);
}

static void admin_cancels_from_the_loop_only(void **state)
{
    struct core *core = *state;
    core_open(core);
    struct peer peer;
    uint8_t frame[64];
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, upgrade_frame(frame, "web", false));
    assert_true(core_run_until(core, core->upgrade == 1));
    peer_close(&peer);
    Gapless__Admin__Progress progress = GAPLESS__ADMIN__PROGRESS__INIT;
    progress.service = progress.phase = progress.text = (char *)"";
    for (unsigned i = 0; i < 10; i++)
        admin_reply_progress(core->request, &progress);
    assert_int_equal(core->cancelled, 0);
    assert_true(core_run_until(core, core->cancelled == 1));
    core_expect_alive(core);
    assert_int_equal(core->cancelled, 1);
}

static void admin_does_not_cancel_what_the_core_has_ended(void **state)
{
    struct core *core = *state;
    core_open(core);
    struct peer peer;
    uint8_t frame[64];
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, upgrade_frame(frame, "web", false));
    assert_true(core_run_until(core, core->upgrade == 1));
    peer_close(&peer);
    Gapless__Admin__Progress progress = GAPLESS__ADMIN__PROGRESS__INIT;
    progress.service = progress.phase = progress.text = (char *)"";
    admin_reply_progress(core->request, &progress);
    admin_reply_result(core->request, 0, NULL);
    core_expect_alive(core);
    assert_int_equal(core->cancelled, 0);
}

static void admin_cuts_off_who_does_not_read(void **state)
{
    struct core *core = *state;
    core_open(core);
    struct peer peer;
    uint8_t frame[64];
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, upgrade_frame(frame, "web", false));
    assert_true(core_run_until(core, core->upgrade == 1));
    static char text[1000];
    memset(text, 'x', sizeof text - 1);
    Gapless__Admin__Progress progress = GAPLESS__ADMIN__PROGRESS__INIT;
    progress.service = progress.phase = (char *)"";
    progress.text = text;
    /* The socket's own buffers, then a megabyte, and that's it. */
    unsigned sent = 0;
    while (core->request && sent < 10000) {
        admin_reply_progress(core->request, &progress);
        sent++;
        event_base_loop(core->base, EVLOOP_NONBLOCK);
    }
    assert_int_equal(core->cancelled, 1);
    assert_in_range(sent, 1024, 4096);
    peer_close(&peer);
    core_expect_alive(core);
}

static void admin_delivers_a_large_answer_to_who_reads(void **state)
{
    struct core *core = *state;
    core_open(core);
    core->hold = true;
    struct peer peer;
    uint8_t frame[64];
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, status_frame(frame));
    assert_true(core_run_until(core, core->status == 1));
    /* More than the cap: one answer may be of any size. */
    size_t size = 3u << 20;
    char *version = malloc(size);
    assert_non_null(version);
    memset(version, 'v', size - 1);
    version[size - 1] = '\0';
    Gapless__Admin__Master master = GAPLESS__ADMIN__MASTER__INIT;
    master.version = version;
    Gapless__Admin__Status status = GAPLESS__ADMIN__STATUS__INIT;
    status.master = &master;
    admin_reply_status(core->request, &status);
    free(version);
    size_t total = 0;
    assert_true(core_run_until(core, (peer_read(&peer), total += peer.size, peer.size = 0, peer.ended)));
    assert_in_range(total, size, size + 64);
    assert_int_equal(core->cancelled, 0);
    peer_close(&peer);
}

static void admin_closes_on_who_does_not_fetch_the_answer(void **state)
{
    struct core *core = *state;
    core_open(core);
    struct admin_limits limits = ADMIN_LIMITS;
    limits.clients = 1;
    limits.linger_ms = 50;
    admin_set_limits(core->admin, &limits);
    core->hold = true;
    struct peer peer;
    uint8_t frame[64];
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, status_frame(frame));
    assert_true(core_run_until(core, core->status == 1));
    static char reason[2u << 20];
    memset(reason, 'r', sizeof reason - 1);
    admin_reply_result(core->request, 0, reason);
    core->hold = false;
    /* The answer is cut: the end comes in the middle of the frame. */
    struct pollfd end = {.fd = peer.fd, .events = POLLRDHUP};
    assert_true(core_run_until(core, poll(&end, 1, 0) == 1 && (end.revents & POLLRDHUP)));
    core_expect_alive(core);
    assert_int_equal(core->cancelled, 0);
    peer_close(&peer);
}

static void admin_refuses_one_client_too_many(void **state)
{
    struct core *core = *state;
    core_open(core);
    static struct peer peers[65];
    for (unsigned i = 0; i < 64; i++) {
        peer_connect(&peers[i], core->path);
        event_base_loop(core->base, EVLOOP_NONBLOCK);
    }
    assert_int_equal(core->refused, 0);
    peer_connect(&peers[64], core->path);
    peer_expect_result(core, &peers[64], 3, "64 clients");
    assert_int_equal(core->refused, 1);
    peer_close(&peers[64]);
    /* One leaves, one may come; and those who waited are still served. */
    peer_close(&peers[7]);
    event_base_loop(core->base, EVLOOP_NONBLOCK);
    core_expect_alive(core);
    uint8_t frame[64];
    peer_send(&peers[63], frame, status_frame(frame));
    assert_true(core_run_until(core, core->status == 2));
    for (unsigned i = 0; i < 64; i++)
        peer_close(&peers[i]);
}

static void admin_goes_on_after_running_out_of_descriptors(void **state)
{
    struct core *core = *state;
    core_open(core);
    struct peer peer;
    peer_connect(&peer, core->path);
    struct rlimit was, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = was;
    none.rlim_cur = (rlim_t)peer.fd + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    bool told = core_run_until(core, core->refused > 0);
    event_base_loop(core->base, EVLOOP_NONBLOCK);
    unsigned refused = core->refused;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    assert_true(told);
    assert_int_equal(refused, 1); /* it pauses, it doesn't spin */
    assert_int_equal(core->refused_uid, (uid_t)-1);
    assert_int_equal(core->why.code, EMFILE);
    uint8_t frame[64];
    peer_send(&peer, frame, status_frame(frame));
    assert_true(core_run_until(core, core->status == 1));
    peer_close(&peer);
}

static void admin_may_be_closed_in_a_callback(void **state)
{
    struct core *core = *state;
    uint8_t frame[64];
    struct peer peer;
    core_open(core);
    core->close_in_callback = true;
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, status_frame(frame));
    assert_true(core_run_until(core, !core->admin));
    assert_true(core_run_until(core, peer_read(&peer)));
    peer_close(&peer);
    core_open(core);
    peer_connect(&peer, core->path);
    peer_send(&peer, frame, upgrade_frame(frame, "web", false));
    assert_true(core_run_until(core, core->upgrade == 1));
    peer_close(&peer);
    assert_true(core_run_until(core, !core->admin));
    assert_int_equal(core->cancelled, 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, core_setup, core_teardown)

int main(void)
{
    const struct CMUnitTest admin[] = {
        CASE(admin_answers_a_status),
        CASE(admin_gives_the_core_what_was_asked_and_by_whom),
        CASE(admin_gives_the_core_rollback_restart_and_dry_run),
        CASE(admin_sends_progress_as_it_comes),
        CASE(admin_has_sent_a_result_when_the_call_returns),
        CASE(admin_takes_a_request_byte_by_byte),
        CASE(admin_cuts_off_what_is_not_a_request),
        CASE(admin_cuts_off_an_oversize_frame_at_its_header),
        CASE(admin_takes_the_largest_request),
        CASE(admin_forgets_who_leaves_in_mid_request),
        CASE(admin_cuts_off_who_sends_no_whole_request_in_time),
        CASE(admin_cuts_off_who_sends_more_than_one_request),
        CASE(admin_cancels_the_request_of_who_sends_more),
        CASE(admin_cancels_the_request_of_who_leaves),
        CASE(admin_cancels_from_the_loop_only),
        CASE(admin_does_not_cancel_what_the_core_has_ended),
        CASE(admin_cuts_off_who_does_not_read),
        CASE(admin_delivers_a_large_answer_to_who_reads),
        CASE(admin_closes_on_who_does_not_fetch_the_answer),
        CASE(admin_refuses_one_client_too_many),
        CASE(admin_goes_on_after_running_out_of_descriptors),
        CASE(admin_may_be_closed_in_a_callback),
    };
    return cmocka_run_group_tests(admin, NULL, NULL);
}
