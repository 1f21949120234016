/* wire.h, pages.h: what is read ahead is bounded, waits in order, and mutes no Ping before its time. */
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "check.h"
#include "sockets.h"
#include "wire_inner.h"

/* Any byte will do where nothing is guarded or all is one long frame. */
static uint8_t stream[1 << 20];

static void fill_stream(void)
{
    for (size_t i = 0; i < sizeof stream; i++) {
        stream[i] = (uint8_t)(i * 7 + i / 251);
    }
}

/* The peer sends what it can of the stream, up to this place. */
static void pour(struct link *link, size_t *sent, size_t end)
{
    while (*sent < end) {
        size_t piece = end - *sent < 4096 ? end - *sent : 4096;
        ssize_t size = send(link->peer, stream + *sent, piece, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (size <= 0) {
            return;
        }
        *sent += (size_t)size;
    }
}

static struct wso_wire_news fill(struct link *link)
{
    CHECK_EQ(wso_wire_fill(link->wire, &link->news), WSO_OK);
    return link->news;
}

static struct wso_wire_step step(struct link *link)
{
    struct wso_wire_step done;
    wso_wire_step(link->wire, wso_now(), &done);
    return done;
}

/* The stream is one frame as long as all of it. */
static void begin_long_frame(struct link *link)
{
    enum { HEADER = 14 };
    fill_stream();
    stream[0] = BINARY;
    stream[1] = 0xff;
    for (int i = 0; i < 8; i++) {
        stream[2 + i] = (uint8_t)((uint64_t)(sizeof stream - HEADER) >> 8 * (7 - i));
    }
    link_start(link);
}

TEST(the_inbox_is_bounded_and_is_filled_again_when_it_is_half_empty)
{
    enum { BOUND = 32768 };
    struct link link;
    uint8_t buffer[WSO_RECEIVE_MIN];
    size_t sent = 0, taken = 0;
    fill_stream();
    link_open_with(&link, &(struct link_options){.role = WSO_SERVER, .read_ahead = BOUND});
    do {
        pour(&link, &sent, sizeof stream);
        (void)fill(&link);
    } while (!link.news.full);
    uint64_t held = link_counts(&link).inbox;
    CHECK(held >= BOUND && held < BOUND + FILL_SIZE);
    /* Nothing more is read before half of it is taken. */
    while (held > BOUND / 2) {
        CHECK(fill(&link).full && link_counts(&link).inbox == held);
        CHECK_EQ(wso_wire_receive(link.wire, buffer, sizeof buffer, &link.news), WSO_OK);
        CHECK(link.news.received > 0 && link.news.more);
        CHECK(memcmp(buffer, stream + taken, link.news.received) == 0);
        taken += link.news.received;
        held -= link.news.received;
        CHECK_EQ(link.news.full, held > BOUND / 2);
    }
    CHECK_EQ(wso_wire_look(link.wire, &link.news), WSO_OK);
    CHECK(!link.news.full);
    (void)fill(&link);
    CHECK(link_counts(&link).inbox > held);
    while (taken < sizeof stream) {
        pour(&link, &sent, sizeof stream);
        CHECK_EQ(wso_wire_receive(link.wire, buffer, sizeof buffer, &link.news), WSO_OK);
        CHECK(memcmp(buffer, stream + taken, link.news.received) == 0);
        taken += link.news.received;
    }
    CHECK_EQ(wso_pages_lent(link.pages), 0);
    link_close(&link);
}

TEST(a_step_reads_64_KiB_and_wants_more_until_the_inbox_is_full)
{
    enum { BOUND = 400000 };
    struct link link;
    size_t sent = 0;
    link_open_with(&link, &(struct link_options){.role = WSO_SERVER, .read_ahead = BOUND});
    begin_long_frame(&link);
    struct wso_wire_step done;
    size_t read = 0;
    do {
        pour(&link, &sent, sizeof stream);
        done = step(&link);
        CHECK_EQ(done.did, WSO_DID_READ);
        CHECK(done.read <= 65536 + FILL_SIZE);
        read += done.read;
        CHECK_EQ(done.events, read >= BOUND ? 0 : EPOLLIN);
    } while (done.events != 0);
    CHECK(read < BOUND + FILL_SIZE);
    CHECK_EQ(link_counts(&link).inbox, read);
    CHECK_EQ(link_counts(&link).read_ahead, read);
    /* Nothing happens to a full one. */
    done = step(&link);
    CHECK(done.did == 0 && done.events == 0 && done.read == 0);
    while (link.received_size < sizeof stream) {
        pour(&link, &sent, sizeof stream);
        (void)link_receive(&link);
    }
    CHECK(link.received_size == sizeof stream);
    CHECK(memcmp(link.received, stream, sizeof stream) == 0);
    link_close(&link);
}

/* One sees the whole burst of a step in its own turn, however much lies behind it. */
TEST(a_ping_behind_as_much_as_may_be_read_ahead_is_answered)
{
    struct link link;
    static uint8_t payload[100000];
    link_open_with(&link, &(struct link_options){.role = WSO_SERVER, .read_ahead = 1 << 20});
    link_start(&link);
    for (int i = 0; i < 8; i++) {
        peer_send_frame(&link, BINARY, payload, sizeof payload);
        struct wso_wire_step done = step(&link);
        CHECK_EQ(done.events, EPOLLIN);
        done = step(&link);
        CHECK_EQ(done.events, EPOLLIN);
    }
    peer_ping(&link, "behind 800,000 bytes");
    struct wso_wire_step done = step(&link);
    CHECK_EQ(done.answered, 1);
    CHECK_EQ(done.did, WSO_DID_ANSWER);
    peer_expect_pong(&link, "behind 800,000 bytes");
    CHECK_EQ(link_receive(&link), 8 * (sizeof payload + 14));
    link_close(&link);
}

static struct wso_wire_step tick_at(struct link *link, uint64_t now)
{
    struct wso_wire_step done;
    wso_wire_tick(link->wire, now, &done);
    return done;
}

TEST(a_wire_that_the_common_bound_stopped_reads_on_when_others_give_pages_back)
{
    struct wso_pages *pages;
    CHECK_EQ(wso_pages_new(2 * WSO_PAGE_SIZE, &pages), WSO_OK);
    struct wso_page *all = wso_pages_take(pages, 2);
    struct link link;
    uint8_t payload[3000] = {0};
    struct wso_wire_settings settings = link_settings;
    uint64_t now = wso_now();
    settings.ping_interval = WSO_NS_PER_S;
    link_open_with(&link, &(struct link_options){.role = WSO_SERVER, .pages = pages});
    link_start_with(&link, &settings);
    uint64_t ping_at = tick_at(&link, now).next;
    peer_send_frame(&link, BINARY, payload, sizeof payload);
    peer_send_frame(&link, BINARY, payload, sizeof payload);
    WAIT_UNTIL(fill(&link).full);
    /* It asks again before the next Ping, or at it if that is sooner, for as long as nothing changes. */
    struct wso_wire_step done = tick_at(&link, now);
    CHECK(done.did == 0 && done.next > now && done.next < ping_at);
    CHECK_EQ(tick_at(&link, ping_at - 1).next, ping_at);
    wso_pages_give(pages, all);
    done = tick_at(&link, now);
    CHECK_EQ(done.did, WSO_DID_BLOCK);
    CHECK_EQ(done.next, ping_at);
    CHECK(!fill(&link).full);
    CHECK_EQ(link_receive(&link), 2 * (sizeof payload + 8));
    link_close(&link);
    wso_pages_release(pages);
}

TEST(a_wire_has_a_page_of_its_own_when_the_pool_lends_no_more)
{
    struct wso_pages *pages;
    CHECK_EQ(wso_pages_new(2 * WSO_PAGE_SIZE, &pages), WSO_OK);
    struct wso_page *all = wso_pages_take(pages, 2);
    CHECK(all != NULL && all->next != NULL);
    struct link link, other;
    uint8_t payload[3000] = {0};
    link_open_with(&link, &(struct link_options){.role = WSO_SERVER, .pages = pages});
    link_open_with(&other, &(struct link_options){.role = WSO_SERVER, .pages = pages});
    link_start(&link);
    link_start(&other);
    for (int i = 0; i < 3; i++) {
        peer_send_frame(&link, BINARY, payload, sizeof payload);
    }
    /* Its floor holds one frame and most of the next. */
    struct wso_wire_step done = step(&link);
    CHECK_EQ(done.events, 0);
    uint64_t held = link_counts(&link).inbox;
    CHECK(held > sizeof payload && held < WSO_PAGE_SIZE);
    CHECK_EQ(wso_pages_lent(pages), 3 * WSO_PAGE_SIZE);
    CHECK(fill(&link).full);
    CHECK_EQ(step(&link).events, 0);
    CHECK_EQ(link_counts(&link).inbox, held);
    CHECK_EQ(wso_pages_lent(pages), 3 * WSO_PAGE_SIZE);
    /* The other one has its own, so it hears Pings and keeps a message. */
    peer_ping(&other, "quiet");
    peer_send_frame(&other, TEXT, "message", 7);
    done = step(&other);
    CHECK_EQ(done.answered, 1);
    CHECK_EQ(done.events, EPOLLIN);
    CHECK_EQ(wso_pages_lent(pages), 4 * WSO_PAGE_SIZE);
    peer_expect_pong(&other, "quiet");
    /* One is all. */
    peer_send_frame(&other, BINARY, payload, sizeof payload);
    peer_send_frame(&other, BINARY, payload, sizeof payload);
    CHECK_EQ(step(&other).events, 0);
    CHECK_EQ(wso_pages_lent(pages), 4 * WSO_PAGE_SIZE);
    /* The loop takes its bytes and gives the floor back; then all goes on. */
    CHECK_EQ(link_receive(&link), 3 * (sizeof payload + 8));
    CHECK_EQ(link_receive(&other), 7 + 6 + 2 * (sizeof payload + 8));
    CHECK_EQ(wso_pages_lent(pages), 2 * WSO_PAGE_SIZE);
    wso_pages_give(pages, all);
    peer_send_frame(&link, BINARY, payload, sizeof payload);
    CHECK_EQ(step(&link).events, EPOLLIN);
    CHECK_EQ(wso_pages_lent(pages), WSO_PAGE_SIZE);
    CHECK_EQ(link_receive(&link), sizeof payload + 8);
    link_close(&link);
    link_close(&other);
    wso_pages_release(pages);
}

TEST(bytes_to_feed_that_the_pool_cannot_hold_are_refused_whole)
{
    struct wso_pages *pages;
    struct link link;
    CHECK_EQ(wso_pages_new(2 * WSO_PAGE_SIZE, &pages), WSO_OK);
    link_open_with(&link, &(struct link_options){.role = WSO_SERVER, .pages = pages});
    fill_stream();
    CHECK_EQ(wso_wire_feed(link.wire, stream, 2 * WSO_PAGE_BYTES + 1), WSO_ENOMEM);
    CHECK_EQ(link_counts(&link).inbox, 0);
    CHECK_EQ(wso_pages_lent(pages), 0);
    CHECK_EQ(wso_wire_feed(link.wire, stream, 2 * WSO_PAGE_BYTES), WSO_OK);
    link_check_received(&link, stream, 2 * WSO_PAGE_BYTES);
    link_close(&link);
    wso_pages_release(pages);
}

TEST(pings_cost_no_memory)
{
    struct link link;
    link_open(&link, WSO_SERVER);
    link_start(&link);
    for (int i = 0; i < 1000; i++) {
        peer_ping(&link, "one of many");
        struct wso_wire_step done = step(&link);
        CHECK(done.answered == 1 && done.did == WSO_DID_ANSWER && done.events == EPOLLIN);
        peer_expect_pong(&link, "one of many");
        CHECK_EQ(wso_pages_lent(link.pages), 0);
    }
    CHECK(!fill(&link).more && !link.news.full);
    link_close(&link);
}

TEST(what_a_retired_wire_held_is_given_back)
{
    struct link link;
    size_t sent = 0;
    fill_stream();
    link_open(&link, WSO_SERVER);
    pour(&link, &sent, 10000);
    (void)fill(&link);
    CHECK(wso_pages_lent(link.pages) > 0);
    CHECK_EQ(wso_wire_retire(link.wire, false), WSO_OK);
    CHECK_EQ(wso_pages_lent(link.pages), 0);
    /* Nobody uses the descriptor any more, whatever is called. */
    CHECK_EQ(link_counts(&link).state, WSO_WIRE_RETIRED);
    CHECK(!fill(&link).more);
    CHECK_EQ(link_receive(&link), 0);
    CHECK(!link.news.end && link.news.read_error == 0 && link.news.write_error == 0);
    link_send(&link, "x", 1);
    CHECK(link.news.unsent == 0 && !link.news.want_write);
    CHECK_EQ(wso_wire_flush(link.wire, &link.news), WSO_OK);
    CHECK_EQ(wso_wire_end_output(link.wire, &link.news), WSO_OK);
    CHECK_EQ(step(&link).events, 0);
    peer_expect_nothing(&link);
    link_close(&link);
}

/* A wire that is released with bytes in it, as at the end of a process. */
TEST(a_released_wire_leaves_nothing)
{
    struct link link;
    size_t sent = 0;
    fill_stream();
    link_open(&link, WSO_SERVER);
    pour(&link, &sent, 10000);
    (void)fill(&link);
    struct wso_wire *wire = link.wire;
    struct wso_wire_options options = {
        .fd = link.fd, .role = WSO_SERVER, .at_upgrade = true, .pages = link.pages};
    CHECK_EQ(wso_wire_new(&options, &link.wire), WSO_OK);
    CHECK(wso_wire_share(wire) == wire);
    wso_wire_release(wire);
    CHECK(wso_pages_lent(link.pages) > 0);
    wso_wire_release(wire);
    CHECK_EQ(wso_pages_lent(link.pages), 0);
    link_close(&link);
}
