/* Memory for what the guard reads ahead: pages of 4 KiB from mmap(2), with a bound.
 *
 * The guard thread may not wait for an allocator that some stalled thread holds locked, so this pool
 * is its own. One pool for each Guard() of the user; its wires share the bound. Each wire may also
 * have one page beyond the bound, its floor, so that no flood of one peer mutes another.
 *
 * Slabs of pages are mapped when needed and unmapped when all their pages are back, but for one that
 * is kept.
 * Thread-safe; shared by counting: the last release unmaps all, when every page must be back.
 */
#ifndef WSO_PAGES_H
#define WSO_PAGES_H

#include <stddef.h>
#include <stdint.h>

#define WSO_PAGE_SIZE 4096

struct wso_slab;

struct wso_page {
    struct wso_page *next; /* for its owner's lists */
    struct wso_slab *slab;
    uint16_t start; /* of what is in it */
    uint16_t end;
    uint8_t floor; /* does not count against the bound */
    uint8_t bytes[WSO_PAGE_SIZE - 2 * sizeof(void *) - 2 * sizeof(uint16_t) - 1];
};

#define WSO_PAGE_BYTES sizeof(((struct wso_page *)0)->bytes)

struct wso_pages;

/* A pool that lends at most `most` bytes (rounded up to pages; 8 TiB at most) besides the floors.
 * WSO_ENOMEM. */
int wso_pages_new(uint64_t most, struct wso_pages **pages);
struct wso_pages *wso_pages_share(struct wso_pages *pages);
void wso_pages_release(struct wso_pages *pages);

/* Up to `count` empty pages, as a list; fewer, or NULL, at the bound or if the system gives none. */
struct wso_page *wso_pages_take(struct wso_pages *pages, size_t count);
/* One page that does not count against the bound; NULL if the system gives none. */
struct wso_page *wso_pages_take_floor(struct wso_pages *pages);
/* Give a list of pages back; NULL is an empty list. */
void wso_pages_give(struct wso_pages *pages, struct wso_page *list);

/* How many bytes one wire may hold now: `most` while the pool is at most half lent, then ever less,
 * in proportion to what is left. Never more than the pool's bound, never less than one page. The
 * `in_hand` pages that the caller has taken to fill them do not count as lent. Takes no lock: a
 * snapshot. */
uint64_t wso_pages_share_of(struct wso_pages *pages, uint64_t most, size_t in_hand);

/* Bytes lent now, floors included. */
uint64_t wso_pages_lent(struct wso_pages *pages);

#endif
