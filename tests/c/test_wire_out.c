/* wire.h, output: the library's bytes in order, frames of ours only between its frames (5.4). */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "check.h"
#include "sockets.h"
#include "wire_inner.h"

#define SECOND WSO_NS_PER_S

static const enum wso_role roles[] = {WSO_SERVER, WSO_CLIENT};

/* With the smallest send buffer that there is. */
#define BOTH_ROLES(link)                                                                           \
    for (int i_role = 0; i_role < 2 && (open_small(&(link), roles[i_role]), true);                 \
         link_close(&(link)), i_role++)

static uint8_t large[1 << 20];

static void open_small(struct link *link, enum wso_role role)
{
    for (size_t i = 0; i < sizeof large; i++) {
        large[i] = (uint8_t)(i * 31 + i / 65536);
    }
    link_open_with(link, &(struct link_options){.role = role, .send_buffer = 1});
    link_start(link);
}

/* The library sends a frame of this size, which the kernel does not take whole. */
static void send_blocked(struct link *link, size_t size)
{
    link_send_frame(link, BINARY, large, size);
    CHECK(link->news.want_write && link->news.unsent > 0 && link->news.unsent < size);
}

static void flush(struct link *link)
{
    CHECK_EQ(wso_wire_flush(link->wire, &link->news), WSO_OK);
}

/* The peer reads this many bytes at a time, and the loop's side goes on each time. */
static void drain(struct link *link, size_t most)
{
    while (peer_read(link, most) > 0) {
        flush(link);
    }
    CHECK(!link->news.want_write && link->news.unsent == 0);
}

TEST(what_the_kernel_does_not_take_is_sent_when_it_does)
{
    struct link link;
    BOTH_ROLES(link)
    {
        send_blocked(&link, sizeof large);
        link_send_frame(&link, TEXT, "behind", 6);
        CHECK(link.news.unsent > sizeof large / 2);
        drain(&link, 50000);
        peer_expect(&link, BINARY, large, sizeof large);
        peer_expect(&link, TEXT, "behind", 6);
        peer_expect_nothing(&link);
    }
}

TEST(a_frame_of_ours_waits_for_the_end_of_a_blocked_one_and_goes_before_the_next)
{
    struct link link;
    BOTH_ROLES(link)
    {
        send_blocked(&link, 100000);
        link_send_frame(&link, TEXT, "next", 4);
        peer_ping(&link, "in the middle");
        CHECK_EQ(link_receive(&link), 0);
        CHECK_EQ(link_counts(&link).answered, 0);
        drain(&link, 5000);
        peer_expect(&link, BINARY, large, 100000);
        peer_expect_pong(&link, "in the middle");
        peer_expect(&link, TEXT, "next", 4);
        peer_expect_nothing(&link);
    }
}

TEST(while_output_is_blocked_only_the_latest_pong_is_owed)
{
    struct link link;
    BOTH_ROLES(link)
    {
        send_blocked(&link, 200000);
        for (uint32_t i = 0; i < 10000; i++) {
            peer_send_frame(&link, PING, &i, sizeof i);
            CHECK_EQ(link_receive(&link), 0);
        }
        drain(&link, 50);
        uint32_t last = 9999;
        peer_expect(&link, BINARY, large, 200000);
        peer_expect(&link, PONG, &last, sizeof last);
        peer_expect_nothing(&link);
        CHECK_EQ(link_counts(&link).answered, 1);
    }
}

TEST(a_peer_that_pings_and_does_not_read_costs_no_memory)
{
    enum { PINGS = 20000 };
    struct link link;
    BOTH_ROLES(link)
    {
        for (uint32_t i = 0; i < PINGS; i++) {
            peer_send_frame(&link, PING, &i, sizeof i);
            CHECK_EQ(link_receive(&link), 0);
            CHECK(link.news.unsent == 0);
        }
        CHECK(link.news.want_write);
        CHECK_EQ(link.wire->outbox.size, 0);
        uint64_t answered = link_counts(&link).answered;
        CHECK(answered > 0 && answered < PINGS);
        drain(&link, 1000);
        /* Each of those that there was room for, in order, and the latest. */
        struct frame frame;
        uint32_t seen = 0, pong = 0;
        while (peer_next(&link, &frame)) {
            CHECK(frame.first == PONG && frame.size == sizeof pong);
            memcpy(&pong, frame.payload, sizeof pong);
            CHECK(pong == seen || pong == PINGS - 1);
            seen++;
        }
        CHECK_EQ(pong, PINGS - 1);
        CHECK_EQ(seen, link_counts(&link).answered);
        CHECK_EQ(seen, answered + 1);
        peer_expect_nothing(&link);
    }
}

TEST(nothing_of_ours_lands_inside_a_frame_that_the_library_writes_in_pieces)
{
    struct link link;
    for (size_t size = 0; size < 200; size += 130) {
        for (size_t split = 1; split < size + 2; split++) {
            BOTH_ROLES(link)
            {
                uint8_t frame[300];
                size_t whole = link_make(&link, frame, BINARY, large, size);
                link_send(&link, frame, split);
                peer_ping(&link, "one");
                peer_ping(&link, "two");
                CHECK_EQ(link_receive(&link), 0);
                CHECK(!link.news.want_write && link.news.unsent == 0);
                CHECK_EQ(peer_read(&link, LINK_BYTES), split);
                link_send(&link, frame + split, whole - split);
                peer_expect(&link, BINARY, large, size);
                peer_expect_pong(&link, "two");
                peer_expect_nothing(&link);
            }
        }
    }
}

TEST(a_ping_of_ours_waits_as_a_pong_does_and_comes_after_it)
{
    struct link link;
    BOTH_ROLES(link)
    {
        uint8_t frame[64];
        struct wso_wire_step step;
        size_t size = link_make(&link, frame, TEXT, "text", 4);
        CHECK_EQ(wso_wire_set_pings(link.wire, SECOND, WSO_NEVER, wso_now()), WSO_OK);
        link_send(&link, frame, 1);
        wso_wire_tick(link.wire, wso_now() + 2 * SECOND, &step);
        CHECK(step.pinged == 0 && step.did == 0);
        peer_ping(&link, "theirs");
        CHECK_EQ(link_receive(&link), 0);
        CHECK_EQ(peer_read(&link, LINK_BYTES), 1);
        link_send(&link, frame + 1, size - 1);
        peer_expect(&link, TEXT, "text", 4);
        peer_expect_pong(&link, "theirs");
        CHECK(peer_next(&link, &(struct frame){0}));
        CHECK_EQ(link_counts(&link).pinged, 1);
        peer_expect_nothing(&link);
    }
}

TEST(many_pieces_are_one_stream)
{
    struct link link;
    BOTH_ROLES(link)
    {
        uint8_t bytes[40 * 16];
        struct iovec pieces[40];
        size_t size = 0;
        for (int i = 0; i < 40; i++) {
            size_t piece = link_make(&link, bytes + size, TEXT, &"0123456789"[i % 10], 1);
            pieces[i] = (struct iovec){bytes + size, piece};
            size += piece;
        }
        pieces[20].iov_len = 0;
        CHECK_EQ(wso_wire_send(link.wire, pieces, 10, &link.news), WSO_OK);
        CHECK_EQ(wso_wire_send(link.wire, pieces + 10, 30, &link.news), WSO_OK);
        for (int i = 0; i < 40; i++) {
            if (i != 20) {
                peer_expect(&link, TEXT, &"0123456789"[i % 10], 1);
            }
        }
        peer_expect_nothing(&link);
        /* A part of them is taken. */
        for (int i = 0; i < 10; i++) {
            pieces[i] = (struct iovec){large, 1};
        }
        size_t header = link_make(&link, bytes, BINARY, large, 126) - 126;
        bytes[2] = 0xff;
        pieces[0] = (struct iovec){bytes, header};
        pieces[1] = (struct iovec){large, 0xff7e - 8};
        CHECK_EQ(wso_wire_send(link.wire, pieces, 10, &link.news), WSO_OK);
        CHECK(link.news.want_write);
        drain(&link, 10000);
        struct frame frame;
        CHECK(peer_next(&link, &frame) && frame.size == 0xff7e);
        CHECK(memcmp(frame.payload, large, frame.size - 8) == 0);
        peer_expect_nothing(&link);
    }
}

TEST(a_write_error_is_kept_and_told_each_time)
{
    struct link link;
    BOTH_ROLES(link)
    {
        send_blocked(&link, 100000);
        peer_close(&link);
        flush(&link);
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(link.news.write_error, EPIPE);
            CHECK(!link.news.want_write && link.news.unsent == 0);
            link_send_frame(&link, TEXT, "lost", 4);
            CHECK_EQ(link.news.write_error, EPIPE);
            CHECK(wso_wire_look(link.wire, &link.news) == WSO_OK);
        }
        struct wso_wire_step step;
        CHECK_EQ(link_counts(&link).state, WSO_WIRE_GUARDED);
        CHECK_EQ(wso_wire_set_pings(link.wire, 1, 1, wso_now()), WSO_OK);
        wso_wire_tick(link.wire, wso_now() + SECOND, &step);
        CHECK(step.did == 0 && step.next == WSO_NEVER);
        wso_wire_step(link.wire, wso_now(), &step);
        CHECK(step.events == 0 && step.did == WSO_DID_READ);
    }
}

TEST(pings_that_cannot_be_answered_any_more_are_kept_from_the_library)
{
    struct link link;
    BOTH_ROLES(link)
    {
        /* As good as answered: what was written after an error was lost too. */
        CHECK_EQ(shutdown(link.fd, SHUT_WR), 0);
        peer_ping(&link, "one");
        CHECK_EQ(link_receive(&link), 0);
        CHECK_EQ(link.news.write_error, EPIPE);
        peer_ping(&link, "two");
        CHECK_EQ(link_receive(&link), 0);
        CHECK_EQ(link.news.write_error, EPIPE);
    }
}

TEST(the_output_ends_after_the_last_of_the_librarys_bytes)
{
    struct link link;
    BOTH_ROLES(link)
    {
        uint8_t byte;
        send_blocked(&link, 100000);
        peer_ping(&link, "owed");
        CHECK_EQ(link_receive(&link), 0);
        CHECK_EQ(wso_wire_end_output(link.wire, &link.news), WSO_OK);
        CHECK(link.news.want_write);
        peer_ping(&link, "later");
        CHECK_EQ(link_receive(&link), 0);
        link_send(&link, "dropped", 7);
        drain(&link, 5000);
        peer_expect(&link, BINARY, large, 100000);
        peer_expect_nothing(&link);
        CHECK_EQ(recv(link.peer, &byte, 1, 0), 0);
        /* The other direction goes on. */
        peer_send_frame(&link, TEXT, "still", 5);
        CHECK(link_receive(&link) > 0);
        CHECK(!link.news.stopped && link.news.write_error == 0);
        CHECK_EQ(wso_wire_end_output(link.wire, &link.news), WSO_OK);
        struct wso_wire_step step;
        CHECK_EQ(wso_wire_set_pings(link.wire, SECOND, SECOND, wso_now()), WSO_OK);
        wso_wire_tick(link.wire, wso_now() + 9 * SECOND, &step);
        CHECK(step.did == 0 && step.next == WSO_NEVER);
    }
}

TEST(after_our_own_close_no_ping_is_sent_or_waited_for)
{
    struct link link;
    BOTH_ROLES(link)
    {
        struct wso_wire_step step;
        bool dead = true;
        uint64_t now = wso_now();
        CHECK_EQ(wso_wire_set_pings(link.wire, SECOND, SECOND, now), WSO_OK);
        link_send_frame(&link, CLOSE, "\x03\xe8", 2);
        peer_expect(&link, CLOSE, "\x03\xe8", 2);
        for (int i = 1; i < 10; i++) {
            wso_wire_tick(link.wire, now + (uint64_t)i * SECOND, &step);
            CHECK(step.pinged == 0 && step.did == 0 && step.next == WSO_NEVER);
        }
        CHECK_EQ(wso_wire_confirm_dead(link.wire, now + 10 * SECOND, &dead), WSO_OK);
        CHECK(!dead);
        peer_expect_nothing(&link);
        /* The peer's are still answered: it has not sent its Close yet (5.5.2). */
        peer_ping(&link, "before its close");
        CHECK_EQ(link_receive(&link), 0);
        peer_expect_pong(&link, "before its close");
        peer_expect_nothing(&link);
    }
}

TEST(a_ping_that_waited_while_we_closed_is_not_sent)
{
    struct link link;
    BOTH_ROLES(link)
    {
        struct wso_wire_step step;
        CHECK_EQ(wso_wire_set_pings(link.wire, SECOND, WSO_NEVER, wso_now()), WSO_OK);
        uint8_t close[16];
        size_t size = link_make(&link, close, CLOSE, "\x03\xe8", 2);
        link_send(&link, close, 1);
        wso_wire_tick(link.wire, wso_now() + 2 * SECOND, &step);
        CHECK_EQ(step.pinged, 0);
        link_send(&link, close + 1, size - 1);
        peer_expect(&link, CLOSE, "\x03\xe8", 2);
        peer_expect_nothing(&link);
        CHECK_EQ(link_counts(&link).pinged, 0);
    }
}

TEST(what_is_owed_when_the_peer_closes_is_dropped)
{
    struct link link;
    BOTH_ROLES(link)
    {
        send_blocked(&link, 100000);
        peer_ping(&link, "owed");
        peer_send_frame(&link, CLOSE, "\x03\xe8", 2);
        CHECK_EQ(link_receive(&link), 4u + (link.role == WSO_SERVER ? 4u : 0u));
        CHECK_EQ(link_counts(&link).state, WSO_WIRE_ENDED);
        drain(&link, 5000);
        peer_expect(&link, BINARY, large, 100000);
        peer_expect_nothing(&link);
    }
}

TEST(output_that_is_no_websocket_ends_the_guarding)
{
    struct link link;
    BOTH_ROLES(link)
    {
        uint8_t frame[64];
        link_send(&link, "\xf1\x00", 2);
        CHECK_EQ(link_counts(&link).state, WSO_WIRE_ENDED);
        CHECK_EQ(peer_read(&link, 9), 2);
        link.got_from = link.got_size;
        size_t size = peer_make(&link, frame, PING, "now yours", 9);
        peer_send(&link, frame, size);
        link_check_received(&link, frame, size);
        peer_expect_nothing(&link);
    }
}
