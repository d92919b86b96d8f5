/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * `Connection: close`, said by the kernel in the place of a server that is leaving and doesn't know: its
 * clients go by themselves, after a whole answer, and connect again (RFC 9112, 9.6).
 *
 * The connections of a worker that leaves are enlisted in a SOCKHASH; a program on it (farewell.bpf.c) looks
 * at what the worker sends, and where the head of an HTTP/1 answer begins it makes that say close. What is
 * the head of an answer the ebpf tracker tells (inflight.h), whose map this shares. docs/keepalive.md says
 * what is changed and what is left alone.
 *
 *     farewell_begin(slot) … a pass, again and again while the worker leaves … farewell_end(slot)
 *
 * Needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and the ebpf tracker's kernel. A connection leaves the map
 * when it is closed. What was made lives in descriptors, as the tracker's: farewell_fds(), farewell_adopt().
 */
#ifndef GAPLESS_BPF_FAREWELL_H
#define GAPLESS_BPF_FAREWELL_H

#include <linux/types.h>

/* Connections that are enlisted at the same time, of all workers; others wait until some have left. */
#define FAREWELL_CONNECTIONS 65536

/* Connections that the kernel has refused, of all workers, as far as that is remembered. */
#define FAREWELL_UNLISTABLE 4096

/* The longest head of an answer that is looked at, in bytes. */
#define FAREWELL_HEAD_MAX 16384

/* Of one worker, since farewell_begin(); written by the programs. An answer is counted once, where it ended
 * up. */
struct farewell_counts {
    __u64 enlisted;    /* connections */
    __u64 unlistable;  /* connections that can't be: kTLS, another program's, SO_ZEROCOPY, no HTTP */
    __u64 answers;     /* heads of answers that were looked at: the sum of the next seven */
    __u64 overwritten; /* says close in the place of keep-alive */
    __u64 inserted;    /* says close in a line of its own */
    __u64 already;     /* said close before, or ends with its connection anyway */
    __u64 more;        /* unchanged: another answer follows it, or another request waits */
    __u64 not_http;    /* unchanged: not the head of an HTTP/1 answer */
    __u64 too_long;    /* unchanged: longer than FAREWELL_HEAD_MAX */
    __u64 in_doubt;    /* unchanged: not certain where it ends, or no memory */
    __u64 pad[6];
};
_Static_assert(sizeof(struct farewell_counts) == 128, "two cache lines");

/* What the connections of a listener have spoken, by its tag. Where the first answer isn't HTTP (but TLS,
 * say) no others are enlisted: they have nothing of it. */
struct farewell_spoken {
    __u32 http, other; /* 1: so did one */
};

/* What a pass looks for: a descriptor of a connection, in some process of a worker. */
struct farewell_found {
    __u64 cookie; /* of the socket, SO_COOKIE */
    __u32 process;
    __u32 descriptor;
};

#ifndef __bpf__

#include "bpf/tracker.h"

struct farewell;

/* Loads the programs beside this tracker, which must live longer. 0, or -errno and why: -EOPNOTSUPP without
 * the ebpf tracker, -EPERM. `fault` as for tracker_open(), with the steps "farewell maps", "farewell
 * programs", "farewell attach". */
int farewell_open(
    const struct tracker *tracker, tracker_fault *fault, struct farewell **ret_farewell, struct error *error);

/* Goes on with what an earlier master's farewell_fds() said; the descriptors are taken. */
int farewell_adopt(struct fd_list *fds, struct farewell **ret_farewell, struct error *error);

/* What to put into the keeper's store, lent. */
const int *farewell_fds(const struct farewell *farewell, unsigned *ret_count);

/* Closes everything; with the last descriptor the kernel lets the connections out. NULL is allowed. */
void farewell_close(struct farewell *farewell);

/* The worker in this slot of the tracker leaves: its connections are to be enlisted. Its counts begin anew.
 */
void farewell_begin(struct farewell *farewell, unsigned slot);

/* What is known of the connections of a listener is forgotten: the tag may be another's now. */
void farewell_begin_listener(struct farewell *farewell, unsigned tag);

/* It has gone, or stays: from now on nothing that it sends is changed. */
void farewell_end(struct farewell *farewell, unsigned slot);

/* Enlists the connections of all workers that leave, those that have been read from at least once. It takes a
 * duplicate of each for a moment (pidfd_getfd(2): root, CAP_SYS_PTRACE, or the same user with no more
 * capabilities than this process), and waits for the connection's lock, however long the worker holds that.
 * So the master has a process of its own do it: farewell_pass(), in a process just forked, closes every
 * descriptor but the farewell's, enlists, and exits with 0 or an errno value.
 *
 * 0, or -errno: -EPERM, some descriptor may not be taken; the others are enlisted. */
int farewell_enlist(const struct farewell *farewell, struct error *error);
_Noreturn void farewell_pass(const struct farewell *farewell);

/* Lets out the connections of workers that don't leave (any more), and those that don't speak HTTP. Says how
 * many had to stay, because a part of an answer is held back on them: try again. 0 or -errno. */
int farewell_recall(const struct farewell *farewell, unsigned *ret_left, struct error *error);

/* The counts of a slot, of no consequence where it never began. Costs no system call. */
void farewell_count(const struct farewell *farewell, unsigned slot, struct farewell_counts *ret_counts);

#endif
#endif
