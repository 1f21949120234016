/* wire.h, input: Pings are answered and kept from the library, and all else reaches it as it came. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "check.h"
#include "sockets.h"

static const enum wso_role roles[] = {WSO_SERVER, WSO_CLIENT};

#define BOTH_ROLES(link)                                                                           \
    for (int i_role = 0; i_role < 2 && (link_open(&(link), roles[i_role]), true);                  \
         link_close(&(link)), i_role++)

/* The peer resets: it is gone with bytes of ours unread. */
static void reset_by_peer(struct link *link)
{
    link_send_frame(link, TEXT, "unread", 6);
    peer_close(link);
}

/* A message of the peer that reaches the library as it was sent. */
static void check_message_passes(struct link *link, const char *text)
{
    uint8_t frame[200];
    size_t size = peer_make(link, frame, TEXT, text, strlen(text));
    peer_send(link, frame, size);
    link_check_received(link, frame, size);
}

TEST(pings_are_answered_in_order_and_kept_from_the_library)
{
    struct link link;
    BOTH_ROLES(link)
    {
        uint8_t longest[WSO_CONTROL_PAYLOAD];
        memset(longest, 0xa5, sizeof longest);
        link_start(&link);
        peer_ping(&link, "first");
        peer_ping(&link, "");
        peer_send_frame(&link, PING, longest, sizeof longest);
        CHECK_EQ(link_receive(&link), 0);
        peer_expect_pong(&link, "first");
        peer_expect_pong(&link, "");
        peer_expect(&link, PONG, longest, sizeof longest);
        peer_expect_nothing(&link);
        CHECK_EQ(link_counts(&link).answered, 3);
        check_message_passes(&link, "text");
        check_message_passes(&link, "");
    }
}

TEST(each_of_many_pings_is_answered_while_the_peer_reads)
{
    struct link link;
    BOTH_ROLES(link)
    {
        link_start(&link);
        for (uint32_t i = 0; i < 3000; i++) {
            peer_send_frame(&link, PING, &i, sizeof i);
            if (i % 100 == 99) {
                CHECK_EQ(link_receive(&link), 0);
                for (uint32_t j = i - 99; j <= i; j++) {
                    peer_expect(&link, PONG, &j, sizeof j);
                }
            }
        }
        peer_expect_nothing(&link);
    }
}

TEST(pings_between_fragments_are_taken_out)
{
    struct link link;
    BOTH_ROLES(link)
    {
        uint8_t frames[64];
        link_start(&link);
        size_t size = peer_make(&link, frames, 0x01, "ab", 2);
        peer_send(&link, frames, size);
        peer_ping(&link, "between");
        size_t end = size + peer_make(&link, frames + size, 0x80, "cd", 2);
        peer_send(&link, frames + size, end - size);
        link_check_received(&link, frames, end);
        peer_expect_pong(&link, "between");
    }
}

TEST(nothing_is_answered_before_the_start)
{
    struct link link;
    BOTH_ROLES(link)
    {
        uint8_t ping[64];
        size_t size = peer_make(&link, ping, PING, "early", 5);
        peer_send(&link, ping, size);
        link_check_received(&link, ping, size);
        peer_send(&link, ping, size - 1);
        link_check_received(&link, ping, size - 1);
        /* What the library has a part of, it answers itself. */
        link_start(&link);
        peer_send(&link, ping + size - 1, 1);
        link_check_received(&link, ping + size - 1, 1);
        peer_expect_nothing(&link);
        peer_ping(&link, "late");
        CHECK_EQ(link_receive(&link), 0);
        peer_expect_pong(&link, "late");
        CHECK_EQ(link_counts(&link).answered, 1);
    }
}

TEST(a_connection_from_its_http_head_on_is_guarded_once_it_is_started)
{
    static const char request[] = "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
    struct link link;
    link_open_with(&link, &(struct link_options){.role = WSO_SERVER, .head = true});
    peer_send(&link, request, 20);
    link_check_received(&link, request, 20);
    CHECK_EQ(wso_wire_start(link.wire, &link_settings, wso_now()), WSO_EUNGUARDABLE);
    peer_send(&link, request + 20, strlen(request) - 20);
    link_check_received(&link, request + 20, strlen(request) - 20);
    link_start(&link);
    /* Its own answer has not gone out yet: the Pong comes behind it. */
    peer_ping(&link, "before the answer");
    CHECK_EQ(link_receive(&link), 0);
    peer_expect_nothing(&link);
    link_send(&link, answer, strlen(answer));
    CHECK_EQ(peer_read(&link, strlen(answer)), strlen(answer));
    CHECK(memcmp(link.got, answer, strlen(answer)) == 0);
    link.got_from = link.got_size;
    peer_expect_pong(&link, "before the answer");
    link_close(&link);
}

TEST(what_cannot_be_guarded_goes_on_untouched)
{
    uint8_t frame[64];
    struct link link;
    BOTH_ROLES(link)
    {
        /* Twice is once too often. */
        link_start(&link);
        CHECK_EQ(wso_wire_start(link.wire, &link_settings, wso_now()), WSO_EUNGUARDABLE);
        peer_ping(&link, "guarded");
        CHECK_EQ(link_receive(&link), 0);
        peer_expect_pong(&link, "guarded");
    }
    BOTH_ROLES(link)
    {
        /* A bound that was passed already. */
        struct wso_wire_settings settings = link_settings;
        settings.max_message = 3;
        settings.log = true;
        check_message_passes(&link, "four");
        CHECK_EQ(wso_wire_start(link.wire, &settings, wso_now()), WSO_EUNGUARDABLE);
        CHECK_EQ(link_counts(&link).state, WSO_WIRE_NEW);
        size_t size = peer_make(&link, frame, PING, "x", 1);
        peer_send(&link, frame, size);
        link_check_received(&link, frame, size);
        peer_expect_nothing(&link);
    }
    BOTH_ROLES(link)
    {
        /* The library's output is no WebSocket. */
        link_send(&link, "\xff\xff", 2);
        CHECK_EQ(wso_wire_start(link.wire, &link_settings, wso_now()), WSO_EUNGUARDABLE);
    }
    BOTH_ROLES(link)
    {
        CHECK_EQ(wso_wire_end_output(link.wire, &link.news), WSO_OK);
        CHECK_EQ(wso_wire_start(link.wire, &link_settings, wso_now()), WSO_EUNGUARDABLE);
    }
    BOTH_ROLES(link)
    {
        peer_close(&link);
        CHECK_EQ(link_receive(&link), 0);
        CHECK_EQ(wso_wire_start(link.wire, &link_settings, wso_now()), WSO_EUNGUARDABLE);
    }
    BOTH_ROLES(link)
    {
        CHECK_EQ(shutdown(link.fd, SHUT_WR), 0);
        link_send(&link, "\x82", 1);
        CHECK_EQ(link.news.write_error, EPIPE);
        CHECK_EQ(wso_wire_start(link.wire, &link_settings, wso_now()), WSO_EUNGUARDABLE);
    }
    BOTH_ROLES(link)
    {
        reset_by_peer(&link);
        CHECK_EQ(link_receive(&link), 0);
        CHECK_EQ(link.news.read_error, ECONNRESET);
        CHECK_EQ(wso_wire_start(link.wire, &link_settings, wso_now()), WSO_EUNGUARDABLE);
        CHECK_EQ(link_counts(&link).state, WSO_WIRE_NEW);
    }
}

TEST(a_ping_before_close_in_one_read_is_answered_and_one_after_it_is_not)
{
    struct link link;
    BOTH_ROLES(link)
    {
        uint8_t frames[128], echo[64];
        link_start(&link);
        size_t ping = peer_make(&link, frames, PING, "before", 6);
        size_t close = peer_make(&link, frames + ping, CLOSE, "\x03\xe8", 2);
        size_t end = ping + close + peer_make(&link, frames + ping + close, PING, "after", 5);
        peer_send(&link, frames, end);
        link_check_received(&link, frames + ping, end - ping);
        peer_expect_pong(&link, "before");
        peer_expect_nothing(&link);
        CHECK_EQ(link_counts(&link).state, WSO_WIRE_ENDED);
        peer_send(&link, frames, ping);
        link_check_received(&link, frames, ping);
        peer_expect_nothing(&link);
        link_send(&link, echo, link_make(&link, echo, CLOSE, "\x03\xe8", 2));
        peer_expect(&link, CLOSE, "\x03\xe8", 2);
        peer_expect_nothing(&link);
    }
}

TEST(nothing_is_answered_after_a_broken_frame)
{
    struct link link;
    BOTH_ROLES(link)
    {
        uint8_t frames[128];
        link_start(&link);
        size_t ping = peer_make(&link, frames, PING, "before", 6);
        size_t wrong = peer_make(&link, frames + ping, 0x99, "rsv3", 4);
        size_t end = ping + wrong + peer_make(&link, frames + ping + wrong, PING, "after", 5);
        peer_send(&link, frames, end);
        link_check_received(&link, frames + ping, end - ping);
        peer_expect_pong(&link, "before");
        peer_expect_nothing(&link);
        CHECK_EQ(link_counts(&link).state, WSO_WIRE_ENDED);
        peer_send(&link, frames, ping);
        link_check_received(&link, frames, ping);
        peer_expect_nothing(&link);
    }
}

TEST(a_frame_beyond_the_bounds_ends_the_guarding)
{
    struct link link;
    BOTH_ROLES(link)
    {
        struct wso_wire_settings settings = link_settings;
        uint8_t frames[128];
        settings.max_message = 8;
        settings.max_fragment = 5;
        link_start_with(&link, &settings);
        check_message_passes(&link, "five5");
        size_t size = peer_make(&link, frames, TEXT, "sixsix", 6);
        size_t end = size + peer_make(&link, frames + size, PING, "", 0);
        peer_send(&link, frames, end);
        link_check_received(&link, frames, end);
        peer_expect_nothing(&link);
        CHECK_EQ(link_counts(&link).state, WSO_WIRE_ENDED);
    }
}

TEST(a_held_ping_whose_last_bytes_are_wrong_is_passed_whole)
{
    struct link link;
    uint8_t wrong[] = {0x89, 0x05};
    /* To a server an unmasked frame is wrong at its second byte; the first was held. */
    link_open(&link, WSO_SERVER);
    link_start(&link);
    peer_send(&link, wrong, 1);
    CHECK_EQ(link_receive(&link), 0);
    peer_send(&link, wrong + 1, 1);
    link_check_received(&link, wrong, sizeof wrong);
    CHECK_EQ(link_counts(&link).state, WSO_WIRE_ENDED);
    link_close(&link);
}

/* The end, and what the library gets before it. */
static void check_end(struct link *link, const void *bytes, size_t size)
{
    link_check_received(link, bytes, size);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(link_receive(link), 0);
        CHECK(link->news.end && link->news.stopped && link->news.read_error == 0);
    }
    CHECK_EQ(wso_wire_look(link->wire, &link->news), WSO_OK);
    CHECK(link->news.end);
    CHECK_EQ(wso_wire_fill(link->wire, &link->news), WSO_OK);
    CHECK(link->news.end && link->news.stopped);
}

TEST(the_end_of_the_stream_comes_after_the_last_bytes)
{
    struct link link;
    uint8_t frame[64];
    BOTH_ROLES(link)
    {
        link_start(&link);
        peer_close(&link);
        check_end(&link, NULL, 0);
        CHECK_EQ(link_counts(&link).state, WSO_WIRE_ENDED);
    }
    BOTH_ROLES(link)
    {
        link_start(&link);
        size_t size = peer_make(&link, frame, TEXT, "last", 4);
        peer_send(&link, frame, size);
        peer_close(&link);
        /* The bytes have a call of their own, also if they were read ahead. */
        for (int i = 0; i < 2; i++) {
            CHECK_EQ(wso_wire_fill(link.wire, &link.news), WSO_OK);
            CHECK(link.news.more && !link.news.end);
        }
        CHECK(link.news.stopped);
        uint8_t buffer[WSO_RECEIVE_MIN];
        CHECK_EQ(wso_wire_receive(link.wire, buffer, sizeof buffer, &link.news), WSO_OK);
        CHECK_EQ(link.news.received, size);
        CHECK(!link.news.end && link.news.more && memcmp(buffer, frame, size) == 0);
        check_end(&link, NULL, 0);
    }
}

TEST(half_a_control_frame_before_the_end_is_the_librarys_to_judge)
{
    struct link link;
    uint8_t ping[64];
    for (int ahead = 0; ahead < 2; ahead++) {
        BOTH_ROLES(link)
        {
            link_start(&link);
            size_t size = peer_make(&link, ping, PING, "never whole", 11) - 1;
            peer_send(&link, ping, size);
            CHECK_EQ(link_receive(&link), 0);
            peer_close(&link);
            if (ahead) {
                CHECK_EQ(wso_wire_fill(link.wire, &link.news), WSO_OK);
                CHECK(link.news.more && link.news.stopped && !link.news.end);
            }
            check_end(&link, ping, size);
        }
    }
}

TEST(a_reset_that_a_write_met_first_is_no_plain_end)
{
    struct link link;
    link_open_with(&link, &(struct link_options){.role = WSO_SERVER, .tcp = true});
    link_start(&link);
    reset_by_peer(&link);
    /* The first write is answered by the reset, which a later one meets. */
    do {
        struct iovec piece = {"\x81", 2};
        CHECK_EQ(wso_wire_send(link.wire, &piece, 1, &link.news), WSO_OK);
    } while (link.news.write_error == 0);
    CHECK_EQ(link.news.write_error, ECONNRESET);
    CHECK_EQ(link_receive(&link), 0);
    CHECK(!link.news.end && link.news.stopped);
    CHECK_EQ(link.news.read_error, ECONNRESET);
    link_close(&link);
}

TEST(a_read_error_is_kept_and_told_each_time_after_the_last_bytes)
{
    struct link link;
    uint8_t frame[64];
    BOTH_ROLES(link)
    {
        link_start(&link);
        size_t size = peer_make(&link, frame, TEXT, "read ahead", 10);
        peer_send(&link, frame, size);
        CHECK_EQ(wso_wire_fill(link.wire, &link.news), WSO_OK);
        reset_by_peer(&link);
        CHECK_EQ(wso_wire_fill(link.wire, &link.news), WSO_OK);
        CHECK(link.news.stopped && link.news.more && link.news.read_error == 0);
        uint8_t buffer[WSO_RECEIVE_MIN];
        CHECK_EQ(wso_wire_receive(link.wire, buffer, sizeof buffer, &link.news), WSO_OK);
        CHECK(link.news.received == size && link.news.more && link.news.read_error == 0);
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(link_receive(&link), 0);
            CHECK_EQ(link.news.read_error, ECONNRESET);
            CHECK(link.news.stopped && !link.news.end);
        }
        CHECK_EQ(wso_wire_look(link.wire, &link.news), WSO_OK);
        CHECK_EQ(link.news.read_error, ECONNRESET);
        CHECK_EQ(link_counts(&link).state, WSO_WIRE_ENDED);
        CHECK_EQ(wso_wire_start(link.wire, &link_settings, wso_now()), WSO_EUNGUARDABLE);
    }
}

TEST(bytes_from_before_the_adoption_are_fed_first)
{
    struct link link;
    BOTH_ROLES(link)
    {
        uint8_t frames[128];
        size_t text = peer_make(&link, frames, TEXT, "early", 5);
        size_t end = text + peer_make(&link, frames + text, PING, "ping", 4);
        CHECK_EQ(wso_wire_feed(link.wire, frames, end - 1), WSO_OK);
        peer_send(&link, frames + end - 1, 1);
        link_check_received(&link, frames, end);
        peer_expect_nothing(&link);
        link_start(&link);
        CHECK_EQ(wso_wire_feed(link.wire, frames, 0), WSO_OK);
        CHECK_EQ(wso_wire_feed(link.wire, frames, end), WSO_OK);
        link_check_received(&link, frames, text);
        peer_expect_pong(&link, "ping");
    }
}
