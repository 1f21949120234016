/* What the guard's thread does with a wire; and the verdict, which the loop's thread confirms. */
#include "wire_inner.h"

#include <sys/epoll.h>

/* A verdict that nobody acted upon is proposed again after this. */
#define PROPOSE_AGAIN WSO_NS_PER_S

/* A wire that the common bound keeps from reading is looked at again after this. */
#define READ_AGAIN (WSO_NS_PER_S / 10)

/* What waits for the socket to be writable is the loop's to send once it is back: it has to know. */
static unsigned blocked_locked(const struct wso_wire *wire)
{
    return wso_wire_blocked_locked(wire) ? WSO_DID_BLOCK : 0u;
}

static void step_locked(struct wso_wire *wire, struct wso_page **spare, struct wso_wire_step *step)
{
    uint64_t answered = wire->answered;
    uint64_t pinged = wire->pinged;
    uint64_t held = wire->inbox.size;
    wso_wire_advance_locked(wire);
    size_t got;
    do {
        got = wso_wire_read_ahead_locked(wire, spare);
        step->read += got;
    } while (got > 0 && step->read < STEP_SIZE && wire->state == WSO_WIRE_GUARDED);
    wire->ahead += step->read;
    step->answered = wire->answered - answered;
    step->pinged = wire->pinged - pinged;
    bool ended = wire->input_ended || wire->read_error != 0 || wire->write_error != 0;
    step->did = (step->answered + step->pinged > 0 ? WSO_DID_ANSWER : 0u) |
                (wire->inbox.size > held || ended ? WSO_DID_READ : 0u) | blocked_locked(wire);
    if (wire->state == WSO_WIRE_GUARDED && !ended) {
        step->events = (wire->full ? 0u : (uint32_t)EPOLLIN) |
                       (wso_wire_blocked_locked(wire) ? (uint32_t)EPOLLOUT : 0u);
    }
}

void wso_wire_step(struct wso_wire *wire, uint64_t now, struct wso_wire_step *step)
{
    struct wire_spare spare;
    *step = (struct wso_wire_step){0};
    wso_wire_spare_take(wire, &spare);
    wso_lock_acquire(&wire->lock);
    if (wire->fd >= 0 && wire->state == WSO_WIRE_GUARDED) {
        wire->clock_offset = wso_now() - now;
        step_locked(wire, wso_wire_spare_locked(wire, &spare), step);
    }
    wso_lock_release(&wire->lock);
    wso_wire_spare_give(wire, &spare);
}

/* Unread bytes put the verdict off: while the wire may read them, because they are life; and with a full
 * inbox for at most max_stall since the library last took some, `until` then. */
static bool dead_locked(struct wso_wire *wire, uint64_t now, uint64_t *until)
{
    if (!wso_keepalive_dead(&wire->keepalive, now)) {
        return false;
    }
    if (!wso_wire_wants_input_locked(wire)) {
        if (wire->taken || wire->full_since == WSO_NEVER) {
            wire->taken = false;
            wire->full_since = now;
        }
        *until = wso_time_after(wire->full_since, wire->max_stall);
        return now >= *until;
    }
    wire->full_since = WSO_NEVER;
    if (wso_wire_has_unread_locked(wire)) {
        wso_keepalive_heard(&wire->keepalive);
        return false;
    }
    return true;
}

/* Propose the verdict if it is due; say when to look again. A verdict put off holds no Ping back. */
static void judge_locked(struct wso_wire *wire, uint64_t now, struct wso_wire_step *step)
{
    uint64_t put_off = WSO_NEVER;
    if (dead_locked(wire, now, &put_off)) {
        step->did |= WSO_DID_PROPOSE;
        step->next = wso_time_after(now, PROPOSE_AGAIN);
    } else if (wso_keepalive_dead(&wire->keepalive, now)) {
        uint64_t ping = wso_keepalive_next_ping(&wire->keepalive);
        step->next = ping < put_off ? ping : put_off;
    } else {
        step->next = wso_keepalive_next(&wire->keepalive);
    }
}

/* A Ping of ours is due. */
static void ping_locked(struct wso_wire *wire, uint64_t now)
{
    uint32_t payload;
    if (!wso_wire_random(&payload, sizeof payload)) {
        return;
    }
    /* Pings of the user's went out before it, whatever our idea of the guard's clock was then. */
    for (int i = 0; i < 2; i++) {
        struct user_ping *ping = &wire->user_pings[i];
        ping->at = ping->at > now ? now : ping->at;
    }
    wso_keepalive_pinged(&wire->keepalive, payload, now);
    wso_wire_owe_ping_locked(wire, payload);
    wso_wire_advance_locked(wire);
}

/* After our own Close, or once writing has failed, the library's timeouts rule. */
static bool may_ping_locked(const struct wso_wire *wire)
{
    return wire->state == WSO_WIRE_GUARDED && wire->write_error == 0 && !wire->ends_output &&
           wire->out.phase != WSO_PHASE_CLOSED;
}

/* Nobody tells a wire that others have given pages back, unless it is its own inbox that is full. */
static void read_on_locked(struct wso_wire *wire, uint64_t now, struct wso_wire_step *step)
{
    if (!wire->full || wire->inbox.size > wire->read_ahead / 2) {
        return;
    }
    if (wso_wire_wants_input_locked(wire)) {
        step->did |= WSO_DID_BLOCK;
    } else {
        uint64_t again = wso_time_after(now, READ_AGAIN);
        step->next = again < step->next ? again : step->next;
    }
}

void wso_wire_tick(struct wso_wire *wire, uint64_t now, struct wso_wire_step *step)
{
    *step = (struct wso_wire_step){.next = WSO_NEVER};
    wso_lock_acquire(&wire->lock);
    if (may_ping_locked(wire)) {
        wire->clock_offset = wso_now() - now;
        uint64_t pinged = wire->pinged;
        if (wso_keepalive_ping_due(&wire->keepalive, now)) {
            ping_locked(wire, now);
        }
        step->pinged = wire->pinged - pinged;
        step->did = (step->pinged > 0 ? WSO_DID_ANSWER : 0u) | blocked_locked(wire);
        judge_locked(wire, now, step);
        read_on_locked(wire, now, step);
    }
    wso_lock_release(&wire->lock);
}

void wso_wire_forgive(struct wso_wire *wire, uint64_t now)
{
    wso_lock_acquire(&wire->lock);
    wso_keepalive_forgive(&wire->keepalive, now);
    wso_lock_release(&wire->lock);
}

void wso_wire_rescued(struct wso_wire *wire, uint64_t duration)
{
    atomic_fetch_add(&wire->rescues, 1);
    uint64_t longest = atomic_load(&wire->longest_rescue);
    while (duration > longest &&
           !atomic_compare_exchange_weak(&wire->longest_rescue, &longest, duration)) {
        /* `longest` was read anew. */
    }
}

int wso_wire_confirm_dead(struct wso_wire *wire, uint64_t now, bool *dead)
{
    if (!wso_lock_try(&wire->lock)) {
        return WSO_EBUSY;
    }
    uint64_t until;
    *dead = may_ping_locked(wire) && dead_locked(wire, now, &until);
    wso_lock_release(&wire->lock);
    return WSO_OK;
}
