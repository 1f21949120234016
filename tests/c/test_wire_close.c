/* wire.h, wso_wire_retire: over TCP the peer sees what close(2) would have shown it, at once. */
#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "sockets.h"

/* What has come to the wire's end before it is closed. */
enum story {
    NOTHING,
    UNREAD,      /* bytes that nobody has read */
    READ_AHEAD,  /* bytes in the inbox, which the library never took */
    TAKEN,       /* bytes that the library took */
    ANSWERED,    /* a Ping that was answered */
    HALF_A_PING, /* read, and held back */
    ENDED,       /* the peer's FIN */
    ENDED_UNREAD,
    STORIES,
};

static void wait_for_bytes(int fd, int size)
{
    int unread = 0;
    WAIT_UNTIL(ioctl(fd, FIONREAD, &unread) == 0 && unread == size);
}

/* 0: the stream ends; ECONNRESET. */
static int what_the_peer_sees(int peer)
{
    uint8_t bytes[256];
    ssize_t size;
    do {
        struct pollfd poller = {.fd = peer, .events = POLLIN};
        CHECK_EQ(poll(&poller, 1, -1), 1);
        size = recv(peer, bytes, sizeof bytes, 0);
    } while (size > 0);
    return size == 0 ? 0 : errno;
}

static int after_retire(enum story story, bool duplicate)
{
    struct link link;
    link_open_with(&link, &(struct link_options){.role = WSO_SERVER, .tcp = true});
    link_start(&link);
    uint8_t frame[64];
    bool ping = story == ANSWERED || story == HALF_A_PING;
    size_t size = peer_make(&link, frame, ping ? PING : TEXT, "abcd", 4);
    size -= story == HALF_A_PING;
    if (story != NOTHING && story != ENDED) {
        peer_send(&link, frame, size);
        wait_for_bytes(link.fd, (int)size);
    }
    if (story == READ_AHEAD) {
        CHECK_EQ(wso_wire_fill(link.wire, &link.news), WSO_OK);
        wait_for_bytes(link.fd, 0);
    } else if (story == TAKEN || story == ANSWERED || story == HALF_A_PING) {
        CHECK_EQ(link_receive(&link), story == TAKEN ? size : 0);
    } else if (story == ENDED || story == ENDED_UNREAD) {
        CHECK_EQ(shutdown(link.peer, SHUT_WR), 0);
        struct pollfd poller = {.fd = link.fd, .events = POLLRDHUP};
        CHECK_EQ(poll(&poller, 1, -1), 1);
    }
    int other = duplicate ? dup(link.fd) : -1;
    CHECK_EQ(wso_wire_retire(link.wire, true), WSO_OK);
    if (!duplicate) {
        CHECK_EQ(close(link.fd), 0);
        link.fd = -1;
    }
    int seen = what_the_peer_sees(link.peer);
    if (!duplicate) {
        /* Something for link_close to close. */
        link.fd = dup(link.peer);
    } else {
        CHECK_EQ(close(other), 0);
    }
    link_close(&link);
    return seen;
}

static int after_close(enum story story)
{
    int pair[2];
    uint8_t bytes[4] = "abcd";
    sockets_pair(true, pair);
    if (story != NOTHING && story != ENDED) {
        CHECK_EQ(send(pair[1], bytes, 4, MSG_NOSIGNAL), 4);
        wait_for_bytes(pair[0], 4);
    }
    if (story == TAKEN || story == ANSWERED || story == HALF_A_PING) {
        CHECK_EQ(recv(pair[0], bytes, 4, 0), 4);
    } else if (story == ENDED || story == ENDED_UNREAD) {
        CHECK_EQ(shutdown(pair[1], SHUT_WR), 0);
        struct pollfd poller = {.fd = pair[0], .events = POLLRDHUP};
        CHECK_EQ(poll(&poller, 1, -1), 1);
    }
    CHECK_EQ(close(pair[0]), 0);
    int seen = what_the_peer_sees(pair[1]);
    CHECK_EQ(close(pair[1]), 0);
    return seen;
}

TEST(the_peer_sees_what_close_would_have_shown)
{
    int resets = 0;
    for (int story = 0; story < STORIES; story++) {
        int expected = after_close((enum story)story);
        resets += expected == ECONNRESET;
        CHECK_EQ(after_retire((enum story)story, false), expected);
    }
    /* Unread bytes reset a connection, and nothing else does. */
    CHECK_EQ(resets, 3);
}

TEST(it_sees_it_also_while_another_process_or_descriptor_has_the_socket)
{
    for (int story = 0; story < STORIES; story++) {
        CHECK_EQ(after_retire((enum story)story, true), after_close((enum story)story));
    }
}

TEST(what_was_sent_before_arrives)
{
    struct link link;
    static uint8_t payload[20000];
    link_open_with(&link, &(struct link_options){.role = WSO_SERVER, .tcp = true});
    link_start(&link);
    link_send_frame(&link, BINARY, payload, sizeof payload);
    CHECK_EQ(link.news.unsent, 0);
    int other = dup(link.fd);
    CHECK_EQ(wso_wire_retire(link.wire, true), WSO_OK);
    struct frame frame;
    struct pollfd poller = {.fd = link.peer, .events = POLLIN};
    while (!peer_next(&link, &frame)) {
        CHECK_EQ(poll(&poller, 1, -1), 1);
        CHECK(peer_read(&link, LINK_BYTES) > 0);
    }
    CHECK_EQ(frame.size, sizeof payload);
    CHECK_EQ(what_the_peer_sees(link.peer), 0);
    CHECK_EQ(close(other), 0);
    link_close(&link);
}

/* Whoever takes the socket over finds it as it was. */
TEST(a_wire_that_is_retired_without_closing_leaves_the_socket_alone)
{
    uint8_t byte = 0;
    struct link link;
    link_open(&link, WSO_SERVER);
    link_start(&link);
    peer_send(&link, "x", 1);
    CHECK_EQ(wso_wire_retire(link.wire, false), WSO_OK);
    CHECK_EQ(wso_wire_retire(link.wire, true), WSO_OK);
    CHECK_EQ(recv(link.fd, &byte, 1, 0), 1);
    CHECK_EQ(byte, 'x');
    CHECK_EQ(send(link.fd, "y", 1, MSG_NOSIGNAL), 1);
    CHECK_EQ(peer_read(&link, 1), 1);
    CHECK_EQ(link.got[0], 'y');
    link_close(&link);
}
