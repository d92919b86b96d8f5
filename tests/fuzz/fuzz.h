/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every fuzz target is: one function that gets bytes. With -Dfuzz=true it is linked with libFuzzer; else
 * with driver.c, which runs it over the files of its corpus as an ordinary test.
 */
#ifndef GAPLESS_TESTS_FUZZ_H
#define GAPLESS_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Returns 0. What it finds wrong it says by abort(). */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) __attribute__((visibility("default")));

/* The bytes as a string: up to the first NUL, the caller's to free. Ends the program where there is no
 * memory. */
char *fuzz_text(const uint8_t *data, size_t size);

#endif
