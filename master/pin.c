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
        (struct pin_file){.path = strdup(path), .identity = *identity, .known = {.looked = *identity}};
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
        pin->files[0].known.tried = pin->by_descriptor; /* known by size and time alone */
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
    free(pin->command);
    free(pin->run);
    free(pin->resolved);
    free(pin->directory_path);
    free(pin);
}

static char *copy_text(const char *text, bool *whole)
{
    char *copy = text ? strdup(text) : NULL;
    *whole = *whole && (copy || !text);
    return copy;
}

static void copy_files(const struct pin *from, struct pin *pin, bool *whole)
{
    pin->files = calloc(from->file_count + 1, sizeof *pin->files);
    *whole = *whole && pin->files;
    for (size_t i = 0; pin->files && i < from->file_count; i++) {
        pin->files[i] = from->files[i];
        pin->files[i].path = copy_text(from->files[i].path, whole);
        pin->file_count++;
    }
}

int pin_copy(const struct pin *from, struct pin **ret_pin)
{
    struct pin *pin = malloc(sizeof *pin);
    bool whole = true;
    int r = 0;
    if (!pin)
        return -ENOMEM;
    *pin = *from;
    pin->files = NULL;
    pin->file_count = 0;
    for (int i = 0; i < PIN_PLACE_COUNT; i++) {
        pin->places[i].path = copy_text(from->places[i].path, &whole);
        pin->fds[i] = fd_dup(from->fds[i]);
        if (pin->fds[i] < 0)
            r = pin->fds[i];
    }
    pin->command = copy_text(from->command, &whole);
    pin->run = copy_text(from->run, &whole);
    pin->resolved = copy_text(from->resolved, &whole);
    pin->directory_path = copy_text(from->directory_path, &whole);
    copy_files(from, pin, &whole);
    if (!whole || r < 0) {
        pin_free(pin);
        return r < 0 ? r : -ENOMEM;
    }
    *ret_pin = pin;
    return 0;
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

/* Whether the name leads elsewhere since it was last looked at. */
static bool look_at_place(
    const struct pin_identity *there, const struct pin_identity *pinned, struct pin_identity *looked)
{
    if (is_same_file(there, looked))
        return false;
    *looked = *there;
    return !is_same_file(there, pinned);
}

static void tell(struct pin_findings *findings, enum pin_change_kind kind, unsigned index)
{
    findings->changes[findings->change_count++] = (struct pin_change){.kind = kind, .index = index};
}

bool pin_is_homeless(const struct pin *pin)
{
    struct stat st;
    return fstat(pin->fds[PIN_DIRECTORY], &st) == 0 && st.st_nlink == 0;
}

static void look_at_places(const struct pin *pin, struct pin_findings *findings)
{
    const char *cwd = pin->places[PIN_DIRECTORY].path;
    bool gone = pin_is_homeless(pin);
    if (gone && !findings->directory_told) {
        findings->directory_told = true;
        tell(findings, PIN_DIRECTORY_REMOVED, PIN_DIRECTORY);
    }
    struct pin_identity executable = pin_identity_of(pin->fds[PIN_EXECUTABLE]);
    struct pin_identity there = identity_at(pin->fds[PIN_DIRECTORY], pin->places[PIN_EXECUTABLE].path);
    if (is_same_file(&findings->files[0].looked, &executable) /* else that is what runs */
        && look_at_place(&there, &executable, &findings->places[PIN_EXECUTABLE]))
        tell(findings, PIN_ELSEWHERE, PIN_EXECUTABLE);
    if (!cwd || gone)
        return;
    there = identity_at(AT_FDCWD, cwd);
    if (look_at_place(&there, &pin->directory, &findings->places[PIN_DIRECTORY]))
        tell(findings, PIN_ELSEWHERE, PIN_DIRECTORY);
}

/* The executable is read by its descriptor as long as that is what runs. */
static bool read_file(
    const struct pin *pin, size_t index, const struct pin_identity *there, struct pin_digest *ret_digest)
{
    struct pin_identity executable = pin_identity_of(pin->fds[PIN_EXECUTABLE]);
    if (index == 0 && is_same_file(there, &executable))
        return pin_digest_make(pin->fds[PIN_EXECUTABLE], "", ret_digest);
    return pin_digest_make(pin->fds[PIN_DIRECTORY], pin->files[index].path, ret_digest) ||
           (index == 0 &&
               pin_digest_make(pin->fds[PIN_DIRECTORY], pin->places[PIN_EXECUTABLE].path, ret_digest));
}

/* What is `there` now isn't what was pinned. */
static bool is_changed(const struct pin *pin, size_t index, const struct pin_known *known,
    const struct pin_identity *there, enum pin_change_kind *ret_kind)
{
    const struct pin_identity *identity = &pin->files[index].identity;
    struct pin_digest digest;
    if (is_untouched(there, identity))
        return false;
    if (there->inode && known->digested && read_file(pin, index, there, &digest) &&
        digest.value == known->digest)
        return false;
    *ret_kind = !there->inode ? PIN_REMOVED : is_same_file(there, identity) ? PIN_OVERWRITTEN : PIN_REPLACED;
    return true;
}

bool pin_is_unread(const struct pin *pin)
{
    for (size_t i = 0; i < pin->file_count; i++)
        if (!pin->files[i].known.tried)
            return true;
    return false;
}

static void make_digest(const struct pin *pin, size_t index, struct pin_known *known)
{
    const struct pin_identity *identity = &pin->files[index].identity;
    struct pin_digest digest;
    known->tried = true;
    known->digested =
        read_file(pin, index, &known->looked, &digest) && is_untouched(&digest.identity, identity);
    known->digest = digest.value;
}

void pin_examine(const struct pin *pin, bool look, struct pin_findings *ret_findings)
{
    bool touched[PIN_FILES_MAX] = {false};
    *ret_findings = (struct pin_findings){.directory_told = pin->directory_told};
    for (int i = 0; i < PIN_PLACE_COUNT; i++)
        ret_findings->places[i] = pin->places[i].looked;
    for (size_t i = 0; i < pin->file_count; i++) {
        struct pin_known *known = &ret_findings->files[i];
        *known = pin->files[i].known;
        if (!look)
            continue;
        struct pin_identity there = look_at_file(pin, &pin->files[i]);
        touched[i] = !is_untouched(&there, &known->looked);
        known->looked = there;
    }
    if (look)
        look_at_places(pin, ret_findings);
    for (size_t i = 0; i < pin->file_count; i++) {
        struct pin_known *known = &ret_findings->files[i];
        enum pin_change_kind kind;
        if (!known->tried)
            make_digest(pin, i, known);
        if (touched[i] && is_changed(pin, i, known, &known->looked, &kind))
            tell(ret_findings, kind, (unsigned)i);
    }
}

void pin_learn(struct pin *pin, const struct pin_findings *findings)
{
    pin->directory_told = findings->directory_told;
    for (int i = 0; i < PIN_PLACE_COUNT; i++)
        pin->places[i].looked = findings->places[i];
    for (size_t i = 0; i < pin->file_count; i++)
        pin->files[i].known = findings->files[i];
}

bool pin_is_lost(const struct pin *pin, struct pin_change *ret_change)
{
    for (size_t i = 0; i < pin->file_count; i++) {
        struct pin_identity there = look_at_file(pin, &pin->files[i]);
        ret_change->index = (unsigned)i;
        if (is_changed(pin, i, &pin->files[i].known, &there, &ret_change->kind))
            return true;
    }
    return false;
}

const char *pin_change_path(const struct pin *pin, const struct pin_change *change)
{
    if (change->kind == PIN_DIRECTORY_REMOVED)
        return pin->directory_path;
    return change->kind == PIN_ELSEWHERE ? pin->places[change->index].path : pin->files[change->index].path;
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

const char *pin_lost_text(enum pin_change_kind kind)
{
    static const char *const texts[PIN_CHANGE_COUNT] = {[PIN_ELSEWHERE] = "leads elsewhere",
        [PIN_OVERWRITTEN] = "was overwritten in place",
        [PIN_REPLACED] = "was replaced",
        [PIN_REMOVED] = "was removed",
        [PIN_DIRECTORY_REMOVED] = "was removed"};
    return kind < PIN_CHANGE_COUNT ? texts[kind] : "?";
}

/* ── in the child ── */

int pin_enter(const struct pin *pin, struct error *error)
{
    const char *name = pin->places[PIN_DIRECTORY].path;
    if (!name)
        return 0;
    if (pin_is_homeless(pin))
        return chdir(name) < 0 ? error_errno(error, errno, BLAME_USER, "cannot enter the directory %s", name)
                               : 0;
    /* By its path first: a user who may not get there must not by the descriptor. */
    if (chdir(pin->directory_path) < 0 && errno == EACCES)
        return error_errno(error, errno, BLAME_USER, "cannot enter the directory %s", name);
    return fchdir(pin->fds[PIN_DIRECTORY]) < 0
               ? error_errno(error, errno, BLAME_USER, "cannot enter the directory %s", name)
               : 0;
}

int pin_find(const struct pin *pin, const char **ret_path)
{
    struct stat st;
    *ret_path = path_to_it(pin, AT_FDCWD);
    if (*ret_path)
        return 0;
    /* That it isn't there says that the way to it is open. */
    if (stat(pin->resolved, &st) < 0 && errno == EACCES)
        return -EACCES;
    if (!pin->by_descriptor)
        *ret_path = stat(pin->run, &st) == 0 ? pin->run : pin->places[PIN_EXECUTABLE].path;
    return 0;
}

int pin_execute(const struct pin *pin, char *const argv[], char *const envp[])
{
    const char *path;
    int r = pin_find(pin, &path);
    if (r < 0)
        return -r;
    if (path)
        execve(path, argv, envp);
    else
        execveat(pin->fds[PIN_EXECUTABLE], "", argv, envp, AT_EMPTY_PATH);
    return errno;
}
