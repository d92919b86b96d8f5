/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an http probe asks, and whether the answer is what its specification expects. Pure: bytes in, a
 * verdict out.
 *
 *   probe_answer_feed() … ──► OPEN ──► REFUSED, ACCEPTED, or MATCHING: probe_answer_match() tells
 *
 * The patterns are tried last, all at once, by probe_answer_match(): that may take as long as it likes, so it
 * is called where nothing waits for it (probe_match.h). The memory is bounded: of the head what is asked for,
 * of the body the first PROBE_BODY_MAX bytes.
 */
#ifndef GAPLESS_MASTER_PROBE_ANSWER_H
#define GAPLESS_MASTER_PROBE_ANSWER_H

#include "ipc/error.h"
#include "master/config/probe_spec.h"
#include "master/http_response.h"

#include <stdbool.h>
#include <stddef.h>

#define PROBE_BODY_MAX 65536

enum probe_verdict {
    PROBE_OPEN,     /* more must be read */
    PROBE_REFUSED,  /* the error says why */
    PROBE_ACCEPTED, /* it is as expected */
    PROBE_MATCHING, /* it is, apart from patterns that haven't been tried */
    PROBE_VERDICT_COUNT
};

enum probe_match {
    PROBE_MATCH_ALL,
    PROBE_MATCH_NO_HEADER, /* no value of the header */
    PROBE_MATCH_NO_BODY,
    PROBE_MATCH_BROKEN, /* out of memory, or a pattern that can't be compiled */
    PROBE_MATCH_COUNT
};

struct probe_answer {
    const struct probe_spec *spec; /* lent */
    struct http_reader reader;
    struct http_response response;
    char *values; /* of the header, each with a NUL behind it */
    size_t values_size;
    char *body; /* NUL-terminated; a NUL in it counts as a blank */
    size_t body_size;
    bool no_memory;
};

/* Length of the request in `text`, which takes the longest there can be. */
#define PROBE_REQUEST_MAX (PROBE_PATH_MAX + PROBE_HOST_MAX + 256)
size_t probe_answer_request(const struct probe_spec *spec, char text[PROBE_REQUEST_MAX]);

/* Must not be moved while it is used. */
void probe_answer_init(struct probe_answer *answer, const struct probe_spec *spec);
void probe_answer_done(struct probe_answer *answer);

/* Not to be called any more once the verdict isn't PROBE_OPEN. */
enum probe_verdict probe_answer_feed(
    struct probe_answer *answer, const char *data, size_t size, struct error *error);
/* The peer has closed. Never PROBE_OPEN. */
enum probe_verdict probe_answer_eof(struct probe_answer *answer, struct error *error);

/* Tries the patterns. May block. */
enum probe_match probe_answer_match(const struct probe_answer *answer);

/* What that result means, in words. Returns -error->code. Not for PROBE_MATCH_ALL. */
int probe_answer_mismatch(const struct probe_answer *answer, enum probe_match match, struct error *error);

#endif
