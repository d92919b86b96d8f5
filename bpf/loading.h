/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the loaders of programs share: why the kernel refused.
 */
#ifndef GAPLESS_BPF_LOADING_H
#define GAPLESS_BPF_LOADING_H

#include "ipc/error.h"
#include "ipc/fd.h"

#include <bpf/libbpf.h>
#include <stddef.h>

/* Between these two, what libbpf complains about is kept in place of being printed. */
libbpf_print_fn_t loading_begin(void);
void loading_end(libbpf_print_fn_t before);

/* Fills *error with what the kernel said (code: an errno value), in libbpf's words where it had any, and
 * returns -errno. `needs`: the capabilities that are needed. */
int loading_refused(int code, const char *what, const char *needs, struct error *error);

/* A duplicate, close-on-exec; -errno. */
int loading_keep(int fd);

/* Takes exactly `count` descriptors that were kept for a later master. -EINVAL: it were others; those that
 * were taken are in ret_fds all the same. */
int loading_adopt(struct fd_list *fds, unsigned count, int *ret_fds, struct error *error);

/* An array map that has BPF_F_MMAPABLE; NULL and errno. */
void *loading_map_array(int fd, size_t size);

#endif
