/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/counters.h"
#include "worker/gapless.h"
#include "worker/gapless_internal.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

_Static_assert((int)GAPLESS_COUNTS_CONNECTIONS == COUNTERS_CONNECTIONS, "as on the page");
_Static_assert((int)GAPLESS_COUNTS_REQUESTS == COUNTERS_REQUESTS, "as on the page");
_Static_assert((int)GAPLESS_COUNTS_BYTES == COUNTERS_BYTES, "as on the page");

/* What the server promises; changes are the library's own to promise. */
#define SERVERS_KINDS ((unsigned)(COUNTERS_CONNECTIONS | COUNTERS_REQUESTS | COUNTERS_BYTES))

int gapless_page_map(int fd, unsigned version, struct counters **ret_page, struct error *error)
{
    struct stat about;
    size_t size = counters_size(version);
    if (!size || fstat(fd, &about) < 0 || about.st_size < (off_t)size)
        return error_set(error, EPROTO, BLAME_PEER, "the master sent something else for a page of counters");
    struct counters *page =
        mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0); /* whole pages */
    if (page == MAP_FAILED && errno == ENOMEM)
        return error_errno(error, ENOMEM, BLAME_OURS, "mapping the page of counters");
    if (page == MAP_FAILED)
        return error_errno(
            error, EPROTO, BLAME_PEER, "the master sent a page of counters that can't be used");
    if (page->magic != COUNTERS_MAGIC || page->version != version || page->size != size) {
        gapless_page_unmap(page);
        return error_set(error, EPROTO, BLAME_PEER, "the master sent a page of counters of another layout");
    }
    *ret_page = page;
    return 0;
}

void gapless_page_unmap(struct counters *page)
{
    if (page)
        munmap(page, sizeof *page);
}

void gapless_declare_counts(struct gapless *g, unsigned what)
{
    struct counters *page = gapless_page(g);
    if (page)
        __atomic_fetch_or(&page->kinds, what & SERVERS_KINDS, __ATOMIC_RELEASE);
}

void gapless_withdraw_counts(struct gapless *g, unsigned what)
{
    struct counters *page = gapless_page(g);
    if (page)
        __atomic_fetch_and(&page->kinds, ~(what & SERVERS_KINDS), __ATOMIC_RELEASE);
}

static void begin(uint64_t *begun)
{
    __atomic_fetch_add(begun, 1, __ATOMIC_RELAXED);
}

/* Releases, so that whoever sees this end sees its begin; acquires, so that every begin whose end is counted
 * in `now` is in what is loaded behind it. Without the latter an end could be taken for one too many. */
static void end(struct counters *page, enum counters_kind kind, uint64_t *ended, const uint64_t *begun)
{
    uint64_t now = __atomic_add_fetch(ended, 1, __ATOMIC_ACQ_REL);
    if (now > __atomic_load_n(begun, __ATOMIC_RELAXED))
        __atomic_fetch_or(&page->miscounted, kind, __ATOMIC_RELEASE);
}

void gapless_connection_opened(struct gapless *g)
{
    struct counters *page = gapless_page(g);
    if (page)
        begin(&page->connections_opened);
}

void gapless_connection_closed(struct gapless *g)
{
    struct counters *page = gapless_page(g);
    if (page)
        end(page, COUNTERS_CONNECTIONS, &page->connections_closed, &page->connections_opened);
}

void gapless_request_begin(struct gapless *g)
{
    struct counters *page = gapless_page(g);
    if (page)
        begin(&page->requests_begun);
}

void gapless_request_end(struct gapless *g)
{
    struct counters *page = gapless_page(g);
    if (page)
        end(page, COUNTERS_REQUESTS, &page->requests_ended, &page->requests_begun);
}

void gapless_count_bytes(struct gapless *g, uint64_t in, uint64_t out)
{
    struct counters *page = gapless_page(g);
    if (!page)
        return;
    if (in > 0)
        __atomic_fetch_add(&page->bytes_in, in, __ATOMIC_RELAXED);
    if (out > 0)
        __atomic_fetch_add(&page->bytes_out, out, __ATOMIC_RELAXED);
}

static bool has_changes(const struct counters *page)
{
    return page && page->version > 1;
}

void gapless_page_declare_changes(struct gapless *g)
{
    struct counters *page = gapless_page(g);
    if (has_changes(page))
        __atomic_fetch_or(&page->kinds, COUNTERS_CHANGES, __ATOMIC_RELEASE);
}

void gapless_page_count_change(struct gapless *g, uint64_t by)
{
    struct counters *page = gapless_page(g);
    if (has_changes(page))
        __atomic_fetch_add(&page->changes, by, __ATOMIC_RELAXED);
}
