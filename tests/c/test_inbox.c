/* inbox.h: bytes come out as they went in, whatever the pieces, and no page is lost. */
#include <string.h>

#include "check.h"
#include "inbox.h"
#include "random.h"

#define PAGE WSO_PAGE_BYTES

/* The byte at this place of the stream that goes through an inbox; its period is no page. */
static uint8_t byte_at(size_t place)
{
    return (uint8_t)(place % 251);
}

static void fill(uint8_t *bytes, size_t size, size_t place)
{
    for (size_t i = 0; i < size; i++) {
        bytes[i] = byte_at(place + i);
    }
}

static void check_bytes(const uint8_t *bytes, size_t size, size_t place)
{
    for (size_t i = 0; i < size; i++) {
        CHECK_EQ(bytes[i], byte_at(place + i));
    }
}

static struct wso_pages *new_pages(void)
{
    struct wso_pages *pages;
    CHECK_EQ(wso_pages_new(1024 * 1024, &pages), WSO_OK);
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

/* The inbox's own counts, against a look at each of its pages. */
static void check_inbox(const struct wso_inbox *inbox)
{
    size_t size = 0;
    size_t pages = 0;
    bool floor = false;
    const struct wso_page *last = NULL;
    for (const struct wso_page *page = inbox->first; page != NULL; page = page->next) {
        CHECK(page->start < page->end && page->end <= PAGE);
        CHECK(page->next == NULL || page->end == PAGE);
        size += (size_t)(page->end - page->start);
        pages++;
        floor = floor || page->floor;
        last = page;
    }
    CHECK_EQ(inbox->size, size);
    CHECK_EQ(inbox->pages, pages);
    CHECK_EQ(inbox->floor, floor);
    CHECK(inbox->last == last);
}

TEST(a_new_inbox_is_empty)
{
    struct wso_inbox inbox;
    memset(&inbox, 0xff, sizeof inbox);
    wso_inbox_init(&inbox);
    check_inbox(&inbox);
    CHECK_EQ(inbox.size, 0);
    CHECK_EQ(wso_inbox_room(&inbox, NULL), 0);
    struct wso_page *empty = NULL;
    uint8_t byte;
    CHECK_EQ(wso_inbox_take(&inbox, &byte, 1, &empty), 0);
    wso_inbox_clear(&inbox, &empty);
    CHECK(empty == NULL);
}

TEST(pages_are_brought_as_needed_and_no_sooner)
{
    static uint8_t bytes[2 * PAGE];
    struct wso_pages *pages = new_pages();
    struct wso_inbox inbox;
    wso_inbox_init(&inbox);
    struct wso_page *spare = wso_pages_take(pages, 3);
    fill(bytes, sizeof bytes, 0);
    CHECK_EQ(wso_inbox_room(&inbox, spare), 3 * PAGE);
    wso_inbox_put(&inbox, bytes, 0, &spare);
    CHECK_EQ(length(spare), 3);
    wso_inbox_put(&inbox, bytes, 1, &spare);
    CHECK_EQ(length(spare), 2);
    CHECK_EQ(wso_inbox_room(&inbox, spare), 3 * PAGE - 1);
    CHECK_EQ(wso_inbox_room(&inbox, NULL), PAGE - 1);
    /* To the page's last byte, and no other is begun for nothing. */
    wso_inbox_put(&inbox, bytes + 1, PAGE - 2, &spare);
    wso_inbox_put(&inbox, bytes + PAGE - 1, 1, &spare);
    CHECK_EQ(length(spare), 2);
    CHECK_EQ(wso_inbox_room(&inbox, NULL), 0);
    wso_inbox_put(&inbox, bytes + PAGE, PAGE, &spare);
    CHECK_EQ(length(spare), 1);
    check_inbox(&inbox);
    CHECK_EQ(inbox.pages, 2);

    static uint8_t out[2 * PAGE + 1];
    struct wso_page *empty = NULL;
    CHECK_EQ(wso_inbox_take(&inbox, out, 0, &empty), 0);
    CHECK_EQ(wso_inbox_take(&inbox, out, PAGE - 1, &empty), PAGE - 1);
    CHECK(empty == NULL);
    CHECK_EQ(wso_inbox_take(&inbox, out + PAGE - 1, 1, &empty), 1);
    CHECK_EQ(length(empty), 1);
    CHECK_EQ(wso_inbox_take(&inbox, out + PAGE, PAGE + 1, &empty), PAGE);
    CHECK_EQ(length(empty), 2);
    check_bytes(out, 2 * PAGE, 0);
    check_inbox(&inbox);
    CHECK_EQ(inbox.size, 0);
    wso_pages_give(pages, empty);
    wso_pages_give(pages, spare);
    drop(pages);
}

TEST(the_floor_comes_and_goes_with_its_page)
{
    static uint8_t bytes[3 * PAGE];
    struct wso_pages *pages = new_pages();
    struct wso_inbox inbox;
    wso_inbox_init(&inbox);
    struct wso_page *spare = wso_pages_take(pages, 2);
    spare->next->next = wso_pages_take_floor(pages);
    wso_inbox_put(&inbox, bytes, 2 * PAGE, &spare);
    CHECK(!inbox.floor);
    wso_inbox_put(&inbox, bytes, 1, &spare);
    CHECK(inbox.floor && spare == NULL);
    struct wso_page *empty = NULL;
    CHECK_EQ(wso_inbox_take(&inbox, bytes, 2 * PAGE, &empty), 2 * PAGE);
    CHECK(inbox.floor);
    CHECK_EQ(wso_inbox_take(&inbox, bytes, 2 * PAGE, &empty), 1);
    CHECK(!inbox.floor);
    check_inbox(&inbox);
    wso_pages_give(pages, empty);
    drop(pages);
}

TEST(a_page_that_is_not_fresh_is_filled_from_its_start)
{
    struct wso_pages *pages = new_pages();
    struct wso_inbox inbox;
    wso_inbox_init(&inbox);
    struct wso_page *spare = wso_pages_take(pages, 1);
    struct wso_page *empty = NULL;
    uint8_t bytes[10];
    for (size_t i = 0; i < 3; i++) {
        fill(bytes, sizeof bytes, i);
        wso_inbox_put(&inbox, bytes, sizeof bytes, &spare);
        CHECK_EQ(wso_inbox_room(&inbox, spare), PAGE - sizeof bytes);
        CHECK_EQ(wso_inbox_take(&inbox, bytes, sizeof bytes, &empty), sizeof bytes);
        check_bytes(bytes, sizeof bytes, i);
        /* As it is, without a visit to the pool. */
        spare = empty;
        empty = NULL;
    }
    wso_pages_give(pages, spare);
    drop(pages);
}

TEST(a_cleared_inbox_is_as_new)
{
    static uint8_t bytes[3 * PAGE];
    struct wso_pages *pages = new_pages();
    struct wso_inbox inbox;
    wso_inbox_init(&inbox);
    struct wso_page *spare = wso_pages_take(pages, 2);
    spare->next->next = wso_pages_take_floor(pages);
    wso_inbox_put(&inbox, bytes, 2 * PAGE + 1, &spare);
    struct wso_page *empty = NULL;
    CHECK_EQ(wso_inbox_take(&inbox, bytes, 1, &empty), 1);
    wso_inbox_clear(&inbox, &empty);
    CHECK_EQ(length(empty), 3);
    check_inbox(&inbox);
    CHECK(inbox.first == NULL && inbox.size == 0 && !inbox.floor);
    wso_pages_give(pages, empty);
    drop(pages);
}

/* A stream through an inbox in random pieces. */

struct stream {
    struct wso_inbox inbox;
    struct wso_pages *pages;
    struct wso_page *floor; /* NULL: in the inbox */
    size_t put, taken;
    uint64_t random;
};

static void put_some(struct stream *stream)
{
    static uint8_t bytes[5 * PAGE];
    size_t count = random_below(&stream->random, 4);
    struct wso_page *spare = wso_pages_take(stream->pages, count);
    if (stream->floor != NULL && random_below(&stream->random, 4) == 0) {
        stream->floor->next = spare;
        spare = stream->floor;
        stream->floor = NULL;
    }
    size_t room = wso_inbox_room(&stream->inbox, spare);
    size_t size = random_below(&stream->random, room + 1);
    size = random_below(&stream->random, 3) == 0 ? room : size;
    fill(bytes, size, stream->put);
    wso_inbox_put(&stream->inbox, bytes, size, &spare);
    CHECK_EQ(wso_inbox_room(&stream->inbox, spare), room - size);
    stream->put += size;
    wso_pages_give(stream->pages, spare);
}

static void take_some(struct stream *stream)
{
    static uint8_t bytes[4 * PAGE];
    size_t there = stream->put - stream->taken;
    size_t size = random_below(&stream->random, sizeof bytes + 1);
    struct wso_page *empty = NULL;
    size_t taken = wso_inbox_take(&stream->inbox, bytes, size, &empty);
    CHECK_EQ(taken, size < there ? size : there);
    check_bytes(bytes, taken, stream->taken);
    stream->taken += taken;
    wso_pages_give(stream->pages, empty);
}

TEST(a_stream_comes_out_as_it_went_in)
{
    struct stream stream = {.random = 11, .pages = new_pages()};
    wso_inbox_init(&stream.inbox);
    stream.floor = wso_pages_take_floor(stream.pages);
    for (int step = 0; step < 4000; step++) {
        /* It fills and empties by turns. */
        if (random_below(&stream.random, 4) < (unsigned)(step / 100 % 2 == 0 ? 3 : 1)) {
            put_some(&stream);
        } else {
            take_some(&stream);
        }
        check_inbox(&stream.inbox);
        CHECK_EQ(stream.inbox.size, stream.put - stream.taken);
        size_t floors = stream.floor != NULL && !stream.inbox.floor;
        CHECK_EQ(wso_pages_lent(stream.pages) / WSO_PAGE_SIZE, stream.inbox.pages + floors);
        if (stream.floor == NULL && !stream.inbox.floor) {
            stream.floor = wso_pages_take_floor(stream.pages);
        }
    }
    CHECK(stream.taken > 1000 * 1000);
    struct wso_page *empty = NULL;
    wso_inbox_clear(&stream.inbox, &empty);
    wso_pages_give(stream.pages, empty);
    wso_pages_give(stream.pages, stream.floor);
    drop(stream.pages);
}
