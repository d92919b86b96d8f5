/* SPDX-License-Identifier: BSD-2-Clause */
/* Answers from seeds: what is in the body, and how it is framed. */
#include "tests/helpers/answers/answers.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODY_MOST 300000
#define CHUNKS_MOST 120

/* What a program that looks for heads would take for one. */
static const char *const traps[] = {"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n",
    "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5, max=100\r\nContent-Length: "
    "0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello",
    "\r\nConnection: keep-alive\r\n\r\n", "Connection: keep-alive\r\n", "Keep-Alive: timeout=5, max=100\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 ", "\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nx"};
#define TRAP_COUNT (sizeof traps / sizeof *traps)

uint64_t random_next(struct random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15; /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

unsigned random_below(struct random *random, unsigned limit)
{
    return (unsigned)((random_next(random) >> 32) * limit >> 32);
}

bool random_chance(struct random *random, unsigned percent)
{
    return random_below(random, 100) < percent;
}

unsigned random_log(struct random *random, unsigned most)
{
    unsigned bits = 0;
    while (most >> bits)
        bits++;
    unsigned value = random_below(random, 1U << random_below(random, bits + 1));
    return value < most ? value : most;
}

/* ── bytes ── */

void answer_put(struct answer *answer, const char *text, size_t size)
{
    if (answer->size + size > answer->capacity) {
        answer->capacity = (answer->size + size) * 2 + 4096;
        answer->data = realloc(answer->data, answer->capacity);
        if (!answer->data)
            err(1, "an answer");
    }
    memcpy(answer->data + answer->size, text, size);
    answer->size += size;
}

void answer_mark(struct answer *answer, size_t place)
{
    if (answer->mark_count < MARKS_MAX)
        answer->marks[answer->mark_count++] = place;
}

void answer_free(struct answer *answer)
{
    free(answer->data);
    *answer = (struct answer){0};
}

static void put_text(struct answer *answer, const char *text)
{
    answer_put(answer, text, strlen(text));
}

/* ── a body ── */

static void put_trap(struct answer *answer, struct random *random, size_t most)
{
    const char *trap = traps[random_below(random, TRAP_COUNT)];
    size_t size = strlen(trap);
    answer_mark(answer, answer->size);
    answer_put(answer, trap, size < most ? size : most);
}

static void put_random(struct answer *answer, struct random *random, size_t size)
{
    uint64_t block[64];
    while (size > 0) {
        size_t piece = size < sizeof block ? size : sizeof block;
        for (size_t i = 0; i < (piece + 7) / 8; i++)
            block[i] = random_next(random);
        answer_put(answer, (char *)block, piece);
        size -= piece;
    }
}

/* A body, or a piece of one: from traps alone to none of them. */
static void put_content(struct answer *answer, struct random *random, size_t size)
{
    size_t end = answer->size + size;
    unsigned kind = random_below(random, 4);
    if (kind < 3 && size > 0)
        put_trap(answer, random, size);
    while (answer->size < end) {
        size_t left = end - answer->size;
        if (kind == 0 && left < 8192) {
            put_trap(answer, random, left);
            continue;
        }
        unsigned piece = 1 + random_log(random, BODY_MOST);
        put_random(answer, random, piece < left ? piece : left);
        if (kind < 2)
            put_trap(answer, random, end - answer->size);
    }
}

static void put_chunk_head(struct answer *answer, struct random *random, size_t size)
{
    static const char *const extensions[] = {"", "", "", "", ";a", ";name=value", ";q=\"a;b\"", ";a=1;b=2"};
    char text[64];
    snprintf(text, sizeof text, "%zx", size);
    switch (random_below(random, 8)) {
    case 0:
        snprintf(text, sizeof text, "%zX", size);
        break;
    case 1:
        snprintf(text, sizeof text, "0%zx", size);
        break;
    case 2:
        snprintf(text, sizeof text, "00000%zX", size);
        break;
    }
    put_text(answer, text);
    put_text(answer, extensions[random_below(random, 8)]);
    put_text(answer, "\r\n");
}

static void put_chunks(struct answer *answer, struct random *random, size_t size)
{
    static const char *const trailers[] = {"X-Checksum: 0123456789abcdef\r\n",
        "Keep-Alive: timeout=5, max=100\r\n", "Connection: keep-alive\r\n",
        "X-Status: HTTP/1.1 200 OK\r\nX-Empty:\r\n"};
    unsigned most = 1 + random_log(random, BODY_MOST);
    if (most < size / CHUNKS_MOST)
        most = (unsigned)(size / CHUNKS_MOST);
    while (size > 0) {
        size_t piece = 1 + random_below(random, most);
        piece = piece < size ? piece : size;
        answer_mark(answer, answer->size);
        put_chunk_head(answer, random, piece);
        put_content(answer, random, piece);
        put_text(answer, "\r\n");
        size -= piece;
    }
    put_chunk_head(answer, random, 0);
    if (random_chance(random, 20))
        put_text(answer, trailers[random_below(random, 4)]);
    put_text(answer, "\r\n");
}

/* ── an answer ── */

static unsigned draw_status(struct random *random)
{
    static const unsigned others[] = {404, 204, 304, 204, 304, 206, 301, 500, 999};
    return random_chance(random, 60) ? 200 : others[random_below(random, 9)];
}

static enum framing draw_framing(struct random *random, const struct shape *shape)
{
    if (shape->status == 204)
        return UNFRAMED;
    if (shape->status == 304)
        return random_chance(random, 50) ? UNFRAMED : LENGTH;
    if (shape->bodiless && random_chance(random, 20))
        return UNFRAMED;
    if (random_chance(random, 1))
        return random_chance(random, 50) ? TWO_LENGTHS : SAME_LENGTHS;
    if (shape->http10)
        return LENGTH;
    if (random_chance(random, 1))
        return LENGTH_AND_CHUNKED;
    return random_chance(random, 55) ? LENGTH : CHUNKED;
}

static struct shape draw_shape(struct random *random, bool head_method, enum kind kind)
{
    bool last = kind == LAST;
    struct shape shape = {
        .last = last, .big = kind == BIG_HEAD, .http10 = random_chance(random, last ? 40 : 12)};
    shape.status = last && random_chance(random, 10) && !head_method ? 101 : draw_status(random);
    shape.bodiless = head_method || shape.status == 204 || shape.status == 304;
    shape.http10 = shape.http10 && shape.status != 101;
    shape.framing = draw_framing(random, &shape);
    if (last && !shape.bodiless && random_chance(random, 40))
        shape.framing = UNFRAMED;
    if (shape.status == 101)
        shape.framing = UNFRAMED;
    if (random_chance(random, 2))
        shape.oddity = random_chance(random, 50) ? FOLDED : BARE_LF;
    shape.body_size = random_log(random, BODY_MOST);
    return shape;
}

static void put_interim(struct answer *answer, struct random *random)
{
    static const char *const interims[] = {"HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 100\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n",
        "HTTP/1.1 102 Processing\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5, max=100\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nConnection: keep-alive\r\nLink: </a>; rel=preload\r\n\r\n"};
    unsigned count = random_chance(random, 16) ? 1 + random_below(random, 3) / 2 : 0;
    for (unsigned i = 0; i < count; i++) {
        put_text(answer, interims[random_below(random, 5)]);
        answer_mark(answer, answer->size);
    }
}

static void put_body(struct answer *answer, struct random *random, const struct shape *shape)
{
    if (shape->bodiless)
        return;
    if (shape->framing == CHUNKED || shape->framing == LENGTH_AND_CHUNKED)
        put_chunks(answer, random, shape->body_size);
    else
        put_content(answer, random, shape->body_size);
}

void answer_add(struct answer *answer, uint64_t seed, bool head_method, enum kind kind)
{
    struct random random = {.state = seed * 8 + head_method * 4 + kind};
    struct shape shape = draw_shape(&random, head_method, kind);
    answer_mark(answer, answer->size);
    if (!shape.http10)
        put_interim(answer, &random);
    answer->head = answer->size;
    head_put(answer, &random, &shape);
    answer->body = answer->size;
    put_body(answer, &random, &shape);
    answer->last = kind == LAST;
}
