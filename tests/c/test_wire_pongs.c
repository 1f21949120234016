/* wire.h, keepalive: our own Pongs are consumed, and with them the user's earlier Pings are settled. */
#include <string.h>

#include "check.h"
#include "sockets.h"

#define SECOND WSO_NS_PER_S

static const enum wso_role roles[] = {WSO_SERVER, WSO_CLIENT};

/* A guarded link, of which the test drives the guard's clock. */
struct pinged {
    struct link link;
    uint64_t now;
    uint8_t ping[4]; /* the payload of our last Ping */
};

static void open_pinged(struct pinged *pinged, enum wso_role role, bool log)
{
    struct wso_wire_settings settings = link_settings;
    settings.ping_interval = SECOND;
    settings.log = log;
    pinged->now = wso_now();
    link_open(&pinged->link, role);
    CHECK_EQ(wso_wire_start(pinged->link.wire, &settings, pinged->now), WSO_OK);
}

#define BOTH_ROLES(pinged)                                                                         \
    for (int i_role = 0; i_role < 2 && (open_pinged(&(pinged), roles[i_role], false), true);       \
         link_close(&(pinged).link), i_role++)

/* A Ping of ours goes out and arrives. */
static void ping(struct pinged *pinged)
{
    struct wso_wire_step step;
    struct frame frame;
    pinged->now += SECOND;
    wso_wire_tick(pinged->link.wire, pinged->now, &step);
    CHECK_EQ(step.pinged, 1);
    CHECK_EQ(step.did, WSO_DID_ANSWER);
    CHECK_EQ(step.next, pinged->now + SECOND);
    while (peer_read(&pinged->link, LINK_BYTES) > 0) {
    }
    CHECK(peer_next(&pinged->link, &frame));
    CHECK_EQ(frame.first, PING);
    CHECK_EQ(frame.size, sizeof pinged->ping);
    memcpy(pinged->ping, frame.payload, sizeof pinged->ping);
}

static void pong(struct pinged *pinged)
{
    peer_send_frame(&pinged->link, PONG, pinged->ping, sizeof pinged->ping);
}

/* The user of the library pings. */
static void user_ping(struct pinged *pinged, const char *payload)
{
    link_send_frame(&pinged->link, PING, payload, strlen(payload));
    peer_expect(&pinged->link, PING, payload, strlen(payload));
}

/* The library gets this Pong, made by the wire, and nothing more. */
static void expect_made_pong(struct pinged *pinged, const char *payload)
{
    static const uint8_t zeroes[4];
    uint8_t frame[WSO_CONTROL_FRAME];
    const uint8_t *mask = pinged->link.role == WSO_SERVER ? zeroes : NULL;
    size_t size = frame_make(frame, PONG, mask, payload, strlen(payload));
    link_check_received(&pinged->link, frame, size);
}

TEST(our_pings_go_out_when_they_are_due_and_their_pongs_are_consumed)
{
    struct pinged pinged;
    BOTH_ROLES(pinged)
    {
        struct wso_wire_step step;
        wso_wire_tick(pinged.link.wire, pinged.now + SECOND - 1, &step);
        CHECK_EQ(step.pinged, 0);
        CHECK_EQ(step.did, 0);
        CHECK_EQ(step.next, pinged.now + SECOND);
        peer_expect_nothing(&pinged.link);
        CHECK_EQ(link_counts(&pinged.link).latency, 0);
        for (int i = 1; i <= 3; i++) {
            ping(&pinged);
            pong(&pinged);
            CHECK_EQ(link_receive(&pinged.link), 0);
            CHECK(link_counts(&pinged.link).latency > 0);
            CHECK_EQ(link_counts(&pinged.link).pinged, i);
        }
        peer_expect_nothing(&pinged.link);
    }
}

TEST(other_pongs_reach_the_library)
{
    struct pinged pinged;
    BOTH_ROLES(pinged)
    {
        uint8_t pongs[200];
        uint8_t first[4];
        ping(&pinged);
        memcpy(first, pinged.ping, sizeof first);
        ping(&pinged);
        size_t size = peer_make(&pinged.link, pongs, PONG, "none", 4);
        size += peer_make(&pinged.link, pongs + size, PONG, pinged.ping, 3);
        size += peer_make(&pinged.link, pongs + size, PONG, "", 0);
        peer_send(&pinged.link, pongs, size);
        link_check_received(&pinged.link, pongs, size);
        /* The second one settles both, so what comes for the first is not ours any more. */
        pong(&pinged);
        CHECK_EQ(link_receive(&pinged.link), 0);
        size = peer_make(&pinged.link, pongs, PONG, first, sizeof first);
        size += peer_make(&pinged.link, pongs + size, PONG, pinged.ping, sizeof pinged.ping);
        peer_send(&pinged.link, pongs, size);
        link_check_received(&pinged.link, pongs, size);
    }
}

TEST(pongs_and_pings_of_before_the_start_are_the_librarys)
{
    struct pinged pinged;
    for (int i = 0; i < 2; i++) {
        struct link *link = &pinged.link;
        struct wso_wire_settings settings = link_settings;
        uint8_t begun[64];
        link_open(link, roles[i]);
        user_ping(&pinged, "early");
        size_t size = peer_make(link, begun, PONG, "begun", 5);
        peer_send(link, begun, 3);
        link_check_received(link, begun, 3);
        settings.ping_interval = SECOND;
        link_start_with(link, &settings);
        pinged.now = wso_now();
        peer_send(link, begun + 3, size - 3);
        link_check_received(link, begun + 3, size - 3);
        ping(&pinged);
        pong(&pinged);
        CHECK_EQ(link_receive(link), 0);
        link_close(link);
    }
}

TEST(a_pong_for_our_ping_settles_the_users_earlier_ones)
{
    struct pinged pinged;
    BOTH_ROLES(pinged)
    {
        user_ping(&pinged, "older");
        user_ping(&pinged, "old");
        ping(&pinged);
        /* A Pong for neither settles nothing. */
        uint8_t foreign[64];
        size_t size = peer_make(&pinged.link, foreign, PONG, "foreign", 7);
        peer_send(&pinged.link, foreign, size);
        link_check_received(&pinged.link, foreign, size);
        pong(&pinged);
        expect_made_pong(&pinged, "old");
        ping(&pinged);
        pong(&pinged);
        CHECK_EQ(link_receive(&pinged.link), 0);
    }
}

TEST(a_pong_for_our_ping_does_not_settle_the_users_later_one)
{
    struct pinged pinged;
    BOTH_ROLES(pinged)
    {
        ping(&pinged);
        user_ping(&pinged, "later");
        pong(&pinged);
        CHECK_EQ(link_receive(&pinged.link), 0);
        ping(&pinged);
        pong(&pinged);
        expect_made_pong(&pinged, "later");
    }
}

TEST(each_pong_settles_what_was_sent_before_its_ping)
{
    struct pinged pinged;
    BOTH_ROLES(pinged)
    {
        struct pinged first;
        user_ping(&pinged, "a");
        ping(&pinged);
        first = pinged;
        user_ping(&pinged, "b");
        user_ping(&pinged, "c");
        ping(&pinged);
        pong(&first);
        expect_made_pong(&pinged, "a");
        pong(&pinged);
        expect_made_pong(&pinged, "c");
        /* The oldest of three times gives way; a later Pong settles it as well. */
        user_ping(&pinged, "d");
        ping(&pinged);
        user_ping(&pinged, "e");
        ping(&pinged);
        user_ping(&pinged, "f");
        pong(&pinged);
        expect_made_pong(&pinged, "e");
        ping(&pinged);
        pong(&pinged);
        expect_made_pong(&pinged, "f");
    }
}

TEST(what_the_peer_answers_itself_is_not_answered_twice)
{
    struct pinged pinged;
    BOTH_ROLES(pinged)
    {
        uint8_t frame[64];
        user_ping(&pinged, "one");
        ping(&pinged);
        user_ping(&pinged, "two");
        size_t size = peer_make(&pinged.link, frame, PONG, "one", 3);
        peer_send(&pinged.link, frame, size);
        link_check_received(&pinged.link, frame, size);
        pong(&pinged);
        CHECK_EQ(link_receive(&pinged.link), 0);
        size = peer_make(&pinged.link, frame, PONG, "two", 3);
        peer_send(&pinged.link, frame, size);
        link_check_received(&pinged.link, frame, size);
        ping(&pinged);
        pong(&pinged);
        CHECK_EQ(link_receive(&pinged.link), 0);
        /* A Pong for the later of two settles both. */
        user_ping(&pinged, "three");
        ping(&pinged);
        user_ping(&pinged, "four");
        size = peer_make(&pinged.link, frame, PONG, "four", 4);
        peer_send(&pinged.link, frame, size);
        link_check_received(&pinged.link, frame, size);
        pong(&pinged);
        CHECK_EQ(link_receive(&pinged.link), 0);
    }
}

/* The guard's clock falls behind the system's between two ticks, as it does when its thread oversleeps
 * (and by half a minute when the process was stopped). */
TEST(the_order_of_pings_does_not_depend_on_the_clock)
{
    struct pinged pinged;
    BOTH_ROLES(pinged)
    {
        struct wso_wire_step step;
        ping(&pinged);
        pong(&pinged);
        CHECK_EQ(link_receive(&pinged.link), 0);
        /* By the clock of the last tick, this is after the next one. */
        wso_wire_tick(pinged.link.wire, pinged.now + SECOND - 1, &step);
        uint64_t until = wso_now() + 1000;
        WAIT_UNTIL(wso_now() > until);
        user_ping(&pinged, "first");
        ping(&pinged);
        pong(&pinged);
        expect_made_pong(&pinged, "first");
    }
}

/* All that one read can add: the rest of a frame that was held back, and two Pongs for the user. */
TEST(a_read_that_adds_the_most_loses_nothing)
{
    struct pinged pinged;
    BOTH_ROLES(pinged)
    {
        static const uint8_t zeroes[4];
        static uint8_t stream[WSO_RECEIVE_MIN], expected[WSO_RECEIVE_MIN + 3 * WSO_CONTROL_FRAME];
        uint8_t foreign[WSO_CONTROL_FRAME], users[2][WSO_CONTROL_PAYLOAD];
        const uint8_t *mask = pinged.link.role == WSO_SERVER ? zeroes : NULL;
        struct link *link = &pinged.link;
        size_t size = 0, end = 0;
        memset(users[0], 'a', sizeof users[0]);
        memset(users[1], 'b', sizeof users[1]);
        uint8_t payload[WSO_CONTROL_PAYLOAD] = {0};
        size_t whole = peer_make(link, foreign, PONG, payload, sizeof payload);
        peer_send(link, foreign, whole - 1);
        CHECK_EQ(link_receive(link), 0);

        stream[size++] = foreign[whole - 1];
        memcpy(expected, foreign, whole);
        end = whole;
        for (int i = 0; i < 2; i++) {
            link_send_frame(link, PING, users[i], sizeof users[i]);
            peer_expect(link, PING, users[i], sizeof users[i]);
            ping(&pinged);
            size += peer_make(link, stream + size, PONG, pinged.ping, sizeof pinged.ping);
            end += frame_make(expected + end, PONG, mask, users[i], sizeof users[i]);
        }
        /* Frames to fill the read up, none of which may be touched. */
        for (uint8_t i = 0; size + 112 <= sizeof stream; i++) {
            memset(payload, i, sizeof payload);
            size_t frame = peer_make(link, stream + size, BINARY, payload, 100);
            memcpy(expected + end, stream + size, frame);
            size += frame;
            end += frame;
        }
        peer_send(link, stream, size);
        link_check_received(link, expected, end);
    }
}

TEST(the_notes_are_the_last_ones_in_order)
{
    struct pinged pinged;
    struct wso_wire_note notes[WSO_WIRE_NOTES];
    int count;
    uint64_t missed;
    open_pinged(&pinged, WSO_SERVER, true);
    struct link *link = &pinged.link;
    CHECK_EQ(wso_wire_take_notes(link->wire, notes, &count, &missed), WSO_OK);
    CHECK(count == 0 && missed == 0);
    ping(&pinged);
    pong(&pinged);
    peer_ping(link, "theirs");
    CHECK_EQ(link_receive(link), 0);
    CHECK_EQ(wso_wire_take_notes(link->wire, notes, &count, &missed), WSO_OK);
    CHECK(count == 4 && missed == 0);
    CHECK(notes[0].sent && notes[0].opcode == WSO_OP_PING && notes[0].size == 4);
    CHECK(!notes[1].sent && notes[1].opcode == WSO_OP_PONG);
    CHECK(memcmp(notes[0].payload, pinged.ping, 4) == 0);
    CHECK(memcmp(notes[1].payload, pinged.ping, 4) == 0);
    CHECK(!notes[2].sent && notes[2].opcode == WSO_OP_PING && notes[2].size == 6);
    CHECK(notes[3].sent && notes[3].opcode == WSO_OP_PONG && notes[3].size == 6);
    CHECK(memcmp(notes[2].payload, "theirs", 6) == 0);
    CHECK(memcmp(notes[3].payload, "theirs", 6) == 0);
    peer_expect_pong(link, "theirs");
    for (int i = 0; i < 20; i++) {
        ping(&pinged);
    }
    CHECK_EQ(wso_wire_take_notes(link->wire, notes, &count, &missed), WSO_OK);
    CHECK_EQ(count, WSO_WIRE_NOTES);
    CHECK_EQ(missed, 20 - WSO_WIRE_NOTES);
    CHECK(memcmp(notes[count - 1].payload, pinged.ping, 4) == 0);
    CHECK_EQ(wso_wire_take_notes(link->wire, notes, &count, &missed), WSO_OK);
    CHECK(count == 0 && missed == 0);
    link_close(link);
    /* Nobody wants them. */
    open_pinged(&pinged, WSO_SERVER, false);
    ping(&pinged);
    CHECK_EQ(wso_wire_take_notes(link->wire, notes, &count, &missed), WSO_OK);
    CHECK(count == 0 && missed == 0);
    link_close(link);
}
