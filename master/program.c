/* SPDX-License-Identifier: BSD-2-Clause */
#include "master/program.h"

#include "ipc/fd.h"
#include "master/pin.h"
#include "master/pin_digest.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

/* What the kernel looks at (BINPRM_BUF_SIZE), and how deep `#!` files may name each other. */
#define HEAD 256
#define DEPTH_MAX 5
#define PHDRS_MAX 256

#if defined(__x86_64__)
#define OWN_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OWN_MACHINE EM_AARCH64
#elif defined(__riscv)
#define OWN_MACHINE EM_RISCV
#elif defined(__s390x__)
#define OWN_MACHINE EM_S390
#elif defined(__powerpc64__)
#define OWN_MACHINE EM_PPC64
#else
#define OWN_MACHINE EM_NONE /* not known */
#endif

/* Whether binfmt_misc knows other programs than the kernel itself does. */
static bool has_handlers(void)
{
    DIR *directory = opendir("/proc/sys/fs/binfmt_misc");
    bool any = false;
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        any = any || (entry->d_name[0] != '.' && strcmp(entry->d_name, "register") != 0 &&
                         strcmp(entry->d_name, "status") != 0);
    if (directory)
        closedir(directory);
    return any;
}

static int no_program(const char *name, const char *why, struct program *program, struct error *error)
{
    if (!has_handlers())
        return error_set(error, ENOEXEC, BLAME_USER, "cannot execute %s: %s", name, why);
    snprintf(program->doubt, sizeof program->doubt, "%s: only what is registered with binfmt_misc can run it",
        why);
    return 0;
}

/* What execve(2) asks of a file, whatever is in it. 0 or errno. */
static int may_execute(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return errno;
    if (!S_ISREG(st.st_mode))
        return EISDIR;
    char name[32];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd); /* AT_EMPTY_PATH: Linux 5.8 */
    return faccessat(AT_FDCWD, name, X_OK, AT_EACCESS) < 0 ? errno : 0;
}

static const char *reason(int code)
{
    switch (code) {
    case EISDIR:
        return "it is not a regular file";
    case EACCES:
        return "permission denied (is it executable for that user?)";
    case ENOENT:
        return "no such file";
    default:
        return strerrordesc_np(code) ? strerrordesc_np(code) : "unknown error";
    }
}

/* EISDIR is a word of this file alone. */
static int refuse(const char *name, int code, struct error *error)
{
    return error_set(
        error, code == EISDIR ? EACCES : code, BLAME_USER, "cannot execute %s: %s", name, reason(code));
}

static int refuse_interpreter(const char *name, const char *interpreter, int code, struct error *error)
{
    if (code == ENOENT)
        return error_set(error, ENOEXEC, BLAME_USER,
            "cannot execute %s: the interpreter that it names does not exist (%s)", name, interpreter);
    return error_set(error, code == EISDIR ? EACCES : code, BLAME_USER,
        "cannot execute %s: the interpreter that it names (%s): %s", name, interpreter, reason(code));
}

/* ── ELF ── */

static int check_loader(const char *name, struct program *program, struct error *error)
{
    CLEANUP_FD int fd = open(program->interpreter, O_PATH | O_CLOEXEC);
    int code = fd < 0 ? errno : may_execute(fd);
    return code ? refuse_interpreter(name, program->interpreter, code, error) : 0;
}

static int read_loader(
    int fd, const Elf64_Phdr *header, const char *name, struct program *program, struct error *error)
{
    size_t size = header->p_filesz;
    if (size < 2 || size > sizeof program->interpreter ||
        pread(fd, program->interpreter, size, (off_t)header->p_offset) != (ssize_t)size ||
        program->interpreter[size - 1] != '\0') {
        program->interpreter[0] = '\0';
        return error_set(error, ENOEXEC, BLAME_USER,
            "cannot execute %s: it is not a program (its interpreter's name is broken)", name);
    }
    return check_loader(name, program, error);
}

/* Of a copy that was broken off: the kernel maps what isn't there, and the process dies of it. */
static void look_for_end(int fd, const Elf64_Phdr *header, struct program *program)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return;
    uint64_t size = (uint64_t)st.st_size;
    if (header->p_offset > size || header->p_filesz > size - header->p_offset)
        snprintf(program->doubt, sizeof program->doubt,
            "it is cut off: it has %" PRIu64 " bytes, and says that it has more", size);
}

static int check_elf(
    int fd, const char head[HEAD], const char *name, struct program *program, struct error *error)
{
    Elf64_Ehdr elf;
    Elf64_Phdr headers[PHDRS_MAX];
    memcpy(&elf, head, sizeof elf);
    if (elf.e_ident[EI_CLASS] == ELFCLASS32)
        return 0; /* a matter of the kernel's configuration */
    size_t size = elf.e_phnum * sizeof *headers;
    if (elf.e_ident[EI_CLASS] == ELFCLASS64 && OWN_MACHINE != EM_NONE && elf.e_machine != OWN_MACHINE &&
        (elf.e_type == ET_EXEC || elf.e_type == ET_DYN))
        return no_program(name, "it is for another kind of processor", program, error);
    if (elf.e_ident[EI_CLASS] != ELFCLASS64 || (elf.e_type != ET_EXEC && elf.e_type != ET_DYN) ||
        !elf.e_phnum || elf.e_phnum > PHDRS_MAX || elf.e_phentsize != sizeof *headers ||
        pread(fd, headers, size, (off_t)elf.e_phoff) != (ssize_t)size)
        return error_set(error, ENOEXEC, BLAME_USER,
            "cannot execute %s: it is not a program (exec format error: its ELF header is broken)", name);
    for (unsigned i = 0; i < elf.e_phnum; i++) {
        if (headers[i].p_type == PT_LOAD)
            look_for_end(fd, &headers[i], program);
        int r = headers[i].p_type == PT_INTERP && !program->interpreter[0]
                    ? read_loader(fd, &headers[i], name, program, error)
                    : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

/* ── `#!` ── */

static int check_contents(
    int fd, const char *name, unsigned depth, struct program *program, struct error *error);

/* Of a line that is longer than what the kernel reads it takes the beginning, if the interpreter's name is
 * whole there. */
static bool read_interpreter(const char head[HEAD], size_t length, char ret_path[PATH_MAX])
{
    size_t from = 2, to;
    while (from < length && (head[from] == ' ' || head[from] == '\t'))
        from++;
    for (to = from; to < length && !strchr(" \t\n", head[to]);)
        to++;
    if (from == to || (to == HEAD))
        return false;
    snprintf(ret_path, PATH_MAX, "%.*s", (int)(to - from), head + from);
    return true;
}

static int check_script(const char head[HEAD], size_t length, const char *name, unsigned depth,
    struct program *program, struct error *error)
{
    char path[PATH_MAX];
    if (!read_interpreter(head, length, path))
        return error_set(
            error, ENOEXEC, BLAME_USER, "cannot execute %s: its first line names no interpreter", name);
    if (depth == DEPTH_MAX)
        return error_set(
            error, ELOOP, BLAME_USER, "cannot execute %s: too many interpreters of interpreters", name);
    CLEANUP_FD int fd = open(path, O_PATH | O_CLOEXEC);
    int code = fd < 0 ? errno : may_execute(fd);
    if (code)
        return refuse_interpreter(name, path, code, error);
    struct program interpreter = {.path = ""};
    int r = check_contents(fd, path, depth + 1, &interpreter, error);
    if (r < 0)
        return error_prefix(error, "cannot execute %s", name);
    snprintf(program->interpreter, sizeof program->interpreter, "%s", path);
    memcpy(program->doubt, interpreter.doubt, sizeof program->doubt);
    return 0;
}

static int check_contents(
    int fd, const char *name, unsigned depth, struct program *program, struct error *error)
{
    char head[HEAD] = {0};
    CLEANUP_FD int readable = pin_digest_reopen(fd);
    ssize_t n = readable < 0 ? -1 : pread(readable, head, sizeof head, 0);
    if (n < 0)
        return 0; /* executable, and not readable: that is allowed */
    if (n >= 2 && memcmp(head, "#!", 2) == 0)
        return check_script(head, (size_t)n, name, depth, program, error);
    if (n >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0)
        return check_elf(readable, head, name, program, error);
    return no_program(name,
        n ? "it is not a program (exec format error): it begins with neither ELF nor #!"
          : "it is not a program: it is empty",
        program, error);
}

/* ── the file ── */

const char *program_path(char *const *env)
{
    const char *path = getenv("PATH");
    for (char *const *item = env; item && *item; item++)
        if (strncmp(*item, "PATH=", 5) == 0)
            path = *item + 5;
    return path;
}

int program_check(int fd, const char *name, struct program *ret_program, struct error *error)
{
    ret_program->interpreter[0] = ret_program->doubt[0] = '\0';
    snprintf(ret_program->path, sizeof ret_program->path, "%s", name);
    int code = may_execute(fd);
    return code ? refuse(name, code, error) : check_contents(fd, name, 0, ret_program, error);
}

static int check_path(const char *path, struct program *ret_program, struct error *error)
{
    CLEANUP_FD int fd = open(path, O_PATH | O_CLOEXEC);
    return fd < 0 ? refuse(path, errno, error) : program_check(fd, path, ret_program, error);
}

/* As child_execute(): what a file in an earlier directory gave counts more than that there is none later. */
int program_find(const char *name, const char *path, struct program *ret_program, struct error *error)
{
    if (strchr(name, '/'))
        return check_path(name, ret_program, error);
    int r = error_set(error, ENOENT, BLAME_USER, "cannot execute %s: no such command in PATH", name);
    for (path = path ? path : PIN_DEFAULT_PATH; path; path = *path ? path + 1 : NULL) {
        size_t length = strcspn(path, ":");
        char file[PATH_MAX];
        struct error here;
        int n = snprintf(file, sizeof file, "%.*s%s%s", (int)length, path, length ? "/" : "./", name);
        int tried = n > 0 && (size_t)n < sizeof file ? check_path(file, ret_program, &here) : -ENOENT;
        if (tried == 0)
            return 0;
        if (tried != -ENOENT && tried != -ENOTDIR) {
            r = tried;
            if (error)
                *error = here;
        }
        path += length;
    }
    return r;
}
