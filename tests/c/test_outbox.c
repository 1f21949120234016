/* outbox.h: bytes come out as they went in; small writes lie together; what was sent is gone. */
#include <string.h>

#include "check.h"
#include "outbox.h"
#include "random.h"

/* The byte at this place of the stream that goes through an outbox. */
static uint8_t byte_at(size_t place)
{
    return (uint8_t)(place % 251);
}

static void put(struct wso_outbox *outbox, size_t size, size_t place)
{
    static uint8_t bytes[100000];
    CHECK(size <= sizeof bytes);
    for (size_t i = 0; i < size; i++) {
        bytes[i] = byte_at(place + i);
    }
    CHECK_EQ(wso_outbox_put(outbox, bytes, size), WSO_OK);
    /* It keeps a copy. */
    memset(bytes, 0xff, size);
}

/* The pieces are the stream from this place on; their size. */
static size_t check_pieces(const struct iovec *pieces, int count, size_t place)
{
    size_t size = 0;
    for (int i = 0; i < count; i++) {
        const uint8_t *bytes = pieces[i].iov_base;
        CHECK(pieces[i].iov_len > 0);
        for (size_t j = 0; j < pieces[i].iov_len; j++) {
            CHECK_EQ(bytes[j], byte_at(place + size + j));
        }
        size += pieces[i].iov_len;
    }
    return size;
}

TEST(a_new_outbox_is_empty)
{
    struct wso_outbox outbox;
    struct iovec piece;
    memset(&outbox, 0xff, sizeof outbox);
    wso_outbox_init(&outbox);
    CHECK_EQ(outbox.size, 0);
    CHECK_EQ(wso_outbox_peek(&outbox, &piece, 1), 0);
    CHECK_EQ(wso_outbox_put(&outbox, NULL, 0), WSO_OK);
    wso_outbox_drop(&outbox, 0);
    wso_outbox_clear(&outbox);
    CHECK(outbox.first == NULL && outbox.last == NULL);
}

TEST(small_writes_share_a_block_of_4_KiB)
{
    struct wso_outbox outbox;
    struct iovec pieces[8];
    wso_outbox_init(&outbox);
    for (size_t i = 0; i < 64; i++) {
        put(&outbox, 64, i * 64);
        CHECK_EQ(wso_outbox_peek(&outbox, pieces, 8), 1);
    }
    CHECK_EQ(outbox.size, 4096);
    put(&outbox, 1, 4096);
    CHECK_EQ(wso_outbox_peek(&outbox, pieces, 8), 2);
    CHECK_EQ(pieces[0].iov_len, 4096);
    CHECK_EQ(pieces[1].iov_len, 1);
    CHECK_EQ(check_pieces(pieces, 2, 0), 4097);
    wso_outbox_clear(&outbox);
    CHECK_EQ(outbox.size, 0);
    CHECK_EQ(wso_outbox_peek(&outbox, pieces, 8), 0);
}

TEST(a_large_write_fills_the_last_block_and_has_one_of_its_size)
{
    struct wso_outbox outbox;
    struct iovec pieces[8];
    wso_outbox_init(&outbox);
    put(&outbox, 4000, 0);
    put(&outbox, 10000, 4000);
    put(&outbox, 5, 14000);
    CHECK_EQ(outbox.size, 14005);
    CHECK_EQ(wso_outbox_peek(&outbox, pieces, 8), 3);
    CHECK_EQ(pieces[0].iov_len, 4096);
    CHECK_EQ(pieces[1].iov_len, 10000 - 96);
    CHECK_EQ(pieces[2].iov_len, 5);
    CHECK_EQ(check_pieces(pieces, 3, 0), 14005);
    wso_outbox_clear(&outbox);
}

TEST(no_more_pieces_are_shown_than_asked_for)
{
    struct wso_outbox outbox;
    struct iovec pieces[3];
    wso_outbox_init(&outbox);
    put(&outbox, 10000, 0);
    put(&outbox, 10000, 10000);
    put(&outbox, 10000, 20000);
    CHECK_EQ(wso_outbox_peek(&outbox, pieces, 0), 0);
    memset(pieces, 0, sizeof pieces);
    CHECK_EQ(wso_outbox_peek(&outbox, pieces, 2), 2);
    CHECK(pieces[2].iov_base == NULL);
    CHECK_EQ(check_pieces(pieces, 2, 0), 20000);
    wso_outbox_clear(&outbox);
}

TEST(what_was_sent_is_dropped_in_any_pieces)
{
    struct wso_outbox outbox;
    struct iovec pieces[3];
    wso_outbox_init(&outbox);
    for (size_t i = 0; i < 3; i++) {
        put(&outbox, 5000, i * 5000);
    }
    const size_t drops[] = {1, 4999, 5001, 4998, 1};
    size_t place = 0;
    for (int i = 0; i < 5; i++) {
        int count = wso_outbox_peek(&outbox, pieces, 3);
        CHECK_EQ(check_pieces(pieces, count, place), 15000 - place);
        wso_outbox_drop(&outbox, drops[i]);
        place += drops[i];
        CHECK_EQ(outbox.size, 15000 - place);
    }
    CHECK_EQ(wso_outbox_peek(&outbox, pieces, 3), 0);
    /* And it can be used again. */
    put(&outbox, 7, 0);
    CHECK_EQ(wso_outbox_peek(&outbox, pieces, 3), 1);
    CHECK_EQ(check_pieces(pieces, 1, 0), 7);
    wso_outbox_clear(&outbox);
}

TEST(a_stream_comes_out_as_it_went_in)
{
    struct wso_outbox outbox;
    uint64_t random = 5;
    size_t written = 0;
    size_t sent = 0;
    wso_outbox_init(&outbox);
    for (int step = 0; step < 2000; step++) {
        bool large = random_below(&random, 20) == 0;
        if (random_below(&random, 2) == 0) {
            size_t size = random_below(&random, large ? 50000 : 2000);
            put(&outbox, size, written);
            written += size;
        } else {
            size_t size = random_below(&random, large ? written - sent + 1 : 3000);
            size = size < written - sent ? size : written - sent;
            wso_outbox_drop(&outbox, size);
            sent += size;
        }
        struct iovec pieces[5];
        int most = (int)random_below(&random, 6);
        int count = wso_outbox_peek(&outbox, pieces, most);
        size_t shown = check_pieces(pieces, count, sent);
        CHECK_EQ(outbox.size, written - sent);
        CHECK(count <= most);
        CHECK(count == most ? shown <= outbox.size : shown == outbox.size);
    }
    CHECK(sent > 1000 * 1000);
    wso_outbox_clear(&outbox);
    CHECK_EQ(outbox.size, 0);
}
