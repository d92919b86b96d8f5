/* SPDX-License-Identifier: BSD-2-Clause */
/* A directory with a public path in it, for the tests of unix_path and unix_path_watch. Its teardown fails if
 * a name or a descriptor is left. */
#ifndef GAPLESS_TESTS_UNIT_PATH_WORLD_H
#define GAPLESS_TESTS_UNIT_PATH_WORLD_H

#include "ipc/error.h"
#include "ipc/fd.h"
#include "master/listener_spec.h"
#include "master/unix_path.h"

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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_MS 20000

struct path_world {
    char directory[64];
    char path[96]; /* DIRECTORY/x.sock */
    struct listener_spec spec;
    uint64_t id; /* the last */
    unsigned fds;
};

/* A socket of ours. */
struct member {
    int fd;
    struct unix_path path;
};

int path_world_setup(void **state);
int path_world_teardown(void **state);

/* Other options, or another path. */
void path_world_spec(struct path_world *world, const char *path, const char *options);

/* Binds and listens; fails the test if that can't be done. */
void member_bind(struct path_world *world, struct member *member);

/* Withdraws and closes. */
void member_close(struct member *member);

void member_publish(const struct member *member, const struct unix_path_over *over);

/* A stranger's socket at a path, listening or not. */
int stranger_bind(const char *path, int type, bool listening);

/* 0 or -errno; the connection is closed again. */
int connect_to(const char *path, int type);

/* True if a client of the path comes to this socket (which has nobody waiting otherwise). */
bool is_served_by(const char *path, const struct member *member);

/* The name of the socket by getsockname(2). */
void name_of(int fd, char ret_name[UNIX_FILE_PATH_MAX + 1]);

/* DIRECTORY/NAME in a buffer that the next call overwrites. */
const char *beside(const struct path_world *world, const char *name);

bool exists(const char *path);

void write_file(const char *path);

/* Memory that a child of the test has, too. */
void *shared(size_t size);

/* From now on neither chroot(2) nor unshare(2) is permitted to this process. */
void forbid_chroot(void);

/* fork(2); the child ends with the test, or at the deadline. */
pid_t fork_child(void);

/* Waits for a child's end, to the deadline; its exit status. */
int child_status(pid_t pid);

int64_t test_now_ms(void);

#endif
