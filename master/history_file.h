/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The file of the history: FILE, and FILE.1 with what was before. For the process that writes it: everything
 * here waits for the disk. No event loop, no log.
 *
 * One process has it at a time (flock). A line is one write(2) at the end and in the file for good when
 * history_file_append() returns 0; what was written of a line that did not fit is taken back. A last line
 * without its newline, which a power cut leaves, is repaired when the file is opened: if it is a whole record
 * the newline is put behind it, else it is cut off.
 */
#ifndef GAPLESS_MASTER_HISTORY_FILE_H
#define GAPLESS_MASTER_HISTORY_FILE_H

#include "ipc/error.h"

#include <limits.h>
#include <stdint.h>

struct history_file {
    int fd;
    char path[PATH_MAX];
    uint64_t limit; /* bytes of one file */
    uint64_t size;
    uint64_t last; /* number of its last record; 0: there is none */
};

struct history_repair {
    uint64_t cut;       /* bytes of a torn line; 0: none */
    uint64_t completed; /* 1: the last line lacked its newline alone */
};

/* Opens or makes the file (0640) and directories that it lacks (0755), and repairs it. Errors: -EWOULDBLOCK
 * (another process has it), -EINVAL (not a regular file), -ENAMETOOLONG, and what the system calls gave. */
int history_file_open(const char *path, uint64_t limit, struct history_file *ret_file,
    struct history_repair *ret_repair, struct error *error);

/* Appends a whole line with its newline; before that FILE becomes FILE.1 if it would be longer than the
 * limit. Does nothing for a number that is in the file already. On failure the file is as before. */
int history_file_append(struct history_file *file, uint64_t number, const char *line, struct error *error);

void history_file_close(struct history_file *file);

/* The path of FILE.1. -ENAMETOOLONG. */
int history_file_previous(const char *path, char ret_path[PATH_MAX]);

#endif
