/* SPDX-License-Identifier: BSD-2-Clause */
#include "fake_master.h"

#include "ipc/channel.h"
#include "ipc/keeper.pb-c.h"
#include "master/keeper_link.h"

#include <dirent.h>
#include <errno.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct fake {
    struct keeper_link *link;
    int test; /* the connection to the test */
};

static pid_t keeper;

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "fake master: %s: %s\n", what, strerror(errno));
    _exit(99);
}

static void say(struct fake *fake, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct fake *fake, const char *format, ...)
{
    char line[FAKE_MASTER_LINE];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (send(fake->test, line, (size_t)length, MSG_NOSIGNAL) < 0)
        _exit(98); /* the test has ended */
}

static unsigned count_fds(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    if (!directory)
        return 0;
    struct dirent *entry;
    while ((entry = readdir(directory)))
        count += entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(directory);
    closedir(directory);
    return count;
}

static int connect_to_test(void)
{
    const char *name = getenv(FAKE_MASTER_SOCKET);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!name || strlen(name) >= sizeof address.sun_path - 1)
        give_up(FAKE_MASTER_SOCKET);
    memcpy(address.sun_path + 1, name, strlen(name));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, length) < 0)
        give_up("connect");
    return fd;
}

/* Workers. */

/* clone() as the master does it: the child is the keeper's. */
static pid_t clone_worker(int *ret_pidfd)
{
    return (pid_t)syscall(SYS_clone, CLONE_PARENT | CLONE_PIDFD | SIGCHLD, NULL, ret_pidfd, NULL, NULL);
}

/* Ends with the keeper as well, so that no test leaves anything behind. */
static _Noreturn void wait_for_usr1(void)
{
    sigset_t set; /* USR1 is blocked from the beginning, as in the master */
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_SETMASK, &set, NULL);
    close_range(3, ~0U, 0);
    while (sigtimedwait(&set, NULL, &(struct timespec){.tv_nsec = 50000000}) != SIGUSR1)
        if (kill(keeper, 0) < 0)
            _exit(1);
    _exit(FAKE_WORKER_CODE);
}

static int put(struct fake *fake, const char *name, pid_t pid, int fd)
{
    struct error error = {.code = 0};
    int r = keeper_link_put(fake->link, name, pid, &fd, 1, &error);
    if (r < 0)
        fprintf(stderr, "fake master: %s\n", error.message);
    return r;
}

static bool is_gone(pid_t pid)
{
    return kill(pid, 0) < 0 && errno == ESRCH;
}

static void wait_until_gone(pid_t pid)
{
    for (int i = 0; i < 500 && !is_gone(pid); i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
}

/* A worker that waits for USR1; with a child in its group if so wanted. Answers with the pid of the last one.
 */
static void command_worker(struct fake *fake, const char *name, bool with_child)
{
    int pidfd = -1;
    int pids[2];
    if (pipe(pids) < 0)
        give_up("pipe");
    pid_t pid = clone_worker(&pidfd);
    if (pid == 0) {
        setpgid(0, 0);
        pid_t child = with_child ? fork() : 0;
        if (with_child && child == 0)
            wait_for_usr1();
        if (write(pids[1], &child, sizeof child) < 0)
            _exit(1);
        wait_for_usr1();
    }
    pid_t child = 0;
    if (pid < 0 || read(pids[0], &child, sizeof child) != (ssize_t)sizeof child)
        give_up("clone");
    close(pids[0]);
    close(pids[1]);
    if (*name)
        put(fake, name, pid, pidfd);
    close(pidfd);
    say(fake, "ok %d", with_child ? child : pid);
}

/* A worker that has exited with `code`, put into the store before it is reaped, or after. */
static void command_dead_worker(struct fake *fake, const char *name, int code, bool reaped)
{
    int pidfd = -1;
    if (!reaped)
        kill(getppid(), SIGSTOP);
    pid_t pid = clone_worker(&pidfd);
    if (pid == 0)
        _exit(code);
    if (pid < 0)
        give_up("clone");
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    poll(&ended, 1, 5000);
    if (reaped)
        wait_until_gone(pid);
    put(fake, name, pid, pidfd);
    if (!reaped)
        kill(getppid(), SIGCONT);
    close(pidfd);
    say(fake, "ok %d", pid);
}

/* Puts the entry of a worker once more, as a master does that has another descriptor to add. */
static void command_again(struct fake *fake, const char *name, pid_t pid, int pidfd)
{
    wait_until_gone(pid);
    say(fake, "ok %d", put(fake, name, pid, pidfd));
    close(pidfd);
}

/* A worker that is told to exit and whose entry is put again when it was reaped. */
static void command_worker_twice(struct fake *fake, const char *name)
{
    int pidfd = -1;
    pid_t pid = clone_worker(&pidfd);
    if (pid == 0)
        wait_for_usr1();
    put(fake, name, pid, pidfd);
    kill(pid, SIGUSR1);
    command_again(fake, name, pid, pidfd);
}

/* A grandchild whose parent has exited. */
static void command_orphan(struct fake *fake)
{
    int pids[2];
    if (pipe(pids) < 0)
        give_up("pipe");
    pid_t parent = fork();
    if (parent == 0) {
        pid_t orphan = fork();
        if (orphan == 0)
            wait_for_usr1();
        _exit(write(pids[1], &orphan, sizeof orphan) < 0);
    }
    pid_t orphan = 0;
    if (read(pids[0], &orphan, sizeof orphan) != (ssize_t)sizeof orphan)
        give_up("orphan");
    close(pids[0]);
    close(pids[1]);
    siginfo_t info;
    waitid(P_PID, (id_t)parent, &info, WEXITED);
    say(fake, "ok %d", orphan);
}

/* The rest. */

static void command_put(struct fake *fake, const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        give_up("memfd");
    put(fake, name, 0, fd);
    close(fd);
    say(fake, "ok %lu", (unsigned long)st.st_ino);
}

/* What only a keeper says, or a put that would make the keeper kill what isn't a worker. */
static void command_forbidden(struct fake *fake, const char *what, int pid)
{
    char entry_name[] = "x";
    Gapless__Keeper__Entry entry = GAPLESS__KEEPER__ENTRY__INIT;
    Gapless__Keeper__Put body = GAPLESS__KEEPER__PUT__INIT;
    Gapless__Keeper__Keeper message = GAPLESS__KEEPER__KEEPER__INIT;
    if (strcmp(what, "entry") == 0) {
        entry.name = entry_name;
        message.body_case = GAPLESS__KEEPER__KEEPER__BODY_ENTRY;
        message.entry = &entry;
    } else {
        body.name = entry_name;
        body.pid = pid == 0 ? getppid() : pid;
        message.body_case = GAPLESS__KEEPER__KEEPER__BODY_PUT;
        message.put = &body;
    }
    uint8_t data[64];
    size_t size = gapless__keeper__keeper__pack(&message, data);
    int fd = strcmp(what, "put-file") == 0 ? STDIN_FILENO : (int)syscall(SYS_pidfd_open, getpid(), 0);
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec part = {.iov_base = data, .iov_len = size};
    struct msghdr header = {.msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &fd, sizeof fd);
    say(fake, "ok 0"); /* before: afterwards it may be dead */
    sendmsg(keeper_link_fd(fake->link), &header, MSG_NOSIGNAL);
}

static bool run_worker_command(struct fake *fake, const char *verb, const char *name, int number)
{
    if (strcmp(verb, "worker") == 0)
        command_worker(fake, name, false);
    else if (strcmp(verb, "family") == 0)
        command_worker(fake, name, true);
    else if (strcmp(verb, "unlisted") == 0)
        command_worker(fake, "", false);
    else if (strcmp(verb, "zombie") == 0)
        command_dead_worker(fake, name, number, false);
    else if (strcmp(verb, "reaped") == 0)
        command_dead_worker(fake, name, number, true);
    else if (strcmp(verb, "twice") == 0)
        command_worker_twice(fake, name);
    else if (strcmp(verb, "orphan") == 0)
        command_orphan(fake);
    else
        return false;
    return true;
}

static void run_command(struct fake *fake, const char *line)
{
    char verb[32] = "";
    char name[300] = "";
    int number = 0;
    sscanf(line, "%31s %299s %d", verb, name, &number);
    if (run_worker_command(fake, verb, name, number))
        return;
    if (strcmp(verb, "put") == 0) {
        command_put(fake, name);
    } else if (strcmp(verb, "drop") == 0) {
        say(fake, "ok %d", keeper_link_drop(fake->link, name, NULL));
    } else if (strcmp(verb, "serving") == 0) {
        say(fake, "ok %d", keeper_link_serving(fake->link, strcmp(name, "json") == 0, NULL));
    } else if (strcmp(verb, "notify") == 0) {
        say(fake, "ok %d", keeper_link_notify(fake->link, name, NULL));
    } else if (strcmp(verb, "kill") == 0) {
        say(fake, "ok %d", kill(atoi(name), number));
    } else if (strcmp(verb, "gone") == 0) {
        wait_until_gone(atoi(name));
        say(fake, "ok %d", is_gone(atoi(name)));
    } else if (strcmp(verb, "finish") == 0) {
        keeper_link_finish(fake->link, atoi(name), NULL);
        _exit(0);
    } else if (strcmp(verb, "finish-and-stay") == 0) {
        keeper_link_finish(fake->link, atoi(name), NULL);
    } else if (strcmp(verb, "exit") == 0) {
        _exit(atoi(name));
    } else if (strcmp(verb, "garbage") == 0) {
        say(fake, "ok 0");
        send(keeper_link_fd(fake->link), "\xff\xff\xff\xff", 4, MSG_NOSIGNAL);
    } else if (strcmp(verb, "unknown") == 0) {
        send(keeper_link_fd(fake->link), "\xfa\x07\x02\x08\x01", 5, MSG_NOSIGNAL);
    } else if (strcmp(verb, "forbidden") == 0) {
        command_forbidden(fake, name, number);
    } else if (strcmp(verb, "close") == 0) {
        keeper_link_close(fake->link);
        fake->link = NULL;
        say(fake, "ok 0");
    } else {
        errno = EINVAL;
        give_up(line);
    }
}

static void report_event(struct fake *fake)
{
    struct keeper_event event;
    struct error error;
    int r;
    while ((r = keeper_link_receive(fake->link, &event, &error)) == 1) {
        if (event.type == KEEPER_EVENT_SIGNAL)
            say(fake, "%s %d %d %d", event.signal.again ? "again" : "signal", event.signal.number,
                event.signal.hangup, event.signal.sender);
        else
            say(fake, "exited %s %d %d", event.exited.name, event.exited.pid, event.exited.wait_status);
    }
    if (r < 0)
        _exit(97); /* the keeper is gone */
}

static void report_entries(struct fake *fake)
{
    struct keeper_entry *entry;
    while ((entry = keeper_link_take_next(fake->link, ""))) {
        struct stat st = {.st_ino = 0};
        if (entry->fds.count > 0)
            fstat(entry->fds.fds[entry->fds.count - 1], &st);
        say(fake, "entry %s %d %d %d %lu", entry->name, entry->pid, entry->exited, entry->wait_status,
            (unsigned long)st.st_ino);
        keeper_entry_free(entry);
    }
    say(fake, "restored %u", keeper_link_starts(fake->link));
}

static void loop(struct fake *fake)
{
    for (;;) {
        struct pollfd fds[2] = {{.fd = fake->test, .events = POLLIN},
            {.fd = fake->link ? keeper_link_fd(fake->link) : -1, .events = POLLIN}};
        poll(fds, 2, -1);
        if (fds[0].revents) {
            char line[FAKE_MASTER_LINE];
            ssize_t length = recv(fake->test, line, sizeof line - 1, 0);
            if (length <= 0)
                _exit(98);
            line[length] = '\0';
            run_command(fake, line);
        }
        if (fds[1].revents && fake->link)
            report_event(fake);
    }
}

int fake_master_run(int argc, char *argv[])
{
    for (int i = 3; i < argc; i++) {
        if (strcmp(argv[i], "--exit") == 0 && i + 1 < argc)
            return atoi(argv[i + 1]);
        if (strcmp(argv[i], "--kill") == 0)
            kill(getpid(), SIGKILL);
    }
    keeper = getppid();
    unsigned came = count_fds();
    struct fake fake = {.test = connect_to_test()};
    struct error error;
    int fd = atoi(argv[2]);
    if (keeper_link_open(&fd, &fake.link, &error) < 0 || keeper_link_restore(fake.link, 5000, &error) < 0) {
        fprintf(stderr, "fake master: %s\n", error.message);
        return 96;
    }
    say(&fake, "up %d %d %u", getpid(), getppid(), came);
    report_entries(&fake);
    loop(&fake);
    return 0;
}
