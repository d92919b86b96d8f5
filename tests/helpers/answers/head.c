/* SPDX-License-Identifier: BSD-2-Clause */
/* Heads: the fields that say what happens to the connection, among many that look like them. */
#include "tests/helpers/answers/answers.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TEXT_BYTES 32768
#define FIELDS_MAX 160

struct fields {
    char text[TEXT_BYTES];
    size_t used;
    unsigned count;
    struct field {
        size_t at, size;
    } each[FIELDS_MAX];
};

__attribute__((format(printf, 2, 3))) static void add(struct fields *fields, const char *format, ...)
{
    struct field *field = &fields->each[fields->count];
    size_t room = TEXT_BYTES - fields->used;
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(fields->text + fields->used, room, format, arguments);
    va_end(arguments);
    if (fields->count == FIELDS_MAX || size < 0 || (size_t)size >= room)
        return;
    *field = (struct field){.at = fields->used, .size = (size_t)size};
    fields->used += (size_t)size;
    fields->count++;
}

/* ── words in odd but legal forms ── */

/* Returns `text` in letters of either case. */
static const char *cased(struct random *random, const char *text, char out[64])
{
    unsigned kind = random_below(random, 4);
    size_t i = 0;
    for (; text[i] && i < 63; i++)
        out[i] = (char)(kind == 0                   ? tolower(text[i])
                        : kind == 1                 ? toupper(text[i])
                        : kind == 2                 ? text[i]
                        : random_chance(random, 50) ? toupper(text[i])
                                                    : tolower(text[i]));
    out[i] = 0;
    return out;
}

static const char *space(struct random *random)
{
    static const char *const spaces[] = {" ", " ", " ", " ", "", "  ", "\t", " \t ", "      "};
    return spaces[random_below(random, 9)];
}

static const char *trailing(struct random *random)
{
    static const char *const spaces[] = {"", "", "", "", "", " ", "  ", "\t"};
    return spaces[random_below(random, 8)];
}

/* Options around one, of which none is it, nor close. */
static const char *other_options(struct random *random)
{
    static const char *const options[] = {"foo", "Upgrade", "x-keep-alive", "keep-alives", "TE", "bar , baz",
        "keep-aliv", "closed", "not-close", "keep-alive-not", ",", "x,,y", "keep_alive", "k"};
    return options[random_below(random, 14)];
}

/* ── the connection ── */

static void add_connection(struct fields *fields, struct random *random, const char *option)
{
    char name[64], value[64];
    const char *before = "", *comma_before = "", *after = "", *comma_after = "";
    cased(random, "Connection", name);
    cased(random, option, value);
    if (random_chance(random, 35)) {
        before = other_options(random);
        comma_before = random_chance(random, 50) ? ", " : random_chance(random, 50) ? "," : " ,\t";
    }
    if (random_chance(random, 35)) {
        comma_after = random_chance(random, 50) ? ", " : random_chance(random, 50) ? "," : " , ";
        after = random_chance(random, 10) ? option : other_options(random);
    }
    add(fields, "%s:%s%s%s%s%s%s%s", name, space(random), before, comma_before, value, comma_after, after,
        trailing(random));
}

static void add_other_connection(struct fields *fields, struct random *random)
{
    char name[64];
    add(fields, "%s:%s%s%s", cased(random, "Connection", name), space(random),
        random_chance(random, 15) ? "" : other_options(random), trailing(random));
}

static void add_keep_alive(struct fields *fields, struct random *random)
{
    static const char *const values[] = {
        "timeout=5, max=100", "timeout=5", "timeout=60,max=1000", "timeout=15, max=99"};
    static const char *const shorts[] = {"5", "", "a=1", "max=1", "t"};
    char name[64];
    cased(random, "Keep-Alive", name);
    if (random_chance(random, 30))
        add(fields, "%s:%s%s", name, random_chance(random, 60) ? " " : "", shorts[random_below(random, 5)]);
    else
        add(fields, "%s:%s%s%s", name, space(random), values[random_below(random, 4)], trailing(random));
}

/* What leaves the connection open. */
static void add_open(struct fields *fields, struct random *random, bool http10)
{
    unsigned kind = random_below(random, http10 ? 6 : 12);
    if (kind < 6) { /* keep-alive is said */
        add_connection(fields, random, "keep-alive");
        if (kind == 1 || kind == 2)
            add_keep_alive(fields, random);
        if (kind == 3)
            add_other_connection(fields, random);
        if (kind == 4)
            add_connection(fields, random, "Keep-Alive");
    } else if (kind < 8) {
        add_keep_alive(fields, random);
        if (random_chance(random, 20))
            add_keep_alive(fields, random);
    } else if (kind < 10) {
        add_other_connection(fields, random);
        if (random_chance(random, 30))
            add_other_connection(fields, random);
        if (random_chance(random, 30))
            add_keep_alive(fields, random);
    }
}

/* What ends it; without framing or keep-alive that ends by itself. */
static void add_end(struct fields *fields, struct random *random, const struct shape *shape)
{
    bool by_itself = (shape->framing == UNFRAMED && !shape->bodiless) || shape->http10;
    if (shape->status == 101) {
        add(fields, "Connection: upgrade");
        add(fields, "Upgrade: echo");
    } else if (by_itself && !shape->bodiless && shape->framing == UNFRAMED && random_chance(random, 30)) {
        add_connection(fields, random, "keep-alive"); /* it says so, and can't */
    } else if (!by_itself || random_chance(random, 30)) {
        add_connection(fields, random, "close");
        if (random_chance(random, 15))
            add_other_connection(fields, random);
        if (random_chance(random, 15))
            add_keep_alive(fields, random);
    } else if (random_chance(random, 30)) {
        add_other_connection(fields, random);
    }
}

/* Near the connection fields there is always something that looks like one. */
static void add_decoy(struct fields *fields, struct random *random)
{
    static const char *const decoys[] = {"X-Connection: keep-alive", "Connection-X: keep-alive",
        "XConnection: close", "Proxy-Connection: keep-alive", "X-Keep-Alive: timeout=5, max=100",
        "Keep-Alive-X: timeout=5, max=100", "X-Note: Connection: keep-alive",
        "Server: Keep-Alive: timeout=5, max=100", "X-Close: close", "Content-Length-X: 7",
        "X-Content-Length: 12", "X-Transfer-Encoding: chunked", "Connectio: keep-alive",
        "Vary: Connection, Keep-Alive", "Via: HTTP/1.1 keep-alive", "X-Status: HTTP/1.1 100 Continue",
        "Keep-Aliv: timeout=5, max=100", "Connection2: close", "Upgrade: h2,h2c",
        "Content-Encoding: identity"};
    add(fields, "%s", decoys[random_below(random, 20)]);
}

/* ── the rest ── */

static void add_framing(struct fields *fields, struct random *random, const struct shape *shape)
{
    char name[64], value[64];
    unsigned length = shape->body_size;
    if (shape->framing == TWO_LENGTHS || shape->framing == SAME_LENGTHS) { /* the first one counts */
        add(fields, "Content-Length: %u\r\nContent-Length: %u", length,
            length + (shape->framing == TWO_LENGTHS));
    } else if (shape->framing == LENGTH || shape->framing == LENGTH_AND_CHUNKED) {
        cased(random, "Content-Length", name);
        add(fields, "%s:%s%s%u%s", name, space(random), random_chance(random, 3) ? "000" : "", length,
            trailing(random));
    }
    if (shape->framing == CHUNKED || shape->framing == LENGTH_AND_CHUNKED) {
        cased(random, "Transfer-Encoding", name);
        add(fields, "%s:%s%s%s", name, space(random), cased(random, "chunked", value), trailing(random));
    }
}

static void add_filler(struct fields *fields, struct random *random)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.!#$%&'*+^`|~";
    char field[4096];
    size_t name = 2 + random_log(random, 30), value = random_log(random, 2000), at = 0;
    field[at++] = 'X'; /* no name that means something */
    field[at++] = '-';
    while (at < name + 2)
        field[at++] = letters[random_below(random, sizeof letters - 1)];
    field[at++] = ':';
    field[at++] = ' ';
    for (size_t end = at + value; at < end;) {
        unsigned byte = 32 + random_below(random, 224);
        field[at++] = (char)(byte == 127 ? '\t' : byte);
    }
    field[at] = 0;
    add(fields, "%s", field);
}

static size_t draw_head_size(struct random *random, bool big)
{
    unsigned kind = big ? 98 : random_below(random, 100);
    if (kind < 20)
        return 0;
    if (kind < 75)
        return random_log(random, 1024);
    if (kind < 97)
        return random_log(random, 8192);
    return (kind < 99 ? 8192 : 16300) + random_below(random, kind < 99 ? 8192 : 4000);
}

/* The fields from `from` on are put in any order. */
static void shuffle(struct fields *fields, struct random *random, unsigned from)
{
    for (unsigned i = fields->count; i > from + 1; i--) {
        unsigned other = from + random_below(random, i - from);
        struct field field = fields->each[i - 1];
        fields->each[i - 1] = fields->each[other];
        fields->each[other] = field;
    }
}

static void put_status_line(struct answer *answer, struct random *random, const struct shape *shape)
{
    static const char *const reasons[] = {
        " OK", " Whatever it is", " ", "", " HTTP/1.1 200 OK", " Connection: keep-alive"};
    char line[128];
    int size = snprintf(line, sizeof line, "HTTP/1.%d %u%s", shape->http10 ? 0 : 1, shape->status,
        random_chance(random, 70) ? " OK" : reasons[random_below(random, 6)]);
    answer_mark(answer, answer->size + random_below(random, (unsigned)size));
    answer_put(answer, line, (size_t)size);
}

static void put_fields(
    struct answer *answer, struct random *random, const struct fields *fields, enum oddity oddity)
{
    unsigned odd = oddity == REGULAR ? UINT32_MAX : random_below(random, fields->count + 1);
    static const char *const ends[] = {"\r\n", "\r\n X-Folded: yes\r\n", "\n"};
    for (unsigned i = 0; i <= fields->count; i++) {
        /* The first line can't be folded. */
        const char *end = ends[i == odd && (i > 0 || oddity == BARE_LF) ? oddity : REGULAR];
        answer_put(answer, end, strlen(end));
        if (i < fields->count)
            answer_put(answer, fields->text + fields->each[i].at, fields->each[i].size);
        if (i > 0 && i % 8 == 0)
            answer_mark(answer, answer->size);
    }
    for (unsigned i = 1; i < 4; i++)
        answer_mark(answer, answer->size - 2 + i);
    answer_put(answer, "\r\n", 2);
}

void head_put(struct answer *answer, struct random *random, const struct shape *shape)
{
    struct fields fields;
    size_t wanted = draw_head_size(random, shape->big);
    unsigned place = random_below(random, 3);
    fields.used = fields.count = 0;
    add_framing(&fields, random, shape);
    if (random_chance(random, 50))
        add_decoy(&fields, random);
    if (shape->last)
        add_end(&fields, random, shape);
    else
        add_open(&fields, random, shape->http10);
    if (random_chance(random, 30))
        add_decoy(&fields, random);
    unsigned filler = fields.count;
    while (fields.used < wanted && fields.count < FIELDS_MAX)
        add_filler(&fields, random);
    if (place == 0) /* anywhere */
        shuffle(&fields, random, 0);
    else if (place == 1) /* at the beginning */
        shuffle(&fields, random, filler);
    put_status_line(answer, random, shape);
    if (place == 2) { /* at the end: what was added last is put first */
        for (unsigned i = 0; i < fields.count / 2; i++) {
            struct field field = fields.each[i];
            fields.each[i] = fields.each[fields.count - 1 - i];
            fields.each[fields.count - 1 - i] = field;
        }
    }
    put_fields(answer, random, &fields, shape->oddity);
}
