/* SPDX-License-Identifier: BSD-2-Clause */
/* Who may use the admin socket. Needs root, to be somebody else for a moment; 77 without. */
#include "admin_core.h"

#include <grp.h>
#include <sys/wait.h>

#define NOBODY 65534

/* Connects as that user and writes what it was answered to the pipe; ends the process. */
_Noreturn static void ask_as(uid_t uid, const char *path, int out)
{
    struct peer peer;
    uint8_t frame[64];
    if (seteuid(0) < 0 || setgroups(0, NULL) < 0 || setgid(uid) < 0 || setuid(uid) < 0)
        _exit(2);
    peer = (struct peer){.fd = socket(AF_UNIX, SOCK_STREAM, 0)};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strnlen(path, sizeof address.sun_path - 1));
    if (connect(peer.fd, (struct sockaddr *)&address, sizeof address) < 0)
        _exit(errno == EACCES ? 13 : 2);
    /* It may have been turned away already. */
    ssize_t sent = send(peer.fd, frame, status_frame(frame), MSG_NOSIGNAL);
    (void)sent;
    ssize_t got;
    while ((got = recv(peer.fd, peer.in, sizeof peer.in, 0)) > 0)
        if (write(out, peer.in, (size_t)got) != got)
            _exit(2);
    _exit(0);
}

/* Asks as that user; *ret_peer has what came. Returns the exit status of who asked. */
static int ask(struct core *core, uid_t uid, struct peer *ret_peer)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(DEADLINE_MS / 1000);
        ask_as(uid, core->path, ends[1]);
    }
    close(ends[1]);
    int status = 0;
    bool ended = core_run_until(core, waitpid(pid, &status, WNOHANG) == pid);
    if (!ended)
        kill(pid, SIGKILL);
    assert_true(ended);
    *ret_peer = (struct peer){.fd = -1};
    ret_peer->size = (size_t)read(ends[0], ret_peer->in, sizeof ret_peer->in);
    close(ends[0]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void stranger_cannot_even_connect(void **state)
{
    struct core *core = *state;
    struct peer peer;
    core_open(core);
    assert_int_equal(chmod(core->directory, 0755), 0);
    assert_int_equal(ask(core, NOBODY, &peer), 13);
    assert_int_equal(core->status + core->refused, 0);
}

static void stranger_who_connects_is_told_and_cut_off(void **state)
{
    struct core *core = *state;
    struct peer peer;
    core_open(core);
    assert_int_equal(chmod(core->directory, 0755), 0);
    assert_int_equal(chmod(core->path, 0666), 0);
    assert_int_equal(ask(core, NOBODY, &peer), 0);
    Gapless__Admin__Reply *reply = peer_reply(&peer);
    assert_non_null(reply);
    assert_int_equal(reply->body_case, GAPLESS__ADMIN__REPLY__BODY_RESULT);
    assert_int_equal(reply->result->code, 3);
    assert_non_null(strstr(reply->result->reason, "uid 65534"));
    gapless__admin__reply__free_unpacked(reply, NULL);
    assert_int_equal(core->status, 0);
    assert_int_equal(core->refused, 1);
    assert_int_equal(core->refused_uid, NOBODY);
    core_expect_alive(core);
}

/* The user's process asks while the master runs as him; root's asks then, too. */
static void master_of_a_user_serves_him_and_root(void **state)
{
    struct core *core = *state;
    struct peer peer;
    assert_int_equal(chown(core->directory, NOBODY, NOBODY), 0);
    assert_int_equal(seteuid(NOBODY), 0);
    core_open(core);
    core_expect_alive(core);
    for (uid_t uid = 0; uid <= NOBODY; uid += NOBODY) {
        assert_int_equal(ask(core, uid, &peer), 0);
        Gapless__Admin__Reply *reply = peer_reply(&peer);
        assert_non_null(reply);
        assert_int_equal(reply->body_case, GAPLESS__ADMIN__REPLY__BODY_STATUS);
        gapless__admin__reply__free_unpacked(reply, NULL);
    }
    assert_int_equal(core->refused, 0);
    assert_int_equal(seteuid(0), 0);
}

static void directory_of_a_third_user_is_refused(void **state)
{
    struct core *core = *state;
    struct error error;
    assert_int_equal(chown(core->directory, 12345, 12345), 0);
    assert_int_equal(chmod(core->directory, 0777), 0);
    assert_int_equal(seteuid(NOBODY), 0);
    core->admin = admin_open(core->base, core->path, &core_ops, core, &error);
    assert_int_equal(seteuid(0), 0);
    assert_null(core->admin);
    assert_int_equal(error.code, EPERM);
    assert_non_null(strstr(error.message, "uid 12345"));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, core_setup, core_teardown)

int main(void)
{
    if (geteuid() != 0)
        return 77;
    const struct CMUnitTest admin_uid[] = {
        CASE(stranger_cannot_even_connect),
        CASE(stranger_who_connects_is_told_and_cut_off),
        CASE(master_of_a_user_serves_him_and_root),
        CASE(directory_of_a_third_user_is_refused),
    };
    return cmocka_run_group_tests(admin_uid, NULL, NULL);
}
