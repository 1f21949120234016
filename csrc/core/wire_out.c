/* The wire's output: the library's bytes in order, and frames of ours between its frames (5.4).
 *
 * The tracker runs over bytes as they are sent, so "between frames" is what the peer will see. A frame
 * of ours that the kernel took in part is finished before anything else. While the library's bytes are
 * blocked, only the latest Pong is owed (5.5.3).
 */
#include "wire_inner.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

/* Pieces of the outbox given to one sendmsg(2). */
#define PIECES 16

bool wso_wire_random(void *bytes, size_t size)
{
    return getrandom(bytes, size, GRND_NONBLOCK) == (ssize_t)size;
}

void wso_wire_drop_owed_locked(struct wso_wire *wire)
{
    size_t end = 0;
    while (end < wire->ours_start) {
        size_t payload = wire->ours[end + 1] & 0x7f;
        end += 2 + (wire->role == WSO_CLIENT ? 4 : 0) + payload;
    }
    wire->ours_end = end;
    wire->owes_pong = wire->owes_ping = false;
}

void wso_wire_drop_output_locked(struct wso_wire *wire)
{
    wso_outbox_clear(&wire->outbox);
    wire->ours_start = wire->ours_end = 0;
    wire->owes_pong = wire->owes_ping = false;
}

/* What was sent, or 0 if the socket is full or has failed, which is noted. */
static size_t send_pieces_locked(struct wso_wire *wire, const struct iovec *pieces, int count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)pieces, .msg_iovlen = (size_t)count};
    ssize_t sent;
    do {
        sent = sendmsg(wire->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN) {
        wire->write_error = errno;
        wso_wire_drop_output_locked(wire);
    }
    return sent > 0 ? (size_t)sent : 0;
}

/* The user has sent a Ping of its own: see user_ping. */
static void note_user_ping_locked(struct wso_wire *wire, const struct wso_sight *sight)
{
    struct user_ping *pings = wire->user_pings;
    /* A Ping of ours went out since the newest: whoever answers only that one settles it. */
    if (pings[1].set && wire->keepalive.pinged_at >= pings[1].at) {
        pings[0] = pings[1];
    } else if (pings[0].set && !pings[1].set && wire->keepalive.pinged_at < pings[0].at) {
        pings[0].set = false;
    }
    struct user_ping *ping = pings[0].set ? &pings[1] : &pings[0];
    ping->set = true;
    ping->at = wso_wire_now_locked(wire);
    ping->size = (uint8_t)sight->payload_size;
    memcpy(ping->payload, sight->payload, sight->payload_size);
}

/* These bytes of the library's were sent. */
static void track_locked(struct wso_wire *wire, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        struct wso_sight sight;
        size_t taken = wso_tracker_feed(&wire->out, bytes, size, &sight);
        if (sight.seen == WSO_SEEN_PING && wire->state == WSO_WIRE_GUARDED) {
            note_user_ping_locked(wire, &sight);
        }
        bytes += taken;
        size -= taken;
    }
    if (wire->out.phase == WSO_PHASE_BROKEN) {
        wso_wire_end_guarding_locked(wire);
    }
}

/* True if all of `ours` was sent. */
static bool send_ours_locked(struct wso_wire *wire)
{
    while (wire->ours_start < wire->ours_end) {
        struct iovec piece = {wire->ours + wire->ours_start, wire->ours_end - wire->ours_start};
        size_t sent = send_pieces_locked(wire, &piece, 1);
        if (sent == 0) {
            return wire->ours_end == 0;
        }
        wire->ours_start += sent;
    }
    wire->ours_start = wire->ours_end = 0;
    return true;
}

/* Append a frame of ours, for which there is room. */
static bool put_ours_locked(struct wso_wire *wire, enum wso_opcode opcode, const uint8_t *payload,
                            size_t size)
{
    uint8_t mask[4];
    bool masks = wire->role == WSO_CLIENT;
    if (masks && !wso_wire_random(mask, sizeof mask)) {
        wso_wire_end_guarding_locked(wire);
        return false;
    }
    wire->ours_end += wso_control_encode(wire->ours + wire->ours_end, opcode, payload, size,
                                         masks ? mask : NULL);
    wso_wire_note_locked(wire, true, opcode, payload, size);
    wire->answered += opcode == WSO_OP_PONG;
    wire->pinged += opcode == WSO_OP_PING;
    return true;
}

/* A frame of ours may go out next. */
static bool may_put_ours_locked(const struct wso_wire *wire)
{
    return wso_tracker_between_frames(&wire->out) &&
           OURS_SIZE - wire->ours_end >= WSO_CONTROL_FRAME;
}

/* Owed frames that may go out now; false if none could. */
static bool put_owed_locked(struct wso_wire *wire)
{
    if (!(wire->owes_pong || wire->owes_ping) || !may_put_ours_locked(wire)) {
        return false;
    }
    if (wire->owes_pong) {
        wire->owes_pong = false;
        (void)put_ours_locked(wire, WSO_OP_PONG, wire->pong, wire->pong_size);
    } else {
        wire->owes_ping = false;
        /* No Ping after our Close: nobody needs to answer it any more (5.5.2). */
        if (wire->out.phase == WSO_PHASE_FRAMES) {
            (void)put_ours_locked(wire, WSO_OP_PING, (const uint8_t *)&wire->ping,
                                  sizeof wire->ping);
        }
    }
    return true;
}

/* Some of the outbox; only to the end of the current frame if something is owed. False: blocked. */
static bool send_outbox_locked(struct wso_wire *wire)
{
    struct iovec pieces[PIECES];
    int count = wso_outbox_peek(&wire->outbox, pieces, PIECES);
    if (wire->owes_pong || wire->owes_ping) {
        count = 1;
        pieces[0].iov_len =
            wso_tracker_to_boundary(&wire->out, pieces[0].iov_base, pieces[0].iov_len);
    }
    size_t offered = 0;
    for (int i = 0; i < count; i++) {
        offered += pieces[i].iov_len;
    }
    size_t sent = send_pieces_locked(wire, pieces, count);
    size_t left = sent;
    for (int i = 0; left > 0; i++) {
        size_t size = left < pieces[i].iov_len ? left : pieces[i].iov_len;
        track_locked(wire, pieces[i].iov_base, size);
        left -= size;
    }
    wso_outbox_drop(&wire->outbox, sent);
    return sent == offered;
}

static void shut_down_locked(struct wso_wire *wire)
{
    if (wire->ends_output && !wire->output_ended && wire->outbox.size == 0) {
        /* A peer that is gone already is found by the next read. */
        (void)shutdown(wire->fd, SHUT_WR);
        wire->output_ended = true;
    }
}

void wso_wire_advance_locked(struct wso_wire *wire)
{
    bool goes_on = true;
    while (goes_on && wire->fd >= 0 && wire->write_error == 0) {
        if (!send_ours_locked(wire)) {
            return;
        }
        if (put_owed_locked(wire)) {
            continue;
        }
        goes_on = wire->outbox.size > 0 && send_outbox_locked(wire);
    }
    if (wire->fd >= 0 && wire->write_error == 0) {
        shut_down_locked(wire);
    }
}

bool wso_wire_owe_pong_locked(struct wso_wire *wire, const uint8_t *payload, size_t size)
{
    if (wire->write_error != 0 || wire->ends_output) {
        return true;
    }
    bool direct = !wire->owes_pong && wire->outbox.size == 0;
    if (direct && OURS_SIZE - wire->ours_end < WSO_CONTROL_FRAME) {
        (void)send_ours_locked(wire);
    }
    if (direct && may_put_ours_locked(wire)) {
        return put_ours_locked(wire, WSO_OP_PONG, payload, size);
    }
    wire->owes_pong = true;
    wire->pong_size = (uint8_t)size;
    memcpy(wire->pong, payload, size);
    return true;
}

void wso_wire_owe_ping_locked(struct wso_wire *wire, uint32_t payload)
{
    wire->owes_ping = true;
    wire->ping = payload;
}

bool wso_wire_blocked_locked(const struct wso_wire *wire)
{
    return wire->fd >= 0 && wire->write_error == 0 &&
           (wire->outbox.size > 0 || wire->ours_end > 0);
}

/* Send pieces of the library's; the rest goes into the outbox. */
static int send_or_keep_locked(struct wso_wire *wire, const struct iovec *pieces, int count)
{
    bool direct = wire->outbox.size == 0 && wire->ours_end == 0 && !wire->owes_pong &&
                  !wire->owes_ping && count <= PIECES;
    size_t sent = direct ? send_pieces_locked(wire, pieces, count) : 0;
    for (int i = 0; i < count && wire->write_error == 0; i++) {
        size_t gone = sent < pieces[i].iov_len ? sent : pieces[i].iov_len;
        sent -= gone;
        track_locked(wire, pieces[i].iov_base, gone);
        if (gone < pieces[i].iov_len) {
            int status = wso_outbox_put(&wire->outbox, (const uint8_t *)pieces[i].iov_base + gone,
                                        pieces[i].iov_len - gone);
            if (status != WSO_OK) {
                return status;
            }
        }
    }
    if (!direct) {
        wso_wire_advance_locked(wire);
    }
    return WSO_OK;
}

int wso_wire_send(struct wso_wire *wire, const struct iovec *pieces, int count,
                  struct wso_wire_news *news)
{
    if (!wso_lock_try(&wire->lock)) {
        return WSO_EBUSY;
    }
    int status = WSO_OK;
    if (wire->fd >= 0 && wire->write_error == 0 && !wire->ends_output) {
        wso_wire_advance_locked(wire);
        status = send_or_keep_locked(wire, pieces, count);
    }
    wso_wire_tell_locked(wire, news);
    wso_lock_release(&wire->lock);
    return status;
}

int wso_wire_flush(struct wso_wire *wire, struct wso_wire_news *news)
{
    if (!wso_lock_try(&wire->lock)) {
        return WSO_EBUSY;
    }
    wso_wire_advance_locked(wire);
    wso_wire_tell_locked(wire, news);
    wso_lock_release(&wire->lock);
    return WSO_OK;
}

int wso_wire_end_output(struct wso_wire *wire, struct wso_wire_news *news)
{
    if (!wso_lock_try(&wire->lock)) {
        return WSO_EBUSY;
    }
    wire->ends_output = true;
    wire->owes_pong = wire->owes_ping = false;
    wso_wire_advance_locked(wire);
    wso_wire_tell_locked(wire, news);
    wso_lock_release(&wire->lock);
    return WSO_OK;
}
