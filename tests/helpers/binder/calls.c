/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Calls that must end as if nobody looked: a line each of the report says how, without anything that differs
 * between two runs.
 */
#include "tests/helpers/binder/binder.h"

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define SLOW_ROUNDS 2
#define ADDRESS_NOBODY_HAS 0xc0000201 /* 192.0.2.1 */

static FILE *report;
static uint16_t port; /* of the first address */

static void say(const char *what, long result)
{
    int error = errno;
    fprintf(report, "%s: %s\n", what, result < 0 ? strerrorname_np(error) : "done");
}

static int make(int family, int type, int protocol)
{
    int fd = socket(family, type | SOCK_CLOEXEC, protocol);
    if (fd < 0 && errno != EPERM && errno != EAFNOSUPPORT && errno != EACCES)
        err(1, "socket");
    return fd;
}

static struct sockaddr_in in_address(uint32_t host, uint16_t of)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(of), .sin_addr.s_addr = htonl(host)};
}

static long bind_in(int fd, uint32_t host, uint16_t of)
{
    struct sockaddr_in address = in_address(host, of);
    return bind(fd, (struct sockaddr *)&address, sizeof address);
}

static long bind_raw(unsigned long fd, const void *address, unsigned long size)
{
    return syscall(SYS_bind, fd, address, size);
}

/* ── thousands: each kind so often on fresh sockets, but for those that the kernel takes long to close
 * ── */

static long bind_any_port(void)
{
    int fd = make(AF_INET, SOCK_STREAM, 0);
    long r = bind_in(fd, INADDR_LOOPBACK, 0);
    close(fd);
    return r;
}

static long bind_any_port_v6(void)
{
    int fd = make(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    long r = bind(fd, (struct sockaddr *)&address, sizeof address);
    close(fd);
    return r;
}

static long bind_any_udp_port(void)
{
    int fd = make(AF_INET, SOCK_DGRAM, 0);
    long r = bind_in(fd, INADDR_LOOPBACK, 0);
    close(fd);
    return r;
}

/* It never listens there. */
static long bind_other_port(void)
{
    int fd = make(AF_INET, SOCK_STREAM, 0);
    long r = bind_in(fd, INADDR_LOOPBACK, port + 1);
    close(fd);
    return r;
}

static long bind_same_port_of_udp(void)
{
    int fd = make(AF_INET, SOCK_DGRAM, 0);
    long r = bind_in(fd, INADDR_LOOPBACK, port);
    close(fd);
    return r;
}

static long bind_foreign_address(void)
{
    int fd = make(AF_INET, SOCK_STREAM, 0);
    long r = bind_in(fd, ADDRESS_NOBODY_HAS, port);
    close(fd);
    return r;
}

static long bind_netlink(void)
{
    int fd = make(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    long r = bind(fd, (struct sockaddr *)&address, sizeof address);
    close(fd);
    return r;
}

static long bind_packet(void)
{
    int fd = make(AF_PACKET, SOCK_RAW, 0);
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_LOOPBACK)};
    long r = fd < 0 ? -1 : bind(fd, (struct sockaddr *)&address, sizeof address);
    close(fd);
    return r;
}

/* The kernel chooses the name. */
static long bind_unix_autobind(void)
{
    int fd = make(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    long r = bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t));
    close(fd);
    return r;
}

static long bind_unix_nowhere(void)
{
    int fd = make(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/nowhere/at/all"};
    long r = bind(fd, (struct sockaddr *)&address, sizeof address);
    close(fd);
    return r;
}

static void call_often(void)
{
    const struct {
        const char *name;
        long (*call)(void);
        unsigned rounds;
    } kinds[] = {{"port 0", bind_any_port, binder.rounds}, {"port 0, IPv6", bind_any_port_v6, binder.rounds},
        {"port 0, UDP", bind_any_udp_port, binder.rounds}, {"another port", bind_other_port, binder.rounds},
        {"the same port, UDP", bind_same_port_of_udp, binder.rounds},
        {"an address of another host", bind_foreign_address, binder.rounds},
        {"netlink", bind_netlink, SLOW_ROUNDS}, {"AF_PACKET", bind_packet, SLOW_ROUNDS},
        {"AF_UNIX, any name", bind_unix_autobind, binder.rounds},
        {"AF_UNIX, no directory", bind_unix_nowhere, binder.rounds}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        unsigned done = 0, failed = 0;
        int last = 0;
        for (unsigned round = 0; round < kinds[i].rounds; round++)
            if (kinds[i].call() < 0) {
                failed++;
                last = errno;
            } else {
                done++;
            }
        fprintf(report, "%s: %u done, %u failed %s\n", kinds[i].name, done, failed,
            last ? strerrorname_np(last) : "");
    }
}

/* ── wrong arguments ── */

/* An address that begins `bytes` before memory that isn't there. */
static void *at_the_edge(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || munmap(memory + page, page) < 0)
        err(1, "memory");
    return memory + page - bytes;
}

static void call_bind_badly(void)
{
    int tcp = make(AF_INET, SOCK_STREAM, 0), other = make(AF_UNIX, SOCK_STREAM, 0),
        file = open("/dev/null", O_RDWR | O_CLOEXEC), path = open("/", O_PATH | O_CLOEXEC);
    struct sockaddr_in own = in_address(INADDR_LOOPBACK, port);
    struct sockaddr_in6 six = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_storage big = {0};
    void *edge = at_the_edge(sizeof own);
    memcpy(edge, &own, sizeof own);
    memcpy(&big, &own, sizeof own);
    say("bind, no pointer", bind_raw(tcp, NULL, sizeof own));
    say("bind, a bad pointer", bind_raw(tcp, (void *)16, sizeof own));
    say("bind, a pointer into the kernel", bind_raw(tcp, (void *)UINTPTR_MAX, sizeof own));
    say("bind, half of it is there", bind_raw(tcp, edge, sizeof own + 1));
    say("bind, no length", bind_raw(tcp, &own, 0));
    say("bind, length 1", bind_raw(tcp, &own, 1));
    say("bind, length 15", bind_raw(tcp, &own, sizeof own - 1));
    say("bind, too long", bind_raw(tcp, &big, sizeof big + 1));
    say("bind, length -1", bind_raw(tcp, &own, (unsigned)-1));
    say("bind, no descriptor", bind_raw((unsigned)-1, &own, sizeof own));
    say("bind, a descriptor that isn't open", bind_raw(1000, &own, sizeof own));
    say("bind, no socket", bind_raw(file, &own, sizeof own));
    say("bind, O_PATH", bind_raw(path, &own, sizeof own));
    say("bind, IPv6 on IPv4", bind_raw(tcp, &six, sizeof six));
    say("bind, IPv4 on AF_UNIX", bind_raw(other, &own, sizeof own));
    close(tcp);
    close(other);
    close(file);
    close(path);
}

/* What is unusual and yet right; the port is one that nobody else uses. */
static void call_bind_oddly(void)
{
    struct sockaddr_in other = in_address(INADDR_LOOPBACK, port + 2);
    struct sockaddr_in unspecified = {.sin_family = AF_UNSPEC, .sin_port = htons(port + 3)};
    struct sockaddr_storage big = {0};
    memcpy(&big, &other, sizeof other);
    int fd = make(AF_INET, SOCK_STREAM, 0);
    say("bind, a long address", bind_raw(fd, &big, sizeof big));
    say("bind again", bind_raw(fd, &big, sizeof big));
    close(fd);
    fd = make(AF_INET, SOCK_STREAM, 0);
    say("bind, more than 32 bits in its numbers",
        bind_raw((unsigned)fd | 1UL << 32, &other, sizeof other | 1UL << 32));
    close(fd);
    fd = make(AF_INET, SOCK_STREAM, 0);
    say("bind, AF_UNSPEC", bind_raw(fd, &unspecified, sizeof unspecified));
    close(fd);
}

static void call_listen_badly(void)
{
    int file = open("/dev/null", O_RDWR | O_CLOEXEC), udp = make(AF_INET, SOCK_DGRAM, 0),
        netlink = make(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), tcp = make(AF_INET, SOCK_STREAM, 0);
    say("listen, no descriptor", listen(-1, 1));
    say("listen, no socket", listen(file, 1));
    say("listen, UDP", listen(udp, 1));
    say("listen, netlink", listen(netlink, 1));
    say("listen, not bound", listen(tcp, -1));
    say("listen again", listen(tcp, 1));
    close(file);
    close(udp);
    close(netlink);
    close(tcp);
}

/* An ordinary file comes, is renamed and goes as without a Unix path listener. */
static void call_names(void)
{
    char name[] = "/tmp/binder-XXXXXX", other[sizeof name + 1], longer[5000];
    int fd = mkstemp(name);
    if (fd < 0)
        err(1, "%s", name);
    close(fd);
    snprintf(other, sizeof other, "%s2", name);
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    say("unlink, a bad pointer", syscall(SYS_unlinkat, AT_FDCWD, (void *)16, 0));
    say("unlink, a pointer into the kernel", syscall(SYS_unlinkat, AT_FDCWD, (void *)UINTPTR_MAX, 0));
    say("unlink, nothing", unlink(""));
    say("unlink, too long", unlink(longer));
    say("unlink, nowhere", unlink("/nowhere/at/all"));
    say("unlink, a directory", unlink("/tmp"));
    say("unlinkat, no descriptor", unlinkat(-1, "x", 0));
    say("unlinkat, bad flags", unlinkat(AT_FDCWD, name, 0x8000));
    say("rename, bad pointers", syscall(SYS_renameat2, AT_FDCWD, (void *)16, AT_FDCWD, (void *)16, 0));
    say("rename, a bad second pointer", syscall(SYS_renameat2, AT_FDCWD, name, AT_FDCWD, (void *)16, 0));
    say("rename, nothing there", rename(other, name));
    say("renameat2, bad flags", renameat2(AT_FDCWD, name, AT_FDCWD, other, 0x8000));
    say("rename", rename(name, other));
    say("the old name", access(name, F_OK));
    say("unlink", unlink(other));
    say("the new name", access(other, F_OK));
    struct sockaddr_un aside = {.sun_family = AF_UNIX};
    memcpy(aside.sun_path, name, sizeof name);
    fd = make(AF_UNIX, SOCK_STREAM, 0);
    say("bind, another path", bind(fd, (struct sockaddr *)&aside, sizeof aside));
    say("listen there", listen(fd, 1));
    say("rename", rename(name, other));
    say("unlink", unlink(other));
    say("the new name", access(other, F_OK));
    close(fd);
#ifdef SYS_unlink
    say("old unlink, a bad pointer", syscall(SYS_unlink, (void *)16));
    say("old rename, bad pointers", syscall(SYS_rename, (void *)16, (void *)16));
#endif
}

/* ── clients ── */

/* A client that wants a port of its own, and the server that it talks to, which is none of gapless's. */
static void call_as_client(uint16_t own)
{
    int server = make(AF_INET, SOCK_STREAM, 0), client = make(AF_INET, SOCK_STREAM, 0),
        second = make(AF_INET, SOCK_STREAM, 0), on = 1, grouped = -1;
    struct sockaddr_in address = in_address(INADDR_LOOPBACK, 0), named;
    socklen_t size = sizeof address;
    char byte = 0;
    setsockopt(client, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(server, (struct sockaddr *)&address, size) < 0 || listen(server, 4) < 0 ||
        getsockname(server, (struct sockaddr *)&address, &size) < 0)
        err(1, "a server of its own");
    say("client, bind", bind_in(client, INADDR_LOOPBACK, own));
    say("client, another bind of that port", bind_in(second, INADDR_LOOPBACK, own));
    say("client, connect", connect(client, (struct sockaddr *)&address, size));
    size = sizeof named;
    say("client, getsockname", getsockname(client, (struct sockaddr *)&named, &size));
    fprintf(
        report, "client, its port: %s\n", own == 0 || named.sin_port == htons(own) ? "that one" : "another");
    size = sizeof grouped;
    getsockopt(client, SOL_SOCKET, SO_REUSEPORT, &grouped, &size);
    fprintf(report, "client, SO_REUSEPORT: %d\n", grouped);
    int accepted = accept4(server, NULL, NULL, SOCK_CLOEXEC);
    say("client, send", send(client, "x", 1, MSG_NOSIGNAL));
    say("client, arrived", recv(accepted, &byte, 1, 0) == 1 && byte == 'x' ? 0 : -1);
    /* A reset: nothing waits for a minute and has the port, which the next run wants, too. */
    struct linger at_once = {.l_onoff = 1};
    setsockopt(client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(client);
    close(second);
    close(accepted);
    close(server);
}

/* ── all ── */

void binder_call_before(FILE *to)
{
    report = to;
    port = ntohs(((struct sockaddr_in *)&binder.addresses[0].address)->sin_port);
    call_often();
    call_bind_badly();
    call_bind_oddly();
    call_listen_badly();
    call_names();
    call_as_client(0);
    call_as_client(port + 4);
}

/* A socket that doesn't share its address is told that the address is taken, also by its own process. */
void binder_call_after(FILE *to)
{
    report = to;
    int fd = binder_make_socket(&binder.addresses[0]), value = -1;
    socklen_t size = sizeof value;
    say("bind, the address once more",
        bind(fd, (struct sockaddr *)&binder.addresses[0].address, binder.addresses[0].size));
    close(fd);
    fd = make(AF_INET, SOCK_STREAM, 0);
    say("bind, port 0 beside it", bind_in(fd, INADDR_LOOPBACK, 0));
    say("listen there", listen(fd, 4));
    getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &value, &size);
    fprintf(report, "SO_REUSEPORT there: %d\n", value);
    close(fd);
}
