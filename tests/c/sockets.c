/* See sockets.h. */
#include "sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Of frames that are sent in one call. */
#define LARGEST ((size_t)4 << 20)

static const char head[] = "HTTP/1.1 101 Switching Protocols\r\n\r\n";

const struct wso_wire_settings link_settings = {
    .max_message = UINT64_MAX,
    .max_fragment = UINT64_MAX,
    .ping_interval = WSO_NEVER,
    .ping_timeout = WSO_NEVER,
    .max_stall = WSO_NEVER,
};

static void connect_tcp(int pair[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int on = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(listener >= 0);
    CHECK_EQ(bind(listener, (struct sockaddr *)&address, size), 0);
    CHECK_EQ(listen(listener, 1), 0);
    CHECK_EQ(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    pair[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(pair[1] >= 0);
    CHECK_EQ(connect(pair[1], (struct sockaddr *)&address, size), 0);
    pair[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    CHECK(pair[0] >= 0);
    CHECK_EQ(close(listener), 0);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(setsockopt(pair[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
    }
}

void sockets_pair(bool tcp, int pair[2])
{
    if (tcp) {
        connect_tcp(pair);
    } else {
        CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    }
}

void link_open_with(struct link *link, const struct link_options *options)
{
    int pair[2];
    sockets_pair(options->tcp, pair);
    *link = (struct link){.role = options->role, .fd = pair[0], .peer = pair[1], .masks = 1};
    if (options->send_buffer > 0) {
        CHECK_EQ(setsockopt(link->fd, SOL_SOCKET, SO_SNDBUF, &options->send_buffer,
                            sizeof options->send_buffer), 0);
    }
    if (options->pages != NULL) {
        link->pages = wso_pages_share(options->pages);
    } else {
        CHECK_EQ(wso_pages_new(UINT64_C(16) << 20, &link->pages), WSO_OK);
    }
    struct wso_wire_options made = {
        .fd = link->fd,
        .role = options->role,
        .at_upgrade = !options->head,
        .pages = link->pages,
        .read_ahead = options->read_ahead > 0 ? options->read_ahead : 65536,
    };
    CHECK_EQ(wso_wire_new(&made, &link->wire), WSO_OK);
    link->received = malloc(LINK_BYTES);
    link->got = malloc(LINK_BYTES);
    CHECK(link->received != NULL && link->got != NULL);
    if (!options->head) {
        link_send(link, head, strlen(head));
        while (link->got_size < strlen(head)) {
            (void)peer_read(link, strlen(head) - link->got_size);
        }
        CHECK(memcmp(link->got, head, strlen(head)) == 0);
        link->got_size = 0;
    }
}

void link_open(struct link *link, enum wso_role role)
{
    link_open_with(link, &(struct link_options){.role = role});
}

void link_close(struct link *link)
{
    AT_WIRE(link, wso_wire_retire(link->wire, true));
    CHECK_EQ(close(link->fd), 0);
    wso_wire_release(link->wire);
    wso_pages_release(link->pages);
    if (link->peer >= 0) {
        peer_close(link);
    }
    free(link->received);
    free(link->got);
}

void link_start_with(struct link *link, const struct wso_wire_settings *settings)
{
    CHECK_EQ(wso_wire_start(link->wire, settings, wso_now()), WSO_OK);
    CHECK_EQ(link_counts(link).state, WSO_WIRE_GUARDED);
}

void link_start(struct link *link)
{
    link_start_with(link, &link_settings);
}

/* Bytes that wait in the wire's socket. */
static int link_unread(struct link *link)
{
    int unread = 0;
    return !link->news.stopped && ioctl(link->fd, FIONREAD, &unread) == 0 ? unread : 0;
}

size_t link_receive(struct link *link)
{
    uint8_t buffer[WSO_RECEIVE_MIN];
    size_t came = 0;
    int before, unread = 0;
    /* At least once, so that an end that came meanwhile is found. A call that brings nothing may have
     * read a Ping. */
    do {
        before = unread;
        AT_WIRE(link, wso_wire_receive(link->wire, buffer, sizeof buffer, &link->news));
        CHECK(link->received_size + link->news.received <= LINK_BYTES);
        memcpy(link->received + link->received_size, buffer, link->news.received);
        link->received_size += link->news.received;
        came += link->news.received;
        unread = link_unread(link);
    } while (link->news.more || (unread > 0 && (link->news.received > 0 || unread != before)));
    return came;
}

void link_check_received(struct link *link, const void *bytes, size_t size)
{
    (void)link_receive(link);
    CHECK_EQ(link->received_size, size);
    CHECK(size == 0 || memcmp(link->received, bytes, size) == 0);
    link->received_size = 0;
}

void link_send(struct link *link, const void *bytes, size_t size)
{
    struct iovec piece = {(void *)bytes, size};
    AT_WIRE(link, wso_wire_send(link->wire, &piece, 1, &link->news));
}

void link_send_frame(struct link *link, uint8_t first, const void *payload, size_t size)
{
    static uint8_t frame[LARGEST];
    CHECK(size + 14 <= sizeof frame);
    link_send(link, frame, link_make(link, frame, first, payload, size));
}

struct wso_wire_counts link_counts(struct link *link)
{
    struct wso_wire_counts counts;
    AT_WIRE(link, wso_wire_counts(link->wire, &counts));
    return counts;
}

size_t frame_make(uint8_t *frame, uint8_t first, const uint8_t *mask, const void *payload,
                  size_t size)
{
    uint8_t masked = mask == NULL ? 0 : 0x80;
    int more = size < 126 ? 0 : size < 65536 ? 2 : 8;
    size_t at = 2;
    frame[0] = first;
    frame[1] = (uint8_t)(masked | (more == 0 ? size : more == 2 ? 126 : 127));
    for (int i = more - 1; i >= 0; i--) {
        frame[at++] = (uint8_t)((uint64_t)size >> 8 * i);
    }
    if (mask != NULL) {
        memcpy(frame + at, mask, 4);
        at += 4;
    }
    for (size_t i = 0; i < size; i++) {
        frame[at + i] = ((const uint8_t *)payload)[i] ^ (mask == NULL ? 0 : mask[i % 4]);
    }
    return at + size;
}

size_t peer_make(struct link *link, uint8_t *frame, uint8_t first, const void *payload, size_t size)
{
    uint32_t mask = link->masks = link->masks * 1664525 + 1013904223;
    return frame_make(frame, first, link->role == WSO_SERVER ? (const uint8_t *)&mask : NULL,
                      payload, size);
}

size_t link_make(struct link *link, uint8_t *frame, uint8_t first, const void *payload, size_t size)
{
    static const uint8_t zeroes[4];
    return frame_make(frame, first, link->role == WSO_CLIENT ? zeroes : NULL, payload, size);
}

void peer_send(struct link *link, const void *bytes, size_t size)
{
    CHECK_EQ(send(link->peer, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT), size);
}

void peer_send_frame(struct link *link, uint8_t first, const void *payload, size_t size)
{
    static uint8_t frame[LARGEST];
    CHECK(size + 14 <= sizeof frame);
    peer_send(link, frame, peer_make(link, frame, first, payload, size));
}

void peer_ping(struct link *link, const char *payload)
{
    peer_send_frame(link, PING, payload, strlen(payload));
}

size_t peer_read(struct link *link, size_t most)
{
    if (link->got_from == link->got_size) {
        link->got_from = link->got_size = 0;
    }
    size_t room = LINK_BYTES - link->got_size;
    ssize_t size = recvfrom(link->peer, link->got + link->got_size, most < room ? most : room,
                            MSG_DONTWAIT, NULL, NULL);
    CHECK(size >= 0 || errno == EAGAIN);
    link->got_size += size > 0 ? (size_t)size : 0;
    return size > 0 ? (size_t)size : 0;
}

/* Where the header at `from` ends; 0 if it is not whole. Fails the test if it is wrong. */
static size_t parse_header(struct link *link, struct frame *frame)
{
    const uint8_t *at = link->got + link->got_from;
    size_t there = link->got_size - link->got_from;
    if (there < 2) {
        return 0;
    }
    frame->first = at[0];
    bool control = at[0] & 0x08;
    bool masked = at[1] & 0x80;
    size_t length = at[1] & 0x7f;
    size_t more = length == 126 ? 2 : length == 127 ? 8 : 0;
    size_t end = 2 + more + (masked ? 4 : 0);
    CHECK((at[0] & 0x70) == 0 && (at[0] & 0x0f) <= 10 && ((at[0] & 0x0f) <= 2 || control));
    CHECK(masked == (link->role == WSO_CLIENT));
    CHECK(!control || (more == 0 && at[0] & 0x80));
    if (there < end) {
        return 0;
    }
    frame->size = more == 0 ? length : 0;
    for (size_t i = 0; i < more; i++) {
        frame->size = frame->size << 8 | at[2 + i];
    }
    memset(frame->mask, 0, sizeof frame->mask);
    if (masked) {
        memcpy(frame->mask, at + end - 4, 4);
    }
    return end;
}

bool peer_next(struct link *link, struct frame *frame)
{
    size_t header = parse_header(link, frame);
    if (header == 0 || link->got_size - link->got_from - header < frame->size) {
        return false;
    }
    uint8_t *payload = link->got + link->got_from + header;
    for (size_t i = 0; i < frame->size; i++) {
        payload[i] ^= frame->mask[i % 4];
    }
    frame->payload = payload;
    link->got_from += header + frame->size;
    return true;
}

static void read_all(struct link *link)
{
    while (peer_read(link, LINK_BYTES) > 0) {
    }
}

void peer_expect(struct link *link, uint8_t first, const void *payload, size_t size)
{
    struct frame frame;
    read_all(link);
    CHECK(peer_next(link, &frame));
    CHECK_EQ(frame.first, first);
    CHECK_EQ(frame.size, size);
    CHECK(size == 0 || memcmp(frame.payload, payload, size) == 0);
}

void peer_expect_pong(struct link *link, const char *payload)
{
    peer_expect(link, PONG, payload, strlen(payload));
}

void peer_expect_nothing(struct link *link)
{
    read_all(link);
    CHECK_EQ(link->got_from, link->got_size);
}

void peer_close(struct link *link)
{
    CHECK_EQ(close(link->peer), 0);
    link->peer = -1;
}
