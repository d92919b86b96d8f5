/* SPDX-License-Identifier: BSD-2-Clause */
/* gapless: which verb it is. */
#include "cli/verb.h"
#include "gapless_config.h"
#include "master/master.h"
#include "master/spelling.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static int verb_help(int argc, char *const argv[]);
static int verb_master(int argc, char *const argv[]);

struct verb {
    const char *name;
    const char *summary; /* NULL: not for people */
    int (*run)(int argc, char *const argv[]);
};

static const struct verb verbs[] = {
    {"run", "run services in the foreground; also the entrypoint of a container", verb_run},
    {"upgrade", "start the new version beside the old one and let it take over", verb_upgrade},
    {"rollback", "go back to the version before", verb_rollback},
    {"restart", "replace the workers one by one, the same version", verb_restart},
    {"stop", "let the workers finish what they have begun, and stop", verb_stop},
    {"status", "show services, generations and workers", verb_status},
    {"history", "show what happened: upgrades, rollbacks, crashes, refusals, starts and stops", verb_history},
    {"check", "say whether a configuration is right", verb_check},
    {"doctor", "say what this host can do, by trying it", verb_doctor},
    {"help", NULL, verb_help},
    {"master", NULL, verb_master},
};

static void print_help(FILE *out)
{
    fputs("usage: gapless VERB [OPTION…]\n"
          "\n"
          "Restarts a network server without anyone noticing.\n"
          "\n",
        out);
    for (size_t i = 0; i < COUNT(verbs); i++)
        if (verbs[i].summary)
            fprintf(out, "  %-8s  %s\n", verbs[i].name, verbs[i].summary);
    fputs("\n"
          "gapless VERB --help tells about a verb, gapless --version which version this is.\n",
        out);
}

static int verb_help(int argc, char *const argv[])
{
    print_help(stdout);
    return VERB_DONE;
}

/* `gapless master FD …`: how the keeper starts the master. */
static int verb_master(int argc, char *const argv[])
{
    char *end = NULL;
    errno = 0;
    long fd = argc < 1 ? -1 : strtol(argv[0], &end, 10);
    if (!end || end == argv[0] || *end || errno || fd < 3 || fd > INT_MAX) {
        fputs("gapless master: this is for \"gapless run\" to start\n", stderr);
        return VERB_USAGE;
    }
    return master_main((int)fd, argc - 1, argv + 1);
}

static int unknown_verb(const char *word)
{
    const char *names[COUNT(verbs)] = {0};
    for (size_t i = 0; i < COUNT(verbs); i++)
        names[i] = verbs[i].summary ? verbs[i].name : NULL;
    fprintf(stderr, "gapless: there is no %s \"%s\"%s\n", word[0] == '-' ? "option" : "verb", word,
        spelling_hint(word, "", names, COUNT(verbs)).text);
    return VERB_USAGE;
}

int main(int argc, char *argv[])
{
    if (argc < 2) {
        print_help(stderr);
        return VERB_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("gapless " GAPLESS_VERSION);
        return VERB_DONE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return verb_help(0, NULL);
    for (size_t i = 0; i < COUNT(verbs); i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return verbs[i].run(argc - 2, argv + 2);
    return unknown_verb(argv[1]);
}
