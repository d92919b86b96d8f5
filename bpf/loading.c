/* SPDX-License-Identifier: BSD-2-Clause */
#include "bpf/loading.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* The first thing that libbpf complained about: the only place where it says why the kernel refused. */
static char complaint[256];

static __attribute__((format(printf, 2, 0))) int listen_to_libbpf(
    enum libbpf_print_level level, const char *format, va_list arguments)
{
    if (level == LIBBPF_WARN && !complaint[0]) {
        vsnprintf(complaint, sizeof complaint, format, arguments);
        complaint[strcspn(complaint, "\n")] = 0;
    }
    return 0;
}

libbpf_print_fn_t loading_begin(void)
{
    complaint[0] = 0;
    return libbpf_set_print(listen_to_libbpf);
}

void loading_end(libbpf_print_fn_t before)
{
    libbpf_set_print(before);
}

int loading_refused(int code, const char *what, const char *needs, struct error *error)
{
    if (code == EPERM || code == EACCES)
        return error_set(error, EPERM, BLAME_SYSTEM, "%s: not permitted (%s are needed)", what, needs);
    return error_set(
        error, code, BLAME_SYSTEM, "%s: %s%s%s", what, strerror(code), complaint[0] ? ": " : "", complaint);
}

int loading_keep(int fd)
{
    int kept = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return kept < 0 ? -errno : kept;
}

int loading_adopt(struct fd_list *fds, unsigned count, int *ret_fds, struct error *error)
{
    if (fds->count != count)
        return error_set(
            error, EINVAL, BLAME_OURS, "%u descriptors were kept instead of %u", fds->count, count);
    for (unsigned i = 0; i < count; i++)
        ret_fds[i] = fd_list_take(fds, i);
    return 0;
}

void *loading_map_array(int fd, size_t size)
{
    void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return mapped == MAP_FAILED ? NULL : mapped;
}
