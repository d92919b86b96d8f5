/* SPDX-License-Identifier: BSD-2-Clause */
#include "path_world.h"

#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

int64_t test_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static unsigned count_entries(const char *path)
{
    unsigned n = 0;
    DIR *entries = opendir(path);
    assert_non_null(entries);
    while (readdir(entries))
        n++;
    closedir(entries);
    return n;
}

void path_world_spec(struct path_world *world, const char *path, const char *options)
{
    char text[512];
    struct error error;
    snprintf(text, sizeof text, "unix:%s%s", path, options);
    listener_spec_done(&world->spec);
    if (listener_spec_parse(text, &world->spec, &error) < 0)
        fail_msg("%s", error.message);
}

int path_world_setup(void **state)
{
    struct path_world *world = calloc(1, sizeof *world);
    snprintf(world->directory, sizeof world->directory, "/tmp/gapless-path-XXXXXX");
    assert_non_null(mkdtemp(world->directory));
    snprintf(world->path, sizeof world->path, "%s/x.sock", world->directory);
    path_world_spec(world, world->path, "");
    world->fds = count_entries("/proc/self/fd");
    *state = world;
    return 0;
}

int path_world_teardown(void **state)
{
    struct path_world *world = *state;
    int r = rmdir(world->directory);
    if (r < 0) {
        fprintf(stderr, "%s is left with %u names\n", world->directory, count_entries(world->directory) - 2);
        char command[128];
        snprintf(command, sizeof command, "ls -lA %s >&2", world->directory);
        (void)!system(command);
    }
    unsigned fds = count_entries("/proc/self/fd");
    if (fds != world->fds) {
        fprintf(stderr, "%u descriptors, there were %u\n", fds, world->fds);
        r = -1;
    }
    listener_spec_done(&world->spec);
    free(world);
    return r;
}

void member_bind(struct path_world *world, struct member *member)
{
    struct error error;
    member->fd = socket(AF_UNIX, world->spec.type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(member->fd >= 0);
    if (unix_path_bind(member->fd, &world->spec, ++world->id, &member->path, &error) < 0)
        fail_msg("%s", error.message);
    if (world->spec.type != SOCK_DGRAM)
        assert_int_equal(listen(member->fd, 1024), 0);
}

void member_close(struct member *member)
{
    unix_path_withdraw(&member->path);
    fd_close(&member->fd);
}

void member_publish(const struct member *member, const struct unix_path_over *over)
{
    struct error error;
    if (unix_path_publish(&member->path, over, &error) < 0)
        fail_msg("%s", error.message);
}

static void address_of(const char *path, struct sockaddr_un *ret_address)
{
    assert_int_equal(unix_file_address(path, ret_address), 0);
}

int stranger_bind(const char *path, int type, bool listening)
{
    struct sockaddr_un address;
    address_of(path, &address);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    if (listening)
        assert_int_equal(listen(fd, 16), 0);
    return fd;
}

int connect_to(const char *path, int type)
{
    struct sockaddr_un address;
    address_of(path, &address);
    CLEANUP_FD int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    return connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
}

bool is_served_by(const char *path, const struct member *member)
{
    assert_int_equal(connect_to(path, SOCK_STREAM), 0);
    CLEANUP_FD int fd = accept4(member->fd, NULL, NULL, SOCK_CLOEXEC);
    return fd >= 0;
}

void name_of(int fd, char ret_name[UNIX_FILE_PATH_MAX + 1])
{
    struct sockaddr_un address = {.sun_family = AF_UNSPEC};
    socklen_t length = sizeof address;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    snprintf(ret_name, UNIX_FILE_PATH_MAX + 1, "%.*s", (int)sizeof address.sun_path, address.sun_path);
}

const char *beside(const struct path_world *world, const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", world->directory, name);
    return path;
}

bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

void write_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

void *shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    return memory;
}

void forbid_chroot(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_chroot, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        abort();
}

pid_t fork_child(void)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(DEADLINE_MS / 1000);
    }
    return pid;
}

int child_status(pid_t pid)
{
    int status = 0;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    assert_true(pidfd >= 0);
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    if (poll(&ended, 1, DEADLINE_MS) != 1)
        kill(pid, SIGKILL);
    close(pidfd);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
