/* pages.h: a page is lent to one at a time, the bound is kept, and slabs come and go. */
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"
#include "pages.h"
#include "random.h"

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define PAGE UINT64_C(4096)

/* A slab of 1 MiB has room for so many pages besides its own head. */
enum { SLAB_PAGES = 255 };

static struct wso_pages *new_pages(uint64_t most)
{
    struct wso_pages *pages;
    CHECK_EQ(wso_pages_new(most, &pages), WSO_OK);
    CHECK_EQ(wso_pages_lent(pages), 0);
    return pages;
}

static void drop(struct wso_pages *pages)
{
    CHECK_EQ(wso_pages_lent(pages), 0);
    wso_pages_release(pages);
}

static size_t length(const struct wso_page *list)
{
    size_t count = 0;
    for (; list != NULL; list = list->next) {
        count++;
    }
    return count;
}

static bool is_mapped(void *memory)
{
    unsigned char resident;
    return mincore(memory, PAGE, &resident) == 0;
}

TEST(a_page_is_empty_aligned_and_its_takers_alone)
{
    enum { COUNT = 2 * SLAB_PAGES + 1 };
    struct wso_pages *pages = new_pages(4 * MIB);
    struct wso_page *list = wso_pages_take(pages, COUNT);
    CHECK_EQ(length(list), COUNT);
    CHECK_EQ(wso_pages_lent(pages), COUNT * PAGE);
    uint8_t name = 0;
    for (struct wso_page *page = list; page != NULL; page = page->next) {
        CHECK_EQ((uintptr_t)page % PAGE, 0);
        CHECK_EQ(page->start, 0);
        CHECK_EQ(page->end, 0);
        CHECK_EQ(page->floor, 0);
        memset(page->bytes, name++, WSO_PAGE_BYTES);
    }
    name = 0;
    for (struct wso_page *page = list; page != NULL; page = page->next, name++) {
        CHECK(page->bytes[0] == name && page->bytes[WSO_PAGE_BYTES - 1] == name);
        CHECK(memcmp(page->bytes, page->bytes + 1, WSO_PAGE_BYTES - 1) == 0);
    }
    wso_pages_give(pages, list);
    drop(pages);
}

TEST(a_page_that_was_used_comes_back_empty)
{
    struct wso_pages *pages = new_pages(MIB);
    struct wso_page *first = wso_pages_take_floor(pages);
    first->start = 7;
    first->end = 9;
    wso_pages_give(pages, first);
    struct wso_page *again = wso_pages_take(pages, 1);
    CHECK(again == first);
    CHECK(again->next == NULL && again->start == 0 && again->end == 0 && again->floor == 0);
    wso_pages_give(pages, again);
    drop(pages);
}

TEST(nothing_taken_and_nothing_given_is_nothing)
{
    struct wso_pages *pages = new_pages(MIB);
    CHECK(wso_pages_take(pages, 0) == NULL);
    wso_pages_give(pages, NULL);
    drop(pages);
}

TEST(the_bound_is_rounded_up_to_pages_and_kept)
{
    struct wso_pages *pages = new_pages(10 * PAGE + 1);
    struct wso_page *some = wso_pages_take(pages, 8);
    struct wso_page *rest = wso_pages_take(pages, 8);
    CHECK_EQ(length(some), 8);
    CHECK_EQ(length(rest), 3);
    CHECK(wso_pages_take(pages, 1) == NULL);
    wso_pages_give(pages, rest);
    wso_pages_give(pages, some);
    drop(pages);
    pages = new_pages(10 * PAGE);
    some = wso_pages_take(pages, 11);
    CHECK_EQ(length(some), 10);
    wso_pages_give(pages, some);
    drop(pages);
}

TEST(a_floor_is_beyond_the_bound_in_both_directions)
{
    struct wso_pages *pages = new_pages(2 * PAGE);
    struct wso_page *floor = wso_pages_take_floor(pages);
    CHECK_EQ(floor->floor, 1);
    CHECK(floor->next == NULL);
    struct wso_page *two = wso_pages_take(pages, 3);
    CHECK_EQ(length(two), 2);
    CHECK_EQ(wso_pages_lent(pages), 3 * PAGE);
    struct wso_page *other = wso_pages_take_floor(pages);
    CHECK(other != NULL && other != floor);
    wso_pages_give(pages, floor);
    CHECK(wso_pages_take(pages, 1) == NULL);
    CHECK_EQ(wso_pages_lent(pages), 3 * PAGE);
    wso_pages_give(pages, two);
    two = wso_pages_take(pages, 3);
    CHECK_EQ(length(two), 2);
    other->next = two;
    wso_pages_give(pages, other);
    drop(pages);
}

TEST(a_bound_of_nothing_lends_floors_alone)
{
    struct wso_pages *pages = new_pages(0);
    CHECK(wso_pages_take(pages, 1) == NULL);
    CHECK_EQ(wso_pages_share_of(pages, MIB, 0), PAGE);
    struct wso_page *floor = wso_pages_take_floor(pages);
    CHECK_EQ(wso_pages_lent(pages), PAGE);
    wso_pages_give(pages, floor);
    drop(pages);
}

TEST(a_bound_beyond_all_memory_is_no_other)
{
    struct wso_pages *pages = new_pages(UINT64_MAX);
    CHECK_EQ(wso_pages_share_of(pages, MIB, 0), MIB);
    CHECK_EQ(wso_pages_share_of(pages, UINT64_MAX, 0), 8 * MIB * MIB);
    struct wso_page *list = wso_pages_take(pages, 3);
    CHECK_EQ(length(list), 3);
    wso_pages_give(pages, list);
    drop(pages);
}

TEST(a_slab_whose_pages_are_back_is_unmapped_but_for_one)
{
    struct wso_pages *pages = new_pages(8 * MIB);
    struct wso_page *slabs[3];
    for (int i = 0; i < 3; i++) {
        slabs[i] = wso_pages_take(pages, SLAB_PAGES);
    }
    /* One page of the second stays; the first is empty and kept, the third is one too many. */
    struct wso_page *stays = slabs[1];
    slabs[1] = stays->next;
    stays->next = NULL;
    for (int i = 0; i < 3; i++) {
        wso_pages_give(pages, slabs[i]);
    }
    CHECK(is_mapped(slabs[0]));
    CHECK(is_mapped(slabs[1]));
    CHECK(!is_mapped(slabs[2]));
    wso_pages_give(pages, stays);
    CHECK(is_mapped(slabs[0]));
    CHECK(!is_mapped(slabs[1]));
    /* What is kept is used again, all of it. */
    struct wso_page *again = wso_pages_take(pages, SLAB_PAGES);
    CHECK_EQ(length(again), SLAB_PAGES);
    for (struct wso_page *page = again; page != NULL; page = page->next) {
        CHECK(page->slab == slabs[0]->slab);
    }
    wso_pages_give(pages, again);
    drop(pages);
    CHECK(!is_mapped(slabs[0]));
}

TEST(one_page_that_comes_and_goes_maps_nothing)
{
    struct wso_pages *pages = new_pages(8 * MIB);
    struct wso_page *full = wso_pages_take(pages, SLAB_PAGES);
    struct wso_page *first = wso_pages_take(pages, 1);
    struct wso_slab *slab = first->slab;
    CHECK(slab != full->slab);
    wso_pages_give(pages, first);
    CHECK(is_mapped(slab));
    struct wso_page *second = wso_pages_take(pages, 1);
    CHECK(second == first);
    wso_pages_give(pages, second);
    wso_pages_give(pages, full);
    drop(pages);
}

TEST(the_fullest_slab_lends_first)
{
    struct wso_pages *pages = new_pages(8 * MIB);
    struct wso_page *full = wso_pages_take(pages, SLAB_PAGES);
    struct wso_page *other = wso_pages_take(pages, 1);
    struct wso_page *rest = full->next;
    full->next = NULL;
    struct wso_slab *slab = full->slab;
    wso_pages_give(pages, full);
    struct wso_page *again = wso_pages_take(pages, 1);
    CHECK(again->slab == slab);
    wso_pages_give(pages, again);
    wso_pages_give(pages, rest);
    wso_pages_give(pages, other);
    drop(pages);
}

TEST(a_pool_lives_until_its_last_share)
{
    struct wso_pages *pages = new_pages(MIB);
    CHECK(wso_pages_share(pages) == pages);
    wso_pages_release(pages);
    struct wso_page *page = wso_pages_take(pages, 1);
    CHECK(page != NULL);
    wso_pages_give(pages, page);
    drop(pages);
}

/* Many threads take, sign, check and give back at random. */

enum { TAKERS = 4, STEPS = 4000, HELD = 64, BOUND_PAGES = 3 * SLAB_PAGES / 2 };

struct taker {
    pthread_t thread;
    struct wso_pages *pages; /* a share of its own */
    uint8_t name;
};

static void sign(struct wso_page *list, uint8_t name, struct wso_page **held, size_t *count)
{
    while (list != NULL) {
        struct wso_page *page = list;
        list = page->next;
        page->next = NULL;
        memset(page->bytes, name, WSO_PAGE_BYTES);
        held[(*count)++] = page;
    }
}

static void *take_and_give(void *argument)
{
    struct taker *taker = argument;
    uint64_t random = taker->name;
    struct wso_page *held[HELD * 4];
    size_t count = 0;
    for (int step = 0; step < STEPS; step++) {
        if (random_below(&random, 8) == 0) {
            sign(wso_pages_take_floor(taker->pages), taker->name, held, &count);
        } else if (random_below(&random, 2) == 0) {
            struct wso_page *list = wso_pages_take(taker->pages, random_below(&random, HELD));
            sign(list, taker->name, held, &count);
        }
        uint64_t share = wso_pages_share_of(taker->pages, 32 * PAGE, 0);
        CHECK(share >= PAGE && share <= 32 * PAGE);
        CHECK(wso_pages_lent(taker->pages) <= (BOUND_PAGES + TAKERS * HELD * 4) * PAGE);
        struct wso_page *back = NULL;
        size_t keep = step + 1 == STEPS ? 0 : random_below(&random, HELD);
        while (count > keep) {
            struct wso_page *page = held[--count];
            CHECK(page->bytes[0] == taker->name);
            CHECK(memcmp(page->bytes, page->bytes + 1, WSO_PAGE_BYTES - 1) == 0);
            page->next = back;
            back = page;
        }
        wso_pages_give(taker->pages, back);
    }
    wso_pages_release(taker->pages);
    return NULL;
}

TEST(many_threads_never_hold_the_same_page)
{
    struct wso_pages *pages = new_pages(BOUND_PAGES * PAGE);
    struct taker takers[TAKERS];
    for (uint8_t i = 0; i < TAKERS; i++) {
        takers[i] = (struct taker){.pages = wso_pages_share(pages), .name = (uint8_t)(i + 1)};
        CHECK_EQ(pthread_create(&takers[i].thread, NULL, take_and_give, &takers[i]), 0);
    }
    for (int i = 0; i < TAKERS; i++) {
        CHECK_EQ(pthread_join(takers[i].thread, NULL), 0);
    }
    struct wso_page *all = wso_pages_take(pages, SIZE_MAX);
    CHECK_EQ(length(all), BOUND_PAGES);
    wso_pages_give(pages, all);
    drop(pages);
}
