/* wire.h: whatever part of a frame the kernel takes, the peer sees whole frames in order (5.4).
 *
 * Each send is cut after k bytes, for each k up to the longest frame of ours, and then the socket is
 * full for a while; so a frame of ours is cut at each of its bytes.
 */
#include <errno.h>
#include <string.h>

#include "faults.h"
#include "random.h"
#include "sockets.h"

enum { LONGEST = WSO_CONTROL_FRAME };

static const enum wso_role roles[] = {WSO_SERVER, WSO_CLIENT};

static void flush(struct link *link)
{
    CHECK_EQ(wso_wire_flush(link->wire, &link->news), WSO_OK);
}

/* The socket takes k bytes. */
static void let_pass(struct link *link, long k)
{
    fault_limit_sends(k, 1);
    flush(link);
    fault_limit_sends(0, 0);
}

static void let_all_pass(struct link *link)
{
    fault_limit_sends(-1, -1);
    flush(link);
    CHECK(!link->news.want_write && link->news.unsent == 0);
}

TEST(a_frame_of_ours_that_was_sent_in_part_is_finished_first)
{
    uint8_t longest[WSO_CONTROL_PAYLOAD];
    memset(longest, 0x5a, sizeof longest);
    for (int role = 0; role < 2; role++) {
        for (long k = 0; k <= LONGEST; k++) {
            struct link link;
            link_open(&link, roles[role]);
            link_start(&link);
            peer_send_frame(&link, PING, longest, sizeof longest);
            fault_limit_sends(k, 1);
            CHECK_EQ(link_receive(&link), 0);
            fault_limit_sends(0, 0);
            /* Behind it comes what the library writes, and the answer to the next Ping behind that. */
            link_send_frame(&link, TEXT, "text", 4);
            peer_ping(&link, "dropped, as the output is blocked");
            peer_ping(&link, "latest");
            CHECK_EQ(link_receive(&link), 0);
            CHECK(link.news.want_write);
            let_pass(&link, k);
            let_all_pass(&link);
            peer_expect(&link, PONG, longest, sizeof longest);
            bool early = false;
            /* A Pong that is owed goes before a frame that has not begun. */
            struct frame frame;
            while (peer_next(&link, &frame)) {
                CHECK(frame.first == TEXT || frame.first == PONG);
                CHECK(frame.first == TEXT ? frame.size == 4
                                          : memcmp(frame.payload, "latest", 6) == 0);
                CHECK(!early || frame.first == TEXT);
                early = frame.first == PONG;
            }
            CHECK_EQ(link_counts(&link).answered, 2);
            peer_expect_nothing(&link);
            link_close(&link);
        }
    }
}

TEST(after_close_a_frame_of_ours_that_was_sent_in_part_is_finished_and_no_more)
{
    for (int role = 0; role < 2; role++) {
        for (long k = 0; k <= 2 * (LONGEST - 50); k++) {
            struct link link;
            uint8_t payload[WSO_CONTROL_PAYLOAD - 50];
            memset(payload, 'p', sizeof payload);
            link_open(&link, roles[role]);
            link_start(&link);
            peer_send_frame(&link, PING, payload, sizeof payload);
            peer_send_frame(&link, PING, payload, sizeof payload);
            peer_send_frame(&link, CLOSE, "\x03\xe8", 2);
            fault_limit_sends(k, 1);
            CHECK(link_receive(&link) > 0);
            fault_limit_sends(0, 0);
            CHECK_EQ(link_counts(&link).state, WSO_WIRE_ENDED);
            let_all_pass(&link);
            link_send_frame(&link, CLOSE, "\x03\xe8", 2);
            size_t whole = sizeof payload + 2 + (roles[role] == WSO_CLIENT ? 4 : 0);
            size_t begun = ((size_t)k + whole - 1) / whole;
            for (size_t i = 0; i < begun && i < 2; i++) {
                peer_expect(&link, PONG, payload, sizeof payload);
            }
            peer_expect(&link, CLOSE, "\x03\xe8", 2);
            peer_expect_nothing(&link);
            link_close(&link);
        }
    }
}

TEST(a_socket_that_becomes_writable_in_the_middle_of_a_call_changes_no_order)
{
    for (int role = 0; role < 2; role++) {
        for (int pieces = 0; pieces < 2; pieces++) {
            struct link link;
            uint8_t text[16];
            link_open(&link, roles[role]);
            link_start(&link);
            peer_ping(&link, "sent in part");
            fault_limit_sends(5, 1);
            CHECK_EQ(link_receive(&link), 0);
            fault_limit_sends(-1, -1);
            /* The rest of the Pong finds the socket full, and what comes next would not. */
            fault_arm(FAULT_SEND, 1, false);
            fault_errno(EAGAIN);
            size_t size = link_make(&link, text, TEXT, "text", 4);
            struct iovec parts[2] = {{text, 3}, {text + 3, size - 3}};
            if (pieces) {
                CHECK_EQ(wso_wire_send(link.wire, parts, 2, &link.news), WSO_OK);
            } else {
                link_send(&link, text, size);
            }
            CHECK_EQ(fault_disarm(), 1);
            fault_errno(0);
            let_all_pass(&link);
            peer_expect_pong(&link, "sent in part");
            peer_expect(&link, TEXT, "text", 4);
            peer_expect_nothing(&link);
            link_close(&link);
        }
    }
}

/* Random messages and Pings while k bytes pass at a time. */
static void talk(struct link *link, long k, uint64_t *random)
{
    uint8_t payload[300];
    uint32_t pings = 0, pongs = 0, written = 0, arrived = 0;
    struct frame frame;
    for (int i = 0; i < 40 || arrived < written || pongs < pings; i++) {
        uint64_t what = random_below(random, 6);
        if (i < 40 && what == 0) {
            pings++;
            memset(payload, (uint8_t)pings, sizeof payload);
            memcpy(payload, &pings, sizeof pings);
            peer_send_frame(link, PING, payload,
                            4 + random_below(random, WSO_CONTROL_PAYLOAD - 4 + 1));
        } else if (i < 40 && what == 1) {
            memset(payload, (uint8_t)++written, sizeof payload);
            link_send_frame(link, BINARY, payload, random_below(random, sizeof payload));
        }
        CHECK_EQ(link_receive(link), 0);
        let_pass(link, k);
        (void)peer_read(link, LINK_BYTES);
        while (peer_next(link, &frame)) {
            if (frame.first == BINARY) {
                arrived++;
                CHECK(frame.size == 0 || (frame.payload[0] == (uint8_t)arrived &&
                                          frame.payload[frame.size - 1] == (uint8_t)arrived));
            } else {
                uint32_t number;
                memcpy(&number, frame.payload, sizeof number);
                CHECK(frame.first == PONG && number > pongs && number <= pings);
                pongs = number;
            }
        }
    }
    CHECK_EQ(arrived, written);
    peer_expect_nothing(link);
}

TEST(whole_frames_arrive_in_order_whatever_the_kernel_takes)
{
    uint64_t random = 4711;
    for (int role = 0; role < 2; role++) {
        for (long k = 1; k <= LONGEST; k++) {
            struct link link;
            link_open(&link, roles[role]);
            link_start(&link);
            fault_limit_sends(0, 0);
            talk(&link, k, &random);
            let_all_pass(&link);
            link_close(&link);
        }
    }
}
