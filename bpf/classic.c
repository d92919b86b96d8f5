/* SPDX-License-Identifier: BSD-2-Clause */
#include "bpf/classic.h"

#include <errno.h>
#include <linux/filter.h>
#include <stdlib.h>
#include <sys/socket.h>

/* Instructions of a block that picks one of n, and of the fork before the blocks. */
#define BLOCK(n) (2 * (n) + 2)
#define FORK 3

struct writer {
    struct sock_filter *code;
    unsigned count;
};

static void put(struct writer *writer, struct sock_filter instruction)
{
    writer->code[writer->count++] = instruction;
}

/* Returns one of the indexes, by chance. A conditional jump reaches 255 instructions at most: each compares
 * and passes over one return. */
static void pick(struct writer *writer, const unsigned *indexes, unsigned count)
{
    if (count > 1) {
        put(writer,
            (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (__u32)SKF_AD_OFF + SKF_AD_RANDOM));
        put(writer, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, count));
    }
    for (unsigned i = 0; i + 1 < count; i++) {
        put(writer, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, i, 0, 1));
        put(writer, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, indexes[i]));
    }
    put(writer, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, indexes[count - 1]));
}

int classic_attach(int fd, const struct classic_choice *choice)
{
    unsigned canaries = choice->share ? choice->canary_count : 0;
    if (!choice->active_count || choice->active_count > CLASSIC_MAX || canaries > CLASSIC_MAX)
        return -EINVAL;
    struct writer writer = {.count = 0};
    writer.code = calloc(BLOCK(choice->active_count) + BLOCK(canaries) + FORK, sizeof *writer.code);
    if (!writer.code)
        return -ENOMEM;
    if (canaries) {
        unsigned length = canaries > 1 ? 2 * canaries + 1 : 1;
        put(&writer,
            (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (__u32)SKF_AD_OFF + SKF_AD_RANDOM));
        put(&writer, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, choice->share, 0, 1));
        put(&writer, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, length));
        pick(&writer, choice->canary, canaries);
    }
    pick(&writer, choice->active, choice->active_count);
    struct sock_fprog program = {.len = (unsigned short)writer.count, .filter = writer.code};
    int r = setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) < 0 ? -errno : 0;
    free(writer.code);
    return r;
}
