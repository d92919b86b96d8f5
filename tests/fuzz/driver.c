/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs a fuzz target once over each file of a directory, and over its beginnings, without libFuzzer: DRIVER
 * CORPUS. */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_MAX 65536
/* Each input is also cut after so many equal parts. */
#define CUTS 64

static int run_file(const char *directory, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *in = fopen(path, "r");
    if (!in) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    static uint8_t data[INPUT_MAX];
    size_t size = fread(data, 1, sizeof data, in);
    fclose(in);
    for (size_t i = 0; i <= CUTS; i++) {
        /* On the heap and of its size, so that reading beyond the end is seen. */
        size_t part = size * i / CUTS;
        uint8_t *copy = malloc(part ? part : 1);
        if (!copy)
            return -1;
        memcpy(copy, data, part);
        LLVMFuzzerTestOneInput(copy, part);
        free(copy);
    }
    return 0;
}

int main(int argc, char *argv[])
{
    DIR *directory = argc == 2 ? opendir(argv[1]) : NULL;
    if (!directory) {
        fprintf(stderr, "usage: %s CORPUS\n", argv[0]);
        return 2;
    }
    int count = 0, result = 0;
    for (struct dirent *entry; result == 0 && (entry = readdir(directory));) {
        if (entry->d_name[0] == '.')
            continue;
        result = run_file(argv[1], entry->d_name);
        count++;
    }
    closedir(directory);
    printf("%d inputs\n", count);
    return result == 0 && count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
