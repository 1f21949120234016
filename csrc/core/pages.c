/* The pages: see pages.h. One lock guards the slabs; the counts are atomic, so that a look needs no
 * lock. To map a slab is quick, as no page of it is touched before it is lent; to unmap one is not,
 * and is done without the lock. */
#include "pages.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "error.h"
#include "list.h"
#include "lock.h"

_Static_assert(sizeof(struct wso_page) == WSO_PAGE_SIZE, "a page has no padding");

#define SLAB_SIZE (1024 * 1024)

/* The pages to lend; the slab itself lies where the first one would be. */
#define SLAB_PAGES (SLAB_SIZE / WSO_PAGE_SIZE - 1)

/* The largest bound, 8 TiB, so that the product of two numbers of pages fits into 64 bits. */
#define MOST_PAGES (UINT64_C(1) << 31)

struct wso_slab {
    struct wso_link link;  /* in `open` or `empty`; on no list if all its pages are lent */
    struct wso_page *back; /* pages that came back; those that were never lent are untouched */
    size_t lent;
};

struct wso_pages {
    atomic_uint shares;
    uint64_t most; /* pages; set once */
    /* Pages, without and as floors. Changed with the lock held only. */
    atomic_uint_fast64_t lent; /* never more than `most` */
    atomic_uint_fast64_t floors;
    struct wso_lock lock;  /* guards what follows */
    struct wso_list open;  /* slabs with pages lent and pages free */
    struct wso_list empty; /* slabs with none lent: one, and those that could not be unmapped */
};

int wso_pages_new(uint64_t most, struct wso_pages **pages)
{
    *pages = NULL;
    struct wso_pages *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return WSO_ENOMEM;
    }
    int status = wso_lock_init(&made->lock);
    if (status != WSO_OK) {
        free(made);
        return status;
    }
    uint64_t count = most / WSO_PAGE_SIZE + (most % WSO_PAGE_SIZE != 0);
    made->most = count < MOST_PAGES ? count : MOST_PAGES;
    wso_list_init(&made->open);
    wso_list_init(&made->empty);
    atomic_init(&made->shares, 1);
    *pages = made;
    return WSO_OK;
}

struct wso_pages *wso_pages_share(struct wso_pages *pages)
{
    atomic_fetch_add_explicit(&pages->shares, 1, memory_order_relaxed);
    return pages;
}

void wso_pages_release(struct wso_pages *pages)
{
    if (atomic_fetch_sub_explicit(&pages->shares, 1, memory_order_acq_rel) != 1) {
        return;
    }
    struct wso_link *link;
    while ((link = wso_list_pop_front(&pages->empty)) != NULL) {
        /* Where the system refuses (see unmap), nobody is left who could use the slab. */
        (void)munmap(WSO_ITEM(link, struct wso_slab, link), SLAB_SIZE);
    }
    wso_lock_destroy(&pages->lock);
    free(pages);
}

static struct wso_slab *map_slab(void)
{
    /* Zeroed, as a slab must be that has lent nothing. */
    void *slab = mmap(NULL, SLAB_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return slab == MAP_FAILED ? NULL : slab;
}

/* A slab with a free page, which is on the list of open ones; NULL if the system gives none. */
static struct wso_slab *find_slab_locked(struct wso_pages *pages)
{
    struct wso_link *link = wso_list_first(&pages->open);
    if (link != NULL) {
        return WSO_ITEM(link, struct wso_slab, link);
    }
    link = wso_list_pop_front(&pages->empty);
    struct wso_slab *slab = link != NULL ? WSO_ITEM(link, struct wso_slab, link) : map_slab();
    if (slab != NULL) {
        wso_list_push_front(&pages->open, &slab->link);
    }
    return slab;
}

static struct wso_page *take_locked(struct wso_pages *pages)
{
    struct wso_slab *slab = find_slab_locked(pages);
    if (slab == NULL) {
        return NULL;
    }
    struct wso_page *page = slab->back;
    if (page != NULL) {
        slab->back = page->next;
    } else {
        /* None is back, so those that were ever lent still are; the next one is fresh. */
        page = (struct wso_page *)(void *)slab + 1 + slab->lent;
        page->slab = slab;
    }
    if (++slab->lent == SLAB_PAGES) {
        wso_link_unlink(&slab->link);
    }
    page->next = NULL;
    page->start = page->end = 0;
    page->floor = 0;
    return page;
}

struct wso_page *wso_pages_take(struct wso_pages *pages, size_t count)
{
    struct wso_page *list = NULL;
    wso_lock_acquire(&pages->lock);
    uint64_t left = pages->most - atomic_load_explicit(&pages->lent, memory_order_relaxed);
    for (count = count < left ? count : (size_t)left; count > 0; count--) {
        struct wso_page *page = take_locked(pages);
        if (page == NULL) {
            break;
        }
        atomic_fetch_add_explicit(&pages->lent, 1, memory_order_relaxed);
        page->next = list;
        list = page;
    }
    wso_lock_release(&pages->lock);
    return list;
}

struct wso_page *wso_pages_take_floor(struct wso_pages *pages)
{
    wso_lock_acquire(&pages->lock);
    struct wso_page *page = take_locked(pages);
    if (page != NULL) {
        page->floor = 1;
        atomic_fetch_add_explicit(&pages->floors, 1, memory_order_relaxed);
    }
    wso_lock_release(&pages->lock);
    return page;
}

/* An empty slab is kept, so that one page that comes and goes does not map and unmap each time; a
 * second one is put on `gone`. */
static void give_locked(struct wso_pages *pages, struct wso_page *page, struct wso_list *gone)
{
    struct wso_slab *slab = page->slab;
    atomic_fetch_sub_explicit(page->floor ? &pages->floors : &pages->lent, 1,
                              memory_order_relaxed);
    page->next = slab->back;
    slab->back = page;
    if (slab->lent-- == SLAB_PAGES) {
        /* To the front: the fullest slabs lend first, so that the others become empty. */
        wso_list_push_front(&pages->open, &slab->link);
    }
    if (slab->lent == 0) {
        wso_link_unlink(&slab->link);
        wso_list_push_back(wso_list_empty(&pages->empty) ? &pages->empty : gone, &slab->link);
    }
}

static void unmap(struct wso_pages *pages, struct wso_list *gone)
{
    struct wso_link *link;
    while ((link = wso_list_pop_front(gone)) != NULL) {
        if (munmap(WSO_ITEM(link, struct wso_slab, link), SLAB_SIZE) != 0) {
            /* ENOMEM: the kernel had joined it with its neighbours, and to part them would be one
             * mapping too many (munmap(2)). So it is used again. */
            wso_lock_acquire(&pages->lock);
            wso_list_push_back(&pages->empty, link);
            wso_lock_release(&pages->lock);
        }
    }
}

void wso_pages_give(struct wso_pages *pages, struct wso_page *list)
{
    if (list == NULL) {
        return;
    }
    struct wso_list gone;
    wso_list_init(&gone);
    wso_lock_acquire(&pages->lock);
    while (list != NULL) {
        struct wso_page *page = list;
        list = page->next;
        give_locked(pages, page, &gone);
    }
    wso_lock_release(&pages->lock);
    unmap(pages, &gone);
}

/* Above half in proportion to what is left: a dynamic threshold, as switches have for the memory that
 * their ports share (Choudhury and Hahne, 1998). It goes down from `most` without a step. With a bound
 * B and `most` M, `n` wires that take all they may come to rest with B / (1 + n * 2M / B) left for
 * those who come later: 100 wires of 1 MiB each under 64 MiB hold half a MiB each and leave 15 MiB. */
uint64_t wso_pages_share_of(struct wso_pages *pages, uint64_t most, size_t in_hand)
{
    uint64_t bound = pages->most;
    uint64_t left = bound - (atomic_load_explicit(&pages->lent, memory_order_relaxed) - in_hand);
    uint64_t share = most < bound * WSO_PAGE_SIZE ? most : bound * WSO_PAGE_SIZE;
    if (2 * left < bound) {
        share = share / WSO_PAGE_SIZE * (2 * left) / bound * WSO_PAGE_SIZE;
    }
    return share > WSO_PAGE_SIZE ? share : WSO_PAGE_SIZE;
}

uint64_t wso_pages_lent(struct wso_pages *pages)
{
    return WSO_PAGE_SIZE * (atomic_load_explicit(&pages->lent, memory_order_relaxed) +
                            atomic_load_explicit(&pages->floors, memory_order_relaxed));
}
