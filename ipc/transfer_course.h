/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What may follow what in a transfer, and what its frames may say (transfer.proto): the same rules for both
 * ends. The reader refuses what breaks them, the writer asserts that it doesn't. Pure.
 */
#ifndef GAPLESS_IPC_TRANSFER_COURSE_H
#define GAPLESS_IPC_TRANSFER_COURSE_H

#include "ipc/error.h"
#include "ipc/transfer.h"

enum transfer_stage {
    TRANSFER_STAGE_START,
    TRANSFER_STAGE_SNAPSHOT, /* Begin was; not where there are changes only */
    TRANSFER_STAGE_CHANGES,  /* Mark was; with changes only, Begin */
    TRANSFER_STAGE_ENDED,
    TRANSFER_STAGE_COUNT
};

/* How far a transfer has come. Zeros, and changes_only, at its start. */
struct transfer_course {
    bool changes_only;
    enum transfer_stage stage;
    size_t segments; /* that Begin names */
    uint64_t blobs;
};

/* Each 0, or -EBADMSG (BLAME_PEER) with what is wrong; `course` is then as it was. */

/* A frame of `kind` comes next: may it? */
int transfer_course_frame(struct transfer_course *course, enum transfer_kind kind, struct error *error);
/* … and is one of record, tombstone, delta and blob; that it may stand here was asked before. */
int transfer_course_record(struct transfer_course *course, enum transfer_kind kind,
    const struct transfer_record *record, struct error *error);
/* … and is a Begin; besides, -EPROTONOSUPPORT. */
int transfer_course_begin(
    struct transfer_course *course, const Gapless__Transfer__Begin *begin, struct error *error);

#endif
