/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/pin.h"

#include "ipc/fd.h"
#include "master/pin_digest.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A name may change while it is looked at. */
#define TRIES 3

static struct pin_identity identify(const struct stat *st)
{
    return (struct pin_identity){.device = st->st_dev,
        .inode = st->st_ino,
        .size = (uint64_t)st->st_size,
        .modified_ns = st->st_mtim.tv_sec * 1000000000LL + st->st_mtim.tv_nsec};
}

static bool is_same_file(const struct pin_identity *a, const struct pin_identity *b)
{
    return a->device == b->device && a->inode == b->inode;
}

static bool is_untouched(const struct pin_identity *a, const struct pin_identity *b)
{
    return is_same_file(a, b) && a->size == b->size && a->modified_ns == b->modified_ns;
}

static struct pin_identity identity_at(int directory, const char *path)
{
    struct stat st;
    return fstatat(directory, path, &st, 0) == 0 ? identify(&st) : (struct pin_identity){.inode = 0};
}

struct pin_identity pin_identity_of(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? identify(&st) : (struct pin_identity){.inode = 0};
}

/* ── what is pinned ── */

static int open_directory(struct pin *pin, const struct pin_request *request, struct error *error)
{
    const char *name = request->cwd ? request->cwd : ".";
    pin->directory_path = realpath(name, NULL);
    if (pin->directory_path)
        pin->fds[PIN_DIRECTORY] = open(pin->directory_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (pin->fds[PIN_DIRECTORY] < 0)
        return error_errno(error, errno, BLAME_USER, "cannot enter the directory %s", name);
    pin->directory = pin_identity_of(pin->fds[PIN_DIRECTORY]);
    return 0;
}

/* A regular file that this process could execute. 0 or -errno. */
static int try_executable(struct pin *pin, const char *path)
{
    struct stat st;
    CLEANUP_FD int fd = openat(pin->fds[PIN_DIRECTORY], path, O_PATH | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EACCES;
    if (faccessat(pin->fds[PIN_DIRECTORY], path, X_OK, AT_EACCESS) < 0)
        return -errno;
    if (!(pin->places[PIN_EXECUTABLE].path = strdup(path)))
        return -ENOMEM;
    pin->fds[PIN_EXECUTABLE] = fd_take(&fd);
    return 0;
}

/* What is no fault of the host's, and says that PATH is to be searched on. */
static bool is_absence(int r)
{
    return r == -ENOENT || r == -ENOTDIR || r == -EACCES || r == -ELOOP || r == -ENAMETOOLONG;
}

static int find_executable(struct pin *pin, const struct pin_request *request, struct error *error)
{
    const char *program = request->command[0], *path = request->path ? request->path : PIN_DEFAULT_PATH;
    int r = -ENOENT;
    if (strchr(program, '/'))
        r = try_executable(pin, program);
    for (bool more = !strchr(program, '/'); more && is_absence(r);) {
        size_t length = strcspn(path, ":");
        char file[PATH_MAX];
        int n = snprintf(file, sizeof file, "%.*s%s%s", (int)length, path, length ? "/" : "./", program);
        if (n > 0 && (size_t)n < sizeof file)
            r = try_executable(pin, file);
        more = path[length] != 0;
        path += length + 1;
    }
    if (pin->places[PIN_EXECUTABLE].path)
        return 0;
    error_errno(
        error, -r, is_absence(r) ? BLAME_USER : BLAME_SYSTEM, "cannot open the executable %s", program);
    return r < 0 ? r : -ENOENT;
}

/* `path` from the root on, as far as it is known. */
static int from_root(const struct pin *pin, const char *path, char ret[PATH_MAX])
{
    while (path[0] == '.' && path[1] == '/') {
        path += 2;
        path += strspn(path, "/");
    }
    int n = path[0] == '/' ? snprintf(ret, PATH_MAX, "%s", path)
            : strcmp(pin->directory_path, "/") == 0
                ? snprintf(ret, PATH_MAX, "/%s", path)
                : snprintf(ret, PATH_MAX, "%s/%s", pin->directory_path, path);
    return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* The path for an interpreter: the name as it is, since a script may go by it, in a directory without links.
 * What holds none stays as it was written. */
static char *run_path(const struct pin *pin)
{
    const char *found = pin->places[PIN_EXECUTABLE].path;
    char full[PATH_MAX], real[PATH_MAX], *run = NULL;
    if (from_root(pin, found, full) < 0)
        return NULL;
    char *slash = strrchr(full, '/');
    *slash = 0;
    if (!realpath(full[0] ? full : "/", real))
        return NULL;
    if (strcmp(real, full) == 0)
        return strdup(found);
    return asprintf(&run, "%s/%s", strcmp(real, "/") == 0 ? "" : real, slash + 1) < 0 ? NULL : run;
}

static int resolve(struct pin *pin, struct error *error)
{
    char full[PATH_MAX];
    pin->run = run_path(pin);
    if (pin->run && from_root(pin, pin->places[PIN_EXECUTABLE].path, full) == 0)
        pin->resolved = realpath(full, NULL);
    if (!pin->run || !pin->resolved) { /* it was there a moment ago */
        error_errno(error, errno, BLAME_SYSTEM, "cannot resolve %s", pin->places[PIN_EXECUTABLE].path);
        return -EAGAIN;
    }
    struct pin_identity pinned = pin_identity_of(pin->fds[PIN_EXECUTABLE]);
    struct pin_identity by_name[] = {
        identity_at(pin->fds[PIN_DIRECTORY], pin->run), identity_at(AT_FDCWD, pin->resolved)};
    if (!is_same_file(&pinned, &by_name[0]) || !is_same_file(&pinned, &by_name[1]))
        return error_set(error, EAGAIN, BLAME_SYSTEM, "%s is being replaced", pin->resolved);
    return 0;
}

/* What the kernel would give to an interpreter, a `#!` file's or binfmt_misc's, isn't. */
static bool is_binary(int fd)
{
    char head[4];
    CLEANUP_FD int readable = pin_digest_reopen(fd);
    return readable < 0 ||
           (pread(readable, head, sizeof head, 0) == sizeof head && memcmp(head, "\177ELF", 4) == 0);
}

static int add_file(struct pin *pin, const char *path, const struct pin_identity *identity)
{
    struct pin_file *files = realloc(pin->files, (pin->file_count + 1) * sizeof *files);
    if (!files)
        return -ENOMEM;
    pin->files = files;
    files[pin->file_count] =
        (struct pin_file){.path = strdup(path), .identity = *identity, .looked = *identity};
    if (!files[pin->file_count].path)
        return -ENOMEM;
    pin->file_count++;
    return 0;
}

static int add_files(struct pin *pin, const struct pin_request *request, struct error *error)
{
    struct pin_identity executable = pin_identity_of(pin->fds[PIN_EXECUTABLE]);
    int r = add_file(pin, pin->run, &executable);
    if (r == 0)
        pin->files[0].tried = pin->by_descriptor;
    for (char *const *argument = request->command + 1; r == 0 && *argument && pin->file_count < PIN_FILES_MAX;
         argument++) {
        struct stat st;
        if (**argument == 0 || **argument == '-')
            continue;
        if (fstatat(pin->fds[PIN_DIRECTORY], *argument, &st, 0) == 0 && S_ISREG(st.st_mode)) {
            struct pin_identity identity = identify(&st);
            r = add_file(pin, *argument, &identity);
        }
    }
    return r < 0 ? error_set(error, ENOMEM, BLAME_OURS, "out of memory") : 0;
}

static int fill(struct pin *pin, const struct pin_request *request, struct error *error)
{
    pin->command = strdup(request->command[0]);
    if (!pin->command || (request->cwd && !(pin->places[PIN_DIRECTORY].path = strdup(request->cwd))))
        return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
    int r = open_directory(pin, request, error);
    if (r == 0)
        r = find_executable(pin, request, error);
    if (r == 0)
        r = resolve(pin, error);
    if (r < 0)
        return r;
    pin->places[PIN_EXECUTABLE].looked = pin_identity_of(pin->fds[PIN_EXECUTABLE]);
    pin->places[PIN_DIRECTORY].looked = pin->directory;
    pin->by_descriptor = is_binary(pin->fds[PIN_EXECUTABLE]);
    return add_files(pin, request, error);
}

int pin_make(const struct pin_request *request, struct pin **ret_pin, struct error *error)
{
    int r = -EAGAIN;
    for (int i = 0; i < TRIES && r == -EAGAIN; i++) {
        struct pin *pin = calloc(1, sizeof *pin);
        if (!pin)
            return error_set(error, ENOMEM, BLAME_OURS, "out of memory");
        pin->fds[PIN_EXECUTABLE] = pin->fds[PIN_DIRECTORY] = -1;
        r = fill(pin, request, error);
        if (r == 0)
            *ret_pin = pin;
        else
            pin_free(pin);
    }
    return r;
}

void pin_free(struct pin *pin)
{
    if (!pin)
        return;
    for (int i = 0; i < PIN_PLACE_COUNT; i++) {
        fd_close(&pin->fds[i]);
        free(pin->places[i].path);
    }
    for (size_t i = 0; i < pin->file_count; i++)
        free(pin->files[i].path);
    free(pin->files);
    pin_digest_free(pin->digester);
    free(pin->command);
    free(pin->run);
    free(pin->resolved);
    free(pin->directory_path);
    free(pin);
}

/* ── what has changed ── */

/* The path by which it is still the pinned file, from `directory`; NULL: there is none. */
static const char *path_to_it(const struct pin *pin, int directory)
{
    struct pin_identity pinned = pin_identity_of(pin->fds[PIN_EXECUTABLE]);
    const char *paths[] = {pin->by_descriptor ? pin->places[PIN_EXECUTABLE].path : pin->run, pin->resolved};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct pin_identity there = identity_at(directory, paths[i]);
        if (is_same_file(&pinned, &there))
            return paths[i];
    }
    return NULL;
}

/* What a worker that is started now is given of that file: its number, the pin's, unless it was removed. */
static struct pin_identity look_at_file(const struct pin *pin, const struct pin_file *file)
{
    if (file == pin->files && (pin->by_descriptor || path_to_it(pin, pin->fds[PIN_DIRECTORY])))
        return pin_identity_of(pin->fds[PIN_EXECUTABLE]);
    struct pin_identity there = identity_at(pin->fds[PIN_DIRECTORY], file->path);
    if (file == pin->files && !there.inode)
        there = identity_at(pin->fds[PIN_DIRECTORY], pin->places[PIN_EXECUTABLE].path);
    return there;
}

static void look_at_place(
    struct pin_place *place, const struct pin_identity *there, const struct pin_identity *pinned)
{
    if (!place->path || is_same_file(there, &place->looked))
        return;
    place->looked = *there;
    place->wanted = !is_same_file(there, pinned);
}

void pin_look(struct pin *pin)
{
    struct stat st;
    pin->directory_gone = fstat(pin->fds[PIN_DIRECTORY], &st) == 0 && st.st_nlink == 0;
    for (size_t i = 0; i < pin->file_count; i++) {
        struct pin_file *file = &pin->files[i];
        struct pin_identity there = look_at_file(pin, file);
        if (is_untouched(&there, &file->looked))
            continue;
        file->looked = there;
        file->wanted = !is_untouched(&there, &file->identity);
    }
    struct pin_identity executable = pin_identity_of(pin->fds[PIN_EXECUTABLE]);
    struct pin_identity there = identity_at(pin->fds[PIN_DIRECTORY], pin->places[PIN_EXECUTABLE].path);
    if (is_same_file(&pin->files[0].looked, &executable)) /* else that is what runs */
        look_at_place(&pin->places[PIN_EXECUTABLE], &there, &executable);
    if (pin->places[PIN_DIRECTORY].path && !pin->directory_gone) {
        there = identity_at(AT_FDCWD, pin->places[PIN_DIRECTORY].path);
        look_at_place(&pin->places[PIN_DIRECTORY], &there, &pin->directory);
    }
}

static enum pin_result tell(struct pin_change *ret_change, enum pin_change_kind kind, const char *path)
{
    *ret_change = (struct pin_change){.kind = kind, .path = path};
    return PIN_CHANGED;
}

static enum pin_result finish_file(
    struct pin_file *file, const struct pin_digest *digest, struct pin_change *ret_change)
{
    if (!file->tried) {
        file->tried = true;
        file->digested = digest->known && is_untouched(&digest->identity, &file->identity);
        file->digest = digest->value;
        return PIN_MORE;
    }
    file->wanted = false;
    if (!file->looked.inode)
        return tell(ret_change, PIN_REMOVED, file->path);
    if (digest->known && file->digested && digest->value == file->digest)
        return PIN_MORE;
    return tell(ret_change, is_same_file(&file->looked, &file->identity) ? PIN_OVERWRITTEN : PIN_REPLACED,
        file->path);
}

/* The executable is read by its descriptor as long as that is what runs. */
static struct pin_digester *open_file(const struct pin *pin, const struct pin_file *file)
{
    struct pin_identity executable = pin_identity_of(pin->fds[PIN_EXECUTABLE]);
    if (file == pin->files && is_same_file(&file->looked, &executable))
        return pin_digest_open(pin->fds[PIN_EXECUTABLE], "");
    struct pin_digester *digester = pin_digest_open(pin->fds[PIN_DIRECTORY], file->path);
    if (!digester && file == pin->files)
        digester = pin_digest_open(pin->fds[PIN_DIRECTORY], pin->places[PIN_EXECUTABLE].path);
    return digester;
}

static enum pin_result step_file(struct pin *pin, struct pin_file *file, struct pin_change *ret_change)
{
    struct pin_digest digest = {.known = false};
    bool in_place = file == pin->files && pin->by_descriptor; /* known by size and time alone */
    if (!in_place && (!file->tried || file->looked.inode)) {
        if (!pin->digester)
            pin->digester = open_file(pin, file);
        if (pin->digester && pin_digest_step(pin->digester, PIN_STEP_BYTES, &digest))
            return PIN_MORE;
        pin_digest_free(pin->digester);
        pin->digester = NULL;
    }
    return finish_file(file, &digest, ret_change);
}

enum pin_result pin_step(struct pin *pin, struct pin_change *ret_change)
{
    if (pin->directory_gone && !pin->directory_told) {
        pin->directory_told = true;
        return tell(ret_change, PIN_DIRECTORY_REMOVED, pin->directory_path);
    }
    for (int i = 0; i < PIN_PLACE_COUNT; i++)
        if (pin->places[i].wanted) {
            pin->places[i].wanted = false;
            return tell(ret_change, PIN_ELSEWHERE, pin->places[i].path);
        }
    for (size_t i = 0; i < pin->file_count; i++)
        if (!pin->files[i].tried || pin->files[i].wanted)
            return step_file(pin, &pin->files[i], ret_change);
    return PIN_IDLE;
}

const char *pin_change_text(enum pin_change_kind kind)
{
    static const char *const texts[PIN_CHANGE_COUNT] = {
        [PIN_ELSEWHERE] = "it leads elsewhere now; the generation's workers run what it began with",
        [PIN_OVERWRITTEN] = "it was overwritten in place since the generation began: what is there now runs",
        [PIN_REPLACED] = "it was replaced since the generation began: what is there now runs",
        [PIN_REMOVED] = "it was removed since the generation began",
        [PIN_DIRECTORY_REMOVED] = "the working directory was removed: its configured name is entered"};
    return kind < PIN_CHANGE_COUNT ? texts[kind] : "?";
}

/* ── in the child ── */

int pin_enter(const struct pin *pin, struct error *error)
{
    const char *name = pin->places[PIN_DIRECTORY].path;
    struct stat st;
    if (!name)
        return 0;
    if (fstat(pin->fds[PIN_DIRECTORY], &st) == 0 && st.st_nlink == 0)
        return chdir(name) < 0 ? error_errno(error, errno, BLAME_USER, "cannot enter the directory %s", name)
                               : 0;
    /* By its path first: a user who may not get there must not by the descriptor. */
    if (chdir(pin->directory_path) < 0 && errno == EACCES)
        return error_errno(error, errno, BLAME_USER, "cannot enter the directory %s", name);
    return fchdir(pin->fds[PIN_DIRECTORY]) < 0
               ? error_errno(error, errno, BLAME_USER, "cannot enter the directory %s", name)
               : 0;
}

int pin_execute(const struct pin *pin, char *const argv[], char *const envp[])
{
    struct stat st;
    const char *path = path_to_it(pin, AT_FDCWD);
    /* That it isn't there says that the way to it is open. */
    if (!path && stat(pin->resolved, &st) < 0 && errno == EACCES)
        return EACCES;
    if (!path && pin->by_descriptor)
        execveat(pin->fds[PIN_EXECUTABLE], "", argv, envp, AT_EMPTY_PATH);
    else if (path || stat(pin->run, &st) == 0)
        execve(path ? path : pin->run, argv, envp);
    else
        execve(pin->places[PIN_EXECUTABLE].path, argv, envp);
    return errno;
}
