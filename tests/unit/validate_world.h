/* SPDX-License-Identifier: BSD-2-Clause */
/* A validation with its loop, in a directory of its own, and what it says. */
#ifndef GAPLESS_TESTS_VALIDATE_WORLD_H
#define GAPLESS_TESTS_VALIDATE_WORLD_H

#include "master/config.h"
#include "master/master.h"
#include "master/validate.h"

#include <stdbool.h>
#include <sys/stat.h>

struct validate_world {
    char directory[64];
    char *command[3];
    char *check[4];
    struct master master;
    struct config_service service;
    struct validate_request request;
    struct validation *validation;
    unsigned done; /* how often that was called */
    bool failed;
    struct error failure;
    char notes[4096], warnings[4096]; /* a line each */
    unsigned descriptors;             /* before it began */
};

extern struct validate_world world;

int validate_set_up(void **state);
int validate_tear_down(void **state);

/* Good for a few calls. */
const char *at(const char *name);
void write_file(const char *name, const char *text, mode_t mode);
/* `name` without a slash is the directory's own. */
void begin(const char *name);
void finish(void);
void assert_valid(const char *name);
/* What the failure says. */
void assert_invalid(const char *name, const char *words);
void assert_nothing_left(void);

#endif
