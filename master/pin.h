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
 * pin_make() runs in the master: it opens and looks at the files themselves, and reads the first bytes of the
 * executable, which is to be executed next in any case. Whatever else has to be read or looked at is
 * pin_examine()'s, in a process of its own, since a disk can keep it for ever. pin_enter() and pin_execute()
 * run in the child that becomes the worker, as the service's user: whoever couldn't reach the file or the
 * directory by its path is refused, pin or none.
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
/* The executable, and so many arguments that name files; further ones are not looked at. */
#define PIN_FILES_MAX 17

/* All zero: there is no such file. */
struct pin_identity {
    uint64_t device, inode, size;
    int64_t modified_ns;
};

/* What is known of a file by now. */
struct pin_known {
    struct pin_identity looked; /* when it was last looked at */
    uint64_t digest;            /* of what the pin's identity names */
    bool digested;
    bool tried; /* no digest is to be made any more */
};

struct pin_file {
    char *path; /* as the command has it, relative to the directory; of the executable: `run` */
    struct pin_identity identity; /* when the pin was made */
    struct pin_known known;
};

/* A name that the service is configured with: leading elsewhere changes nothing for what is pinned. */
struct pin_place {
    char *path; /* NULL: none */
    struct pin_identity looked;
};

enum { PIN_EXECUTABLE, PIN_DIRECTORY, PIN_PLACE_COUNT };

struct pin {
    int fds[PIN_PLACE_COUNT]; /* O_PATH */
    struct pin_identity directory;
    struct pin_place places[PIN_PLACE_COUNT]; /* where the executable was found; the configured directory */
    char *command;                            /* argv[0] */
    char *run;                                /* where it was found, links in its directory resolved */
    char *resolved;                           /* without any links */
    char *directory_path;                     /* the same */
    bool by_descriptor;                       /* it can be executed by its descriptor */
    bool directory_told;                      /* … that it was removed */
    struct pin_file *files;                   /* [0]: the executable */
    size_t file_count;
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

/* Another one of the same version, with descriptors of its own. -ENOMEM, or what dup(2) gave. */
int pin_copy(const struct pin *from, struct pin **ret_pin);

/* NULL is allowed. */
void pin_free(struct pin *pin);

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
    unsigned index; /* of the file, or of the place (PIN_ELSEWHERE, PIN_DIRECTORY_REMOVED) */
};

/* The path, of the pin. */
const char *pin_change_path(const struct pin *pin, const struct pin_change *change);

#define PIN_CHANGES_MAX (PIN_PLACE_COUNT + PIN_FILES_MAX)

/* What pin_examine() has found; without pointers, for another process. */
struct pin_findings {
    unsigned change_count;
    struct pin_change changes[PIN_CHANGES_MAX];
    bool directory_told;
    struct pin_identity places[PIN_PLACE_COUNT];
    struct pin_known files[PIN_FILES_MAX];
};

/* There are digests to be made. */
bool pin_is_unread(const struct pin *pin);

/* Makes the digests that are still to be made. With `look`: finds as well what has changed that matters to a
 * worker that is started now. Each change is told once; what was touched and holds what it held is none.
 * Waits for the disk, so it has a process of its own; what it found becomes the pin's by pin_learn(). */
void pin_examine(const struct pin *pin, bool look, struct pin_findings *ret_findings);
void pin_learn(struct pin *pin, const struct pin_findings *findings);

/* Contents that can't be had again, told before or not: the first such file. Waits as well. */
bool pin_is_lost(const struct pin *pin, struct pin_change *ret_change);

/* In words, for an operator: of a worker that is started now; of a version that isn't started for that ("was
 * removed"). */
const char *pin_change_text(enum pin_change_kind kind);
const char *pin_lost_text(enum pin_change_kind kind);

/* Its directory was removed. */
bool pin_is_homeless(const struct pin *pin);

/* In the child: the working directory, as the service's user. A directory that was removed is taken by its
 * configured name. */
int pin_enter(const struct pin *pin, struct error *error);

/* As the process that would execute it: its path, or NULL: the executable's descriptor. What can't be had any
 * more is found by its name. 0, or -EACCES: the way to it is closed. */
int pin_find(const struct pin *pin, const char **ret_path);

/* In the child: returns errno only. What can't be had any more is executed by its name. */
int pin_execute(const struct pin *pin, char *const argv[], char *const envp[]);

#endif
