/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/history_writer.h"

#include "master/history_record.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* A predecessor may still be writing what a dead master sent it. */
#define LOCK_WAIT_MS 5000
#define LOCK_PAUSE_MS 10

static void pause_ms(long ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static void reply(const struct history_reply *packet)
{
    while (send(STDIN_FILENO, packet, sizeof *packet, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

static int open_file(
    const char *path, uint64_t limit, struct history_file *ret_file, struct history_reply *ret_reply)
{
    int r = history_file_open(path, limit, ret_file, &ret_reply->repair, &ret_reply->error);
    for (int waited = 0; r == -EWOULDBLOCK && waited < LOCK_WAIT_MS; waited += LOCK_PAUSE_MS) {
        pause_ms(LOCK_PAUSE_MS);
        r = history_file_open(path, limit, ret_file, &ret_reply->repair, &ret_reply->error);
    }
    return r;
}

/* False: the master is no more, or what it sent is no record. */
static bool receive(struct history_packet *packet, size_t size)
{
    ssize_t n;
    do
        n = recv(STDIN_FILENO, packet, size, 0);
    while (n < 0 && errno == EINTR);
    if (n <= (ssize_t)sizeof *packet)
        return false;
    packet->line[(size_t)n - sizeof *packet - 1] = '\0';
    return true;
}

static int write_all(struct history_file *file)
{
    size_t size = sizeof(struct history_packet) + HISTORY_LINE_MAX + 1;
    struct history_packet *packet = malloc(size);
    int r = packet ? 0 : -ENOMEM;
    while (r == 0 && receive(packet, size)) {
        struct history_reply answer = {.kind = HISTORY_WRITTEN};
        r = history_file_append(file, packet->number, packet->line, &answer.error);
        if (r < 0)
            answer.kind = HISTORY_WRITE_FAILED;
        answer.number = file->last;
        reply(&answer);
    }
    free(packet);
    return r;
}

/* What is meant for the group of the main process isn't meant for this: it ends with the master. A file that
 * may not grow is an error of write(2), not a signal. */
static void ignore_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE, SIGXFSZ};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        signal(numbers[i], SIG_IGN);
}

_Noreturn void history_writer(int fd, const char *path, uint64_t limit)
{
    ignore_signals();
    prctl(PR_SET_NAME, "gapless-history");
    if (dup2(fd, STDIN_FILENO) < 0)
        _exit(1);
    syscall(SYS_close_range, STDIN_FILENO + 1, ~0U, 0);
    /* So that nothing that is printed gets into the file. */
    int null = open("/dev/null", O_WRONLY);
    if (null >= 0)
        dup2(null, STDERR_FILENO);
    struct history_file file = {.fd = -1};
    struct history_reply opened = {.kind = HISTORY_OPENED};
    int r = open_file(path, limit, &file, &opened);
    if (r < 0)
        opened.kind = HISTORY_WRITE_FAILED;
    opened.number = file.last;
    reply(&opened);
    if (r == 0)
        r = write_all(&file);
    history_file_close(&file);
    _exit(r < 0 ? 1 : 0);
}
