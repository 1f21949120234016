/* The wire's input: what the peer sends, less the Pings and the Pongs that are the guard's own.
 *
 * Bytes go through the tracker on their way from the socket: either into the loop's buffer or, while
 * the loop is late or its library does not want them, into the inbox. The loop empties the inbox before
 * it reads the socket again, so order holds whoever reads.
 */
#include "wire_inner.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* Where passed bytes go: to the front of a buffer, or into the inbox. */
struct sink {
    uint8_t *buffer;
    size_t size;
    struct wso_page **spare;
};

static void pass_locked(struct wso_wire *wire, struct sink *sink, const uint8_t *bytes, size_t size)
{
    if (sink->buffer == NULL) {
        wso_inbox_put(&wire->inbox, bytes, size, sink->spare);
    } else {
        memmove(sink->buffer + sink->size, bytes, size);
    }
    sink->size += size;
}

/* Forget the user's Pings up to this one. */
static void settle_user_pings(struct user_ping *pings, int last)
{
    for (int i = 0; i <= last; i++) {
        pings[i].set = false;
    }
    if (pings[1].set) {
        pings[0] = pings[1];
        pings[1].set = false;
    }
}

/* The peer answered a Ping of ours that went out at this time: with it, the user's earlier ones are
 * settled (5.5.3), which the library hears as a Pong for the latest of them. */
static void pass_users_pong_locked(struct wso_wire *wire, struct sink *sink, uint64_t at)
{
    static const uint8_t no_mask[4] = {0};
    for (int i = 1; i >= 0; i--) {
        struct user_ping *ping = &wire->user_pings[i];
        if (ping->set && ping->at <= at) {
            uint8_t frame[WSO_CONTROL_FRAME];
            size_t size = wso_control_encode(frame, WSO_OP_PONG, ping->payload, ping->size,
                                             wire->role == WSO_SERVER ? no_mask : NULL);
            pass_locked(wire, sink, frame, size);
            settle_user_pings(wire->user_pings, i);
            return;
        }
    }
}

/* A Pong came: true if it was the guard's own and is not passed on. */
static bool take_pong_locked(struct wso_wire *wire, struct sink *sink,
                             const struct wso_sight *sight)
{
    uint64_t at;
    if (sight->held && wso_keepalive_pong(&wire->keepalive, sight->payload, sight->payload_size,
                                          wso_wire_now_locked(wire), &at)) {
        wso_wire_note_locked(wire, false, WSO_OP_PONG, sight->payload, sight->payload_size);
        pass_users_pong_locked(wire, sink, at);
        return true;
    }
    for (int i = 1; i >= 0; i--) {
        struct user_ping *ping = &wire->user_pings[i];
        if (ping->set && ping->size == sight->payload_size &&
            memcmp(ping->payload, sight->payload, ping->size) == 0) {
            settle_user_pings(wire->user_pings, i);
            break;
        }
    }
    return false;
}

/* A whole control frame: true if it is not passed on. */
static bool take_control_locked(struct wso_wire *wire, struct sink *sink,
                                const struct wso_sight *sight)
{
    switch (sight->seen) {
    case WSO_SEEN_PING:
        if (!sight->held) {
            return false;
        }
        wso_wire_note_locked(wire, false, WSO_OP_PING, sight->payload, sight->payload_size);
        return wso_wire_owe_pong_locked(wire, sight->payload, sight->payload_size);
    case WSO_SEEN_PONG:
        return take_pong_locked(wire, sink, sight);
    default:
        return false;
    }
}

/* Bytes came from the peer. They may lie in the sink's buffer, PASS_EXTRA behind its end. */
static void absorb_locked(struct wso_wire *wire, struct sink *sink, const uint8_t *bytes,
                          size_t size)
{
    wso_keepalive_heard(&wire->keepalive);
    while (size > 0) {
        struct wso_sight sight;
        size_t taken = wso_tracker_feed(&wire->in, bytes, size, &sight);
        bool guarded = wire->state == WSO_WIRE_GUARDED;
        if (!guarded || sight.seen == WSO_SEEN_BYTES || !take_control_locked(wire, sink, &sight)) {
            pass_locked(wire, sink, sight.bytes, sight.size);
        }
        if (guarded && wire->in.phase != WSO_PHASE_FRAMES) {
            /* Close, or something wrong: the Pings before it are answered now or never. */
            wso_wire_advance_locked(wire);
            wso_wire_end_guarding_locked(wire);
        }
        bytes += taken;
        size -= taken;
    }
    wso_wire_advance_locked(wire);
}

/* One read(2): the bytes read; 0 where there are none now, or no more ever, which is noted. */
static size_t read_locked(struct wso_wire *wire, uint8_t *bytes, size_t size)
{
    ssize_t got;
    do {
        got = recv(wire->fd, bytes, size, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got < 0 && errno != EAGAIN) {
        wire->read_error = errno;
    } else if (got == 0 && wire->write_error == ECONNRESET) {
        /* The kernel tells of a reset once, and a write of ours met it first. */
        wire->read_error = ECONNRESET;
    } else {
        wire->input_ended = got == 0;
    }
    return got > 0 ? (size_t)got : 0;
}

/* The input has just ended: a control frame that was held back half is the library's to judge. */
static void pass_held_locked(struct wso_wire *wire, struct sink *sink)
{
    struct wso_sight sight;
    wso_tracker_end(&wire->in, &sight);
    pass_locked(wire, sink, sight.bytes, sight.size);
    wso_wire_end_guarding_locked(wire);
}

static bool can_read_locked(const struct wso_wire *wire)
{
    return wire->fd >= 0 && !wire->input_ended && wire->read_error == 0;
}

/* The pages of this list that count against the pool's bound. */
static size_t count_lent(const struct wso_page *list)
{
    size_t count = 0;
    for (; list != NULL; list = list->next) {
        count += !list->floor;
    }
    return count;
}

/* See whether the inbox is full, now that it may hold so much. */
static bool wants_input_locked(struct wso_wire *wire, uint64_t bound)
{
    /* Hysteresis, so that a reader that takes little at a time does not wake everybody each time. */
    if (wire->full && wire->inbox.size <= bound / 2) {
        wire->full = false;
    }
    wire->full = wire->full || wire->inbox.size >= bound;
    return can_read_locked(wire) && !wire->full;
}

bool wso_wire_wants_input_locked(struct wso_wire *wire)
{
    return wants_input_locked(wire, wso_pages_share_of(wire->pages, wire->read_ahead, 0));
}

bool wso_wire_has_unread_locked(const struct wso_wire *wire)
{
    uint8_t byte;
    return recv(wire->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

size_t wso_wire_read_ahead_locked(struct wso_wire *wire, struct wso_page **spare)
{
    uint64_t bound = wso_pages_share_of(wire->pages, wire->read_ahead, count_lent(*spare));
    if (!wants_input_locked(wire, bound)) {
        return 0;
    }
    size_t room = wso_inbox_room(&wire->inbox, *spare);
    if (room < 2 * PASS_EXTRA) {
        wire->full = true;
        return 0;
    }
    uint8_t bytes[FILL_SIZE];
    uint64_t left = bound - wire->inbox.size;
    size_t most = room - PASS_EXTRA < sizeof bytes ? room - PASS_EXTRA : sizeof bytes;
    most = left < most ? (size_t)left : most;
    struct sink sink = {.spare = spare};
    size_t got = read_locked(wire, bytes, most);
    if (got > 0) {
        absorb_locked(wire, &sink, bytes, got);
    } else if (!can_read_locked(wire)) {
        pass_held_locked(wire, &sink);
    }
    return got;
}

int wso_wire_receive(struct wso_wire *wire, uint8_t *buffer, size_t size,
                     struct wso_wire_news *news)
{
    if (!wso_lock_try(&wire->lock)) {
        return WSO_EBUSY;
    }
    struct wso_page *empty = NULL;
    struct sink sink = {.buffer = buffer};
    if (wire->inbox.size > 0) {
        sink.size = wso_inbox_take(&wire->inbox, buffer, size, &empty);
        wire->taken = true;
    } else if (can_read_locked(wire)) {
        size_t got = read_locked(wire, buffer + PASS_EXTRA, size - PASS_EXTRA);
        if (got > 0) {
            absorb_locked(wire, &sink, buffer + PASS_EXTRA, got);
        } else if (!can_read_locked(wire)) {
            pass_held_locked(wire, &sink);
        }
    }
    (void)wso_wire_wants_input_locked(wire);
    wso_wire_tell_locked(wire, news);
    /* The end comes after the last bytes, in a call of its own. */
    news->more = news->more || (sink.size > 0 && (news->end || news->read_error != 0));
    news->end = news->end && sink.size == 0;
    news->read_error = sink.size == 0 ? news->read_error : 0;
    news->received = sink.size;
    wso_lock_release(&wire->lock);
    wso_pages_give(wire->pages, empty);
    return WSO_OK;
}

void wso_wire_spare_take(struct wso_wire *wire, struct wire_spare *spare)
{
    spare->pages = wso_pages_take(wire->pages, STEP_PAGES);
    spare->floor = spare->pages == NULL ? wso_pages_take_floor(wire->pages) : NULL;
}

struct wso_page **wso_wire_spare_locked(struct wso_wire *wire, struct wire_spare *spare)
{
    /* Each wire has one floor page at most. */
    return spare->pages == NULL && !wire->inbox.floor ? &spare->floor : &spare->pages;
}

void wso_wire_spare_give(struct wso_wire *wire, struct wire_spare *spare)
{
    wso_pages_give(wire->pages, spare->pages);
    wso_pages_give(wire->pages, spare->floor);
}

int wso_wire_fill(struct wso_wire *wire, struct wso_wire_news *news)
{
    struct wire_spare spare;
    wso_wire_spare_take(wire, &spare);
    int status = WSO_EBUSY;
    if (wso_lock_try(&wire->lock)) {
        (void)wso_wire_read_ahead_locked(wire, wso_wire_spare_locked(wire, &spare));
        wso_wire_tell_locked(wire, news);
        wso_lock_release(&wire->lock);
        status = WSO_OK;
    }
    wso_wire_spare_give(wire, &spare);
    return status;
}

int wso_wire_feed(struct wso_wire *wire, const uint8_t *bytes, size_t size)
{
    size_t count = (size + PASS_EXTRA) / WSO_PAGE_BYTES + 1;
    struct wso_page *spare = wso_pages_take(wire->pages, count);
    int status = WSO_EBUSY;
    if (wso_lock_try(&wire->lock)) {
        status = WSO_ENOMEM;
        if (wso_inbox_room(&wire->inbox, spare) >= size) {
            struct sink sink = {.spare = &spare};
            absorb_locked(wire, &sink, bytes, size);
            status = WSO_OK;
        }
        wso_lock_release(&wire->lock);
    }
    wso_pages_give(wire->pages, spare);
    return status;
}
