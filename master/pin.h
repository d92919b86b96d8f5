/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pin: what a generation runs, held so that a worker which is started again later runs the same although
 * names lead elsewhere meanwhile. Made when the generation is, before its first worker.
 *
 * It holds two O_PATH descriptors: the executable, found as execvp(3) would from the service's directory and
 * PATH, and that directory, symbolic links (`current`) resolved. A binary (ELF, or what can't be read) is
 * executed by its path while that leads to it, so that nothing is different then, and by the descriptor
 * once the file was replaced. A `#!` file can't be: its interpreter is given a path, and opens that. It is
 * executed by its path with the links in the directory part resolved, and known by a digest, as are the
 * regular files that the command's arguments name: contents that have changed can't be had again, but can be
 * told.
 *
 * Used by the master's process; pin_enter() and pin_execute() in the child that becomes the worker, as the
 * service's user: whoever couldn't reach the file or the directory by its path is refused, pin or none.
 * No event loop, no log: the glue is pinning.h. docs/pin.md says what is pinned and what can't be.
 */
#ifndef GAPLESS_MASTER_PIN_H
#define GAPLESS_MASTER_PIN_H

#include "ipc/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of a larger file the first and the last PIN_DIGEST_END bytes and the size are digested. */
#define PIN_DIGEST_WHOLE (64 << 20)
#define PIN_DIGEST_END (8 << 20)
/* What one pin_step() reads at most. */
#define PIN_STEP_BYTES (1 << 20)
/* The executable, and so many arguments that name files; further ones are not looked at. */
#define PIN_FILES_MAX 17

/* All zero: there is no such file. */
struct pin_identity {
    uint64_t device, inode, size;
    int64_t modified_ns;
};

struct pin_file {
    char *path; /* as the command has it, relative to the directory; of the executable: `run` */
    struct pin_identity identity; /* when the pin was made */
    struct pin_identity looked;   /* when it was last looked at */
    uint64_t digest;              /* of what `identity` names */
    bool digested;
    bool tried;  /* no digest is to be made any more */
    bool wanted; /* what is there is to be compared */
};

/* A name that the service is configured with: leading elsewhere changes nothing for what is pinned. */
struct pin_place {
    char *path; /* NULL: none */
    struct pin_identity looked;
    bool wanted; /* to be told */
};

enum { PIN_EXECUTABLE, PIN_DIRECTORY, PIN_PLACE_COUNT };

struct pin_digester;

struct pin {
    int fds[PIN_PLACE_COUNT]; /* O_PATH */
    struct pin_identity directory;
    struct pin_place places[PIN_PLACE_COUNT]; /* where the executable was found; the configured directory */
    char *command;                            /* argv[0] */
    char *run;                                /* where it was found, links in its directory resolved */
    char *resolved;                           /* without any links */
    char *directory_path;                     /* the same */
    bool by_descriptor;                       /* it can be executed by its descriptor */
    bool directory_gone;                      /* removed; told when directory_told */
    bool directory_told;
    struct pin_file *files; /* [0]: the executable */
    size_t file_count;
    struct pin_digester *digester; /* of the file that is being read */
};

struct pin_request {
    char *const *command; /* NULL-terminated, at least one */
    const char *cwd;      /* NULL: this process's */
    const char *path;     /* PATH; NULL: unset */
};

/* Of what a descriptor names. */
struct pin_identity pin_identity_of(int fd);

/* The PATH of execvp(3) where none is set. */
#define PIN_DEFAULT_PATH "/usr/local/bin:/usr/bin:/bin"

/* Opens and reads the beginning of the executable. Fails with BLAME_USER where there is nothing that could be
 * executed, or no such directory. */
int pin_make(const struct pin_request *request, struct pin **ret_pin, struct error *error);

/* NULL is allowed. */
void pin_free(struct pin *pin);

/* Looks, by stat(2) alone, whether something has changed that matters to a worker that is started now; what
 * follows is pin_step()'s to do. */
void pin_look(struct pin *pin);

enum pin_result {
    PIN_IDLE,    /* nothing is to be done */
    PIN_MORE,    /* call it again */
    PIN_CHANGED, /* the same, and *ret_change is to be told */
};

enum pin_change_kind {
    PIN_ELSEWHERE,   /* a name leads elsewhere; what is pinned runs */
    PIN_OVERWRITTEN, /* in place: its contents are lost */
    PIN_REPLACED,    /* by another file of that name, and contents can be had by name alone */
    PIN_REMOVED,     /* so was it, and there is none now */
    PIN_DIRECTORY_REMOVED,
    PIN_CHANGE_COUNT
};

struct pin_change {
    enum pin_change_kind kind;
    const char *path; /* the pin's */
};

/* Reads PIN_STEP_BYTES at most. Each change is told once; what was touched and holds what it held is none. */
enum pin_result pin_step(struct pin *pin, struct pin_change *ret_change);

/* In words, for an operator. */
const char *pin_change_text(enum pin_change_kind kind);

/* In the child: the working directory, as the service's user. A directory that was removed is taken by its
 * configured name. */
int pin_enter(const struct pin *pin, struct error *error);

/* In the child: returns errno only. What can't be had any more is executed by its name. */
int pin_execute(const struct pin *pin, char *const argv[], char *const envp[]);

#endif
