/* A wire's life: see wire.h. Its input is in wire_in.c, its output in wire_out.c, what the guard's
 * thread does with it in wire_guard.c.
 */
#include "wire_inner.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

int wso_wire_new(const struct wso_wire_options *options, struct wso_wire **wire)
{
    struct wso_wire *made = calloc(1, sizeof *made);
    *wire = NULL;
    if (made == NULL || wso_lock_init(&made->lock) != WSO_OK) {
        free(made);
        return WSO_ENOMEM;
    }
    atomic_init(&made->shares, 1);
    made->role = options->role;
    made->pages = wso_pages_share(options->pages);
    made->read_ahead = options->read_ahead;
    made->fd = options->fd;
    made->full_since = WSO_NEVER;
    bool server = options->role == WSO_SERVER;
    wso_tracker_init(&made->in, server, !options->at_upgrade);
    wso_tracker_init(&made->out, !server, true);
    wso_inbox_init(&made->inbox);
    wso_outbox_init(&made->outbox);
    wso_keepalive_init(&made->keepalive);
    *wire = made;
    return WSO_OK;
}

struct wso_wire *wso_wire_share(struct wso_wire *wire)
{
    atomic_fetch_add(&wire->shares, 1);
    return wire;
}

void wso_wire_release(struct wso_wire *wire)
{
    if (atomic_fetch_sub(&wire->shares, 1) != 1) {
        return;
    }
    struct wso_page *empty = NULL;
    wso_inbox_clear(&wire->inbox, &empty);
    wso_pages_give(wire->pages, empty);
    wso_pages_release(wire->pages);
    wso_outbox_clear(&wire->outbox);
    free(wire->notes);
    wso_lock_destroy(&wire->lock);
    free(wire);
}

void wso_wire_wait(struct wso_wire *wire)
{
    wso_lock_acquire(&wire->lock);
    wso_lock_release(&wire->lock);
}

void wso_wire_tell_locked(struct wso_wire *wire, struct wso_wire_news *news)
{
    bool empty = wire->inbox.size == 0;
    *news = (struct wso_wire_news){
        .more = !empty,
        .full = wire->full,
        .end = empty && wire->input_ended,
        .stopped = wire->input_ended || wire->read_error != 0,
        .read_error = empty ? wire->read_error : 0,
        .write_error = wire->write_error,
        .unsent = wire->outbox.size,
        .want_write = wso_wire_blocked_locked(wire),
    };
}

void wso_wire_note_locked(struct wso_wire *wire, bool sent, enum wso_opcode opcode,
                          const uint8_t *payload, size_t size)
{
    if (wire->notes == NULL) {
        return;
    }
    struct wso_wire_note *note = &wire->notes->ring[wire->notes->written++ % WSO_WIRE_NOTES];
    note->sent = sent;
    note->opcode = opcode;
    note->size = (uint8_t)size;
    memcpy(note->payload, payload, size);
}

void wso_wire_end_guarding_locked(struct wso_wire *wire)
{
    wire->in.hold = false;
    if (wire->state == WSO_WIRE_GUARDED) {
        wire->state = WSO_WIRE_ENDED;
        wso_wire_drop_owed_locked(wire);
    }
}

uint64_t wso_wire_now_locked(const struct wso_wire *wire)
{
    return wso_now() - wire->clock_offset;
}

int wso_wire_look(struct wso_wire *wire, struct wso_wire_news *news)
{
    if (!wso_lock_try(&wire->lock)) {
        return WSO_EBUSY;
    }
    (void)wso_wire_wants_input_locked(wire);
    wso_wire_tell_locked(wire, news);
    wso_lock_release(&wire->lock);
    return WSO_OK;
}

/* Whether both streams are where WebSocket frames are. */
static bool guardable_locked(const struct wso_wire *wire)
{
    bool in = wire->in.phase == WSO_PHASE_FRAMES;
    /* The head of our own answer may still be on its way. */
    bool out = wire->out.phase == WSO_PHASE_FRAMES || wire->out.phase == WSO_PHASE_HEAD;
    return wire->state == WSO_WIRE_NEW && in && out && !wire->input_ended &&
           wire->read_error == 0 && wire->write_error == 0 && !wire->ends_output;
}

int wso_wire_start(struct wso_wire *wire, const struct wso_wire_settings *settings, uint64_t now)
{
    struct wire_notes *notes = settings->log ? calloc(1, sizeof *notes) : NULL;
    int status = settings->log && notes == NULL ? WSO_ENOMEM : WSO_OK;
    if (status == WSO_OK && !wso_lock_try(&wire->lock)) {
        status = WSO_EBUSY;
    } else if (status == WSO_OK) {
        wso_tracker_limit(&wire->in, settings->rsv1, settings->max_message,
                          settings->max_fragment);
        if (guardable_locked(wire)) {
            wire->state = WSO_WIRE_GUARDED;
            wire->in.hold = true;
            wire->max_stall = settings->max_stall;
            wire->notes = notes;
            notes = NULL;
            wire->clock_offset = wso_now() - now;
            wso_keepalive_set(&wire->keepalive, settings->ping_interval, settings->ping_timeout,
                              now);
        } else {
            status = WSO_EUNGUARDABLE;
        }
        wso_lock_release(&wire->lock);
    }
    free(notes);
    return status;
}

int wso_wire_end(struct wso_wire *wire)
{
    if (!wso_lock_try(&wire->lock)) {
        return WSO_EBUSY;
    }
    wso_wire_end_guarding_locked(wire);
    wso_lock_release(&wire->lock);
    return WSO_OK;
}

int wso_wire_set_pings(struct wso_wire *wire, uint64_t interval, uint64_t timeout, uint64_t now)
{
    if (!wso_lock_try(&wire->lock)) {
        return WSO_EBUSY;
    }
    wso_keepalive_set(&wire->keepalive, interval, timeout, now);
    wso_lock_release(&wire->lock);
    return WSO_OK;
}

/* Tell the peer as close(2) would. */
static void say_goodbye_locked(struct wso_wire *wire)
{
    int unread = 0;
    bool reset = wire->inbox.size > 0 ||
                 (ioctl(wire->fd, FIONREAD, &unread) == 0 && unread > 0);
    struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    /* Disconnecting resets a TCP connection (connect(2)); other sockets refuse it. */
    if (!reset || connect(wire->fd, &nobody, sizeof nobody) != 0) {
        /* A connection that is gone needs no goodbye. */
        (void)shutdown(wire->fd, SHUT_RDWR);
    }
}

int wso_wire_retire(struct wso_wire *wire, bool close)
{
    if (!wso_lock_try(&wire->lock)) {
        return WSO_EBUSY;
    }
    struct wso_page *empty = NULL;
    if (wire->fd >= 0) {
        if (close) {
            say_goodbye_locked(wire);
        }
        wire->fd = -1;
        wire->state = WSO_WIRE_RETIRED;
        wso_inbox_clear(&wire->inbox, &empty);
        wso_wire_drop_output_locked(wire);
    }
    wso_lock_release(&wire->lock);
    wso_pages_give(wire->pages, empty);
    return WSO_OK;
}

int wso_wire_counts(struct wso_wire *wire, struct wso_wire_counts *counts)
{
    if (!wso_lock_try(&wire->lock)) {
        return WSO_EBUSY;
    }
    *counts = (struct wso_wire_counts){
        .state = wire->state,
        .answered = wire->answered,
        .pinged = wire->pinged,
        .latency = wire->keepalive.latency,
        .inbox = wire->inbox.size,
        .read_ahead = wire->ahead,
        .rescues = atomic_load(&wire->rescues),
        .longest_rescue = atomic_load(&wire->longest_rescue),
    };
    wso_lock_release(&wire->lock);
    return WSO_OK;
}

int wso_wire_take_notes(struct wso_wire *wire, struct wso_wire_note *notes, int *count,
                        uint64_t *missed)
{
    if (!wso_lock_try(&wire->lock)) {
        return WSO_EBUSY;
    }
    *count = 0;
    *missed = 0;
    struct wire_notes *kept = wire->notes;
    if (kept != NULL) {
        uint64_t from = kept->taken;
        if (kept->written - from > WSO_WIRE_NOTES) {
            from = kept->written - WSO_WIRE_NOTES;
        }
        *missed = from - kept->taken;
        while (from < kept->written) {
            notes[(*count)++] = kept->ring[from++ % WSO_WIRE_NOTES];
        }
        kept->taken = kept->written;
    }
    wso_lock_release(&wire->lock);
    return WSO_OK;
}
