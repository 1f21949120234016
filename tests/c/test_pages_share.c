/* pages.h: what one wire may hold goes down with what is left, so that who comes late finds a page. */
#include "check.h"
#include "inbox.h"
#include "pages.h"

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define PAGE UINT64_C(4096)

static struct wso_pages *new_pages(uint64_t most)
{
    struct wso_pages *pages;
    CHECK_EQ(wso_pages_new(most, &pages), WSO_OK);
    return pages;
}

static void drop(struct wso_pages *pages)
{
    CHECK_EQ(wso_pages_lent(pages), 0);
    wso_pages_release(pages);
}

/* Put one page more in front of *list. */
static void take_more(struct wso_pages *pages, struct wso_page **list)
{
    struct wso_page *page = wso_pages_take(pages, 1);
    CHECK(page != NULL);
    page->next = *list;
    *list = page;
}

TEST(a_share_goes_down_from_half_of_the_bound_to_one_page)
{
    enum { BOUND = 64 };
    struct wso_pages *pages = new_pages(BOUND * PAGE);
    const uint64_t most = 16 * PAGE + 5;
    struct wso_page *list = NULL;
    uint64_t before = most;
    for (unsigned lent = 0; lent <= BOUND; lent++) {
        uint64_t share = wso_pages_share_of(pages, most, 0);
        if (lent <= BOUND / 2) {
            CHECK_EQ(share, most);
        } else {
            /* 16 pages * left / 32, and from below 16 pages on no step is larger than a page. */
            uint64_t part = (BOUND - lent) / 2;
            CHECK_EQ(share, (part > 1 ? part : 1) * PAGE);
            CHECK(share <= before && before - share <= PAGE + 5);
        }
        before = share;
        CHECK_EQ(wso_pages_share_of(pages, 1, 0), PAGE);
        if (lent < BOUND) {
            take_more(pages, &list);
        }
    }
    wso_pages_give(pages, list);
    CHECK_EQ(wso_pages_share_of(pages, most, 0), most);
    drop(pages);
}

TEST(a_share_is_never_more_than_the_bound)
{
    struct wso_pages *pages = new_pages(4 * PAGE);
    struct wso_page *list = NULL;
    const uint64_t shares[] = {4, 4, 4, 2, 1};
    for (unsigned lent = 0; lent <= 4; lent++) {
        CHECK_EQ(wso_pages_share_of(pages, MIB, 0), shares[lent] * PAGE);
        CHECK_EQ(wso_pages_share_of(pages, UINT64_MAX, 0), shares[lent] * PAGE);
        CHECK_EQ(wso_pages_share_of(pages, UINT64_MAX, lent), 4 * PAGE);
        if (lent < 4) {
            take_more(pages, &list);
        }
    }
    wso_pages_give(pages, list);
    drop(pages);
}

TEST(floors_do_not_make_shares_smaller)
{
    struct wso_pages *pages = new_pages(2 * PAGE);
    struct wso_page *list = NULL;
    for (int i = 0; i < 10; i++) {
        struct wso_page *floor = wso_pages_take_floor(pages);
        floor->next = list;
        list = floor;
    }
    CHECK_EQ(wso_pages_share_of(pages, 2 * PAGE, 0), 2 * PAGE);
    wso_pages_give(pages, list);
    drop(pages);
}

/* Read ahead as a wire does: while it holds less than its share, a step of at most 64 KiB. */
static void read_ahead(struct wso_pages *pages, struct wso_inbox *inbox, uint64_t most)
{
    static const uint8_t offered[16 * 1024];
    struct wso_page *spare = wso_pages_take(pages, 16);
    struct wso_page *floor = spare == NULL && !inbox->floor ? wso_pages_take_floor(pages) : NULL;
    struct wso_page **from = spare == NULL ? &floor : &spare;
    for (int i = 0; i < 4 && inbox->size < wso_pages_share_of(pages, most, 0); i++) {
        size_t room = wso_inbox_room(inbox, *from);
        wso_inbox_put(inbox, offered, room < sizeof offered ? room : sizeof offered, from);
    }
    wso_pages_give(pages, spare);
    wso_pages_give(pages, floor);
}

/* `count` wires are offered 10 MiB each, `first` of them before the others; then a newcomer comes.
 * The least and the most that one of them holds. */
static void crowd(unsigned count, unsigned first, uint64_t *least, uint64_t *most)
{
    enum { ROUNDS = 160 };
    static struct wso_inbox inboxes[10001];
    struct wso_pages *pages = new_pages(64 * MIB);
    for (unsigned i = 0; i <= count; i++) {
        wso_inbox_init(&inboxes[i]);
    }
    for (unsigned i = 0; i < ROUNDS * first; i++) {
        read_ahead(pages, &inboxes[i % first], MIB);
    }
    for (unsigned i = 0; i < ROUNDS * count; i++) {
        read_ahead(pages, &inboxes[i % count], MIB);
        CHECK(wso_pages_lent(pages) <= 64 * MIB + count * PAGE);
    }
    CHECK(wso_pages_share_of(pages, MIB, 0) >= PAGE);
    read_ahead(pages, &inboxes[count], MIB);
    CHECK(inboxes[count].size >= WSO_PAGE_BYTES);
    *least = UINT64_MAX;
    *most = 0;
    for (unsigned i = 0; i <= count; i++) {
        uint64_t size = inboxes[i].size;
        *least = i < count && size < *least ? size : *least;
        *most = size > *most ? size : *most;
        struct wso_page *empty = NULL;
        wso_inbox_clear(&inboxes[i], &empty);
        wso_pages_give(pages, empty);
    }
    drop(pages);
}

TEST(a_few_floods_get_all_they_may)
{
    uint64_t least, most;
    crowd(32, 1, &least, &most);
    CHECK(least >= 960 * KIB && most <= MIB + 16 * KIB);
}

TEST(a_hundred_floods_share_the_bound_and_leave_something)
{
    uint64_t least, most;
    crowd(100, 1, &least, &most);
    /* 0.485 MiB each, as pages.c says. */
    CHECK(least >= 448 * KIB && most <= MIB + 16 * KIB);
}

TEST(who_came_first_does_not_mute_the_others)
{
    uint64_t least, most;
    crowd(100, 40, &least, &most);
    CHECK(least >= 256 * KIB);
}

TEST(ten_thousand_floods_have_a_page_each)
{
    uint64_t least, most;
    crowd(10000, 1, &least, &most);
    CHECK(least >= WSO_PAGE_BYTES);
}
