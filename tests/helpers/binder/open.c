/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/helpers/binder/binder.h"

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* So many bind at the same time, and no longer than this. */
#define KILLED_CHILDREN 4
#define KILLED_AFTER_US 2000

static struct binder_address parse_path(const char *text)
{
    struct binder_address parsed = {.text = text, .size = sizeof(struct sockaddr_un)};
    struct sockaddr_un *un = (struct sockaddr_un *)&parsed.address;
    un->sun_family = AF_UNIX;
    if (strlen(text) >= sizeof un->sun_path)
        errx(64, "%s: too long", text);
    strcpy(un->sun_path, text);
    return parsed;
}

struct binder_address binder_parse_address(const char *text)
{
    if (text[0] == '/')
        return parse_path(text);
    struct binder_address parsed = {.text = text};
    struct sockaddr_in *in = (struct sockaddr_in *)&parsed.address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&parsed.address;
    const char *colon = strrchr(text, ':');
    char host[INET6_ADDRSTRLEN + 2] = "";
    if (!colon || (size_t)(colon - text) >= sizeof host)
        errx(64, "%s: HOST:PORT, [HOST]:PORT or /PATH", text);
    memcpy(host, text, (size_t)(colon - text));
    in->sin_port = htons((uint16_t)atoi(colon + 1)); /* it stands at the same place in both */
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        parsed.size = sizeof *in;
        return parsed;
    }
    host[strcspn(host, "]")] = 0;
    if (host[0] != '[' || inet_pton(AF_INET6, host + 1, &in6->sin6_addr) != 1)
        errx(64, "%s: HOST:PORT, [HOST]:PORT or /PATH", text);
    in6->sin6_family = AF_INET6;
    parsed.size = sizeof *in6;
    return parsed;
}

static void set(int fd, int level, int option)
{
    int on = 1;
    if (setsockopt(fd, level, option, &on, sizeof on) < 0)
        err(1, "setsockopt");
}

int binder_make_socket(const struct binder_address *address)
{
    int family = address->address.ss_family;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | (binder.blocking ? 0 : SOCK_NONBLOCK), 0);
    if (fd < 0)
        err(1, "socket");
    if (family == AF_UNIX)
        return fd;
    set(fd, SOL_SOCKET, SO_REUSEADDR);
    if (binder.reuseport || binder.many > 1 || binder.processes > 1)
        set(fd, SOL_SOCKET, SO_REUSEPORT);
    if (binder.v6only && family == AF_INET6)
        set(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    return fd;
}

static int open_one(const struct binder_address *address, void (*made)(int fd))
{
    const char *path = address->address.ss_family == AF_UNIX ? address->text : NULL;
    int fd = binder_make_socket(address);
    if (made)
        made(fd);
    if (path && binder.unlink_path && unlink(path) < 0 && errno != ENOENT)
        err(1, "unlink %s", path);
    if (bind(fd, (const struct sockaddr *)&address->address, address->size) < 0)
        err(1, "bind %s", address->text);
    if (!binder.deaf && listen(fd, (int)binder.backlog) < 0)
        err(1, "listen %s", address->text);
    if (path && binder.mode && chmod(path, (mode_t)binder.mode) < 0)
        err(1, "chmod %s", path);
    return fd;
}

unsigned binder_open(int ret_fds[BINDER_SOCKETS_MAX], void (*made)(int fd))
{
    unsigned count = 0;
    for (unsigned i = 0; i < binder.address_count; i++)
        for (unsigned j = 0; j < binder.many; j++)
            ret_fds[count++] = open_one(&binder.addresses[i], made);
    return count;
}

/* Binds for ever, whatever comes of it. It never listens: nothing may be queued at a socket of a dead child.
 */
static void bind_in_a_loop(void)
{
    for (;;) {
        int fd = binder_make_socket(&binder.addresses[0]);
        bind(fd, (const struct sockaddr *)&binder.addresses[0].address, binder.addresses[0].size);
        close(fd);
    }
}

void binder_kill_children(unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        pid_t children[KILLED_CHILDREN];
        for (unsigned j = 0; j < KILLED_CHILDREN; j++) {
            children[j] = fork();
            if (children[j] < 0)
                err(1, "fork");
            if (children[j] == 0)
                bind_in_a_loop();
        }
        /* The moment is what is varied: some haven't called yet. */
        nanosleep(&(struct timespec){.tv_nsec = 1000L * (i * 97 % KILLED_AFTER_US)}, NULL);
        for (unsigned j = 0; j < KILLED_CHILDREN; j++) {
            kill(children[j], SIGKILL);
            waitpid(children[j], NULL, 0);
        }
    }
}
