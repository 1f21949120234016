/* Each system call and allocation of a wire fails in turn, with each error that its manual page names and
 * that can come to a wire: nothing is lost or left, and the connection works on, unguarded at worst.
 */
#include <errno.h>
#include <string.h>

#include "faults.h"
#include "sockets.h"

#define SECOND WSO_NS_PER_S

/* More than the socket takes at once. */
static uint8_t message[600000];

static enum wso_role role;
static int told; /* the error of its socket that the library shall be told, once it was met; 0: none */

static int new_wire(void)
{
    struct wso_pages *pages;
    struct wso_wire *wire = (void *)&wire;
    fault_spare(true);
    CHECK_EQ(wso_pages_new(65536, &pages), WSO_OK);
    fault_spare(false);
    struct wso_wire_options options = {.fd = -1, .pages = pages, .read_ahead = 4096};
    int status = wso_wire_new(&options, &wire);
    CHECK_EQ(wire == NULL, status != WSO_OK);
    if (wire != NULL) {
        wso_wire_release(wire);
    }
    wso_pages_release(pages);
    return status;
}

static int refusals;

static void count_refusals(void)
{
    int status = new_wire();
    CHECK(status == WSO_OK || status == WSO_ENOMEM);
    refusals += status != WSO_OK;
}

TEST(a_wire_that_cannot_be_made_leaves_nothing)
{
    fault_each(FAULT_ALLOCATION, 0, count_refusals);
    CHECK_EQ(refusals, 2);
    fault_each(FAULT_MUTEX, 0, count_refusals);
    CHECK_EQ(refusals, 4);
}

/* The guard's thread at work: a Ping and a message of the peer, a Ping of ours. */
static void serve(struct link *link, uint64_t now)
{
    struct wso_wire_step step;
    for (int i = 0; i < 3; i++) {
        wso_wire_step(link->wire, now, &step);
        wso_wire_tick(link->wire, now + SECOND, &step);
    }
}

/* The library receives until it has had this many bytes or its socket has failed; the fault does not last
 * for ever. */
static void receive(struct link *link, size_t size)
{
    for (int i = 0; link->received_size < size && link->news.read_error == 0; i++) {
        (void)link_receive(link);
        CHECK_EQ(wso_wire_fill(link->wire, &link->news), WSO_OK);
        if (i == 3) {
            (void)fault_disarm();
        }
    }
}

/* The library writes; false if its bytes are lost and it has to abort. */
static bool write_message(struct link *link)
{
    uint8_t header[14];
    size_t size = link_make(link, header, BINARY, message, 0);
    bool masked = link->role == WSO_CLIENT;
    header[1] = (uint8_t)(masked ? 0xff : 0x7f);
    for (int i = 0; i < 8; i++) {
        header[2 + i] = (uint8_t)((uint64_t)sizeof message >> 8 * (7 - i));
    }
    memset(header + 10, 0, 4);
    size = masked ? 14 : 10;
    struct iovec pieces[2] = {{header, size}, {message, sizeof message}};
    int status = wso_wire_send(link->wire, pieces, 2, &link->news);
    CHECK(status == WSO_OK || status == WSO_ENOMEM);
    return status == WSO_OK && link->news.write_error == 0;
}

/* The peer gets the message whole, and each Ping was answered by the guard or passed to the library. */
static void check_arrived(struct link *link, int passed)
{
    struct frame frame;
    int pongs = 0, messages = 0;
    for (int i = 0; i < 1000 && (messages == 0 || link->news.want_write); i++) {
        CHECK_EQ(wso_wire_flush(link->wire, &link->news), WSO_OK);
        if (link->news.write_error != 0) {
            CHECK_EQ(link->news.write_error, told);
            return;
        }
        while (peer_read(link, LINK_BYTES) > 0) {
        }
        while (peer_next(link, &frame)) {
            pongs += frame.first == PONG;
            messages += frame.first == BINARY && frame.size == sizeof message &&
                        memcmp(frame.payload, message, sizeof message) == 0;
        }
        if (i == 500) {
            (void)fault_disarm();
        }
    }
    CHECK_EQ(messages, 1);
    CHECK_EQ(pongs + passed, 1);
}

static void live(void)
{
    struct link link;
    uint8_t frames[2][64];
    fault_spare(true);
    link_open(&link, role);
    fault_spare(false);
    struct wso_wire_settings settings = link_settings;
    uint64_t now = wso_now();
    settings.ping_interval = SECOND;
    settings.log = true;
    int status = wso_wire_start(link.wire, &settings, now);
    CHECK(status == WSO_OK || status == WSO_ENOMEM);
    size_t ping = peer_make(&link, frames[0], PING, "ping", 4);
    size_t text = peer_make(&link, frames[1], TEXT, "text", 4);
    peer_send(&link, frames[0], ping);
    peer_send(&link, frames[1], text);
    serve(&link, now);
    receive(&link, text);
    bool passed = link.received_size == ping + text;
    if (link.news.read_error != 0) {
        CHECK_EQ(link.news.read_error, told);
    } else {
        CHECK(passed || link.received_size == text);
        CHECK(!passed || memcmp(link.received, frames[0], ping) == 0);
        CHECK(memcmp(link.received + (passed ? ping : 0), frames[1], text) == 0);
        if (link.news.write_error == 0 && write_message(&link)) {
            check_arrived(&link, passed);
        }
        CHECK(link.news.write_error == 0 || link.news.write_error == told);
        CHECK_EQ(wso_wire_end_output(link.wire, &link.news), WSO_OK);
    }
    (void)link_receive(&link);
    link_close(&link);
}

static void live_with(enum fault kind, const int *errors, int count)
{
    for (int i = 0; i < count; i++) {
        for (int j = 0; j < 2; j++) {
            role = j == 0 ? WSO_SERVER : WSO_CLIENT;
            bool passes = errors[i] == EAGAIN || errors[i] == EINTR;
            bool socket = kind == FAULT_RECEIVE || kind == FAULT_SEND;
            told = socket && !passes ? errors[i] : 0;
            fault_each(kind, errors[i], live);
        }
    }
}

#define LIVE_WITH(kind, ...)                                                                       \
    live_with(kind, (const int[]){__VA_ARGS__}, sizeof((int[]){__VA_ARGS__}) / sizeof(int))

TEST(a_wire_without_memory_serves_the_library)
{
    LIVE_WITH(FAULT_ALLOCATION, ENOMEM);
    LIVE_WITH(FAULT_MAPPING, ENOMEM, EAGAIN);
}

TEST(a_wire_without_random_bytes_leaves_the_pings_to_the_library)
{
    LIVE_WITH(FAULT_RANDOM, EAGAIN, EINTR, ENOSYS);
}

TEST(a_socket_that_cannot_be_read_is_told_or_tried_again)
{
    LIVE_WITH(FAULT_RECEIVE, EAGAIN, EINTR, ECONNRESET, ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH,
              ENOMEM, ENOTCONN);
}

TEST(a_socket_that_cannot_be_written_is_told_or_tried_again)
{
    LIVE_WITH(FAULT_SEND, EAGAIN, EINTR, EPIPE, ECONNRESET, ETIMEDOUT, EHOSTUNREACH, ENOBUFS,
              ENOMEM, ENOTCONN);
}

TEST(a_goodbye_that_cannot_be_said_keeps_nobody)
{
    LIVE_WITH(FAULT_GOODBYE, ENOTCONN, EINVAL, EAFNOSUPPORT, ECONNREFUSED);
}

/* An owed Pong that cannot be masked ends the guarding; the library's bytes go on. */
TEST(an_owed_pong_without_random_bytes_is_given_up)
{
    struct link link;
    link_open(&link, WSO_CLIENT);
    link_start(&link);
    uint8_t frame[64];
    size_t size = link_make(&link, frame, TEXT, "text", 4);
    link_send(&link, frame, 3);
    peer_ping(&link, "owed");
    CHECK_EQ(link_receive(&link), 0);
    fault_arm(FAULT_RANDOM, 1, false);
    link_send(&link, frame + 3, size - 3);
    CHECK_EQ(fault_disarm(), 1);
    peer_expect(&link, TEXT, "text", 4);
    peer_expect_nothing(&link);
    CHECK_EQ(link_counts(&link).state, WSO_WIRE_ENDED);
    /* The next Ping is the library's. */
    size = peer_make(&link, frame, PING, "yours", 5);
    peer_send(&link, frame, size);
    link_check_received(&link, frame, size);
    link_close(&link);
}

TEST(a_ping_of_ours_without_random_bytes_is_tried_again)
{
    struct link link;
    struct wso_wire_step step;
    uint64_t now = wso_now();
    link_open(&link, WSO_SERVER);
    struct wso_wire_settings settings = link_settings;
    settings.ping_interval = SECOND;
    settings.ping_timeout = SECOND;
    CHECK_EQ(wso_wire_start(link.wire, &settings, now), WSO_OK);
    fault_arm(FAULT_RANDOM, 1, false);
    wso_wire_tick(link.wire, now + SECOND, &step);
    CHECK_EQ(fault_disarm(), 1);
    CHECK(step.pinged == 0 && step.did == 0 && step.next == now + SECOND);
    wso_wire_tick(link.wire, now + SECOND + 1, &step);
    CHECK_EQ(step.pinged, 1);
    link_close(&link);
}
