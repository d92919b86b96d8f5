/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How much memory a process has, with all that it has started. Reads /proc, which makes nobody wait: a
 * process' counters are read without its locks.
 */
#ifndef GAPLESS_MASTER_PROCESS_MEMORY_H
#define GAPLESS_MASTER_PROCESS_MEMORY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Resident bytes of the process and its descendants (pages that they share count for each of them). One that
 * has left its parents (a daemon's double fork) isn't found. False: there is no such process, or /proc has no
 * children (CONFIG_PROC_CHILDREN): then nothing is known. */
bool process_memory(pid_t pid, uint64_t *ret_bytes);

#endif
