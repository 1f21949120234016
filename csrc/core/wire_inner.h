/* What the files of the wire know of each other: wire.c (its life), wire_in.c, wire_out.c, and
 * wire_guard.c (what the guard's thread does). `_locked` functions need the wire's lock.
 */
#ifndef WSO_WIRE_INNER_H
#define WSO_WIRE_INNER_H

#include <stdatomic.h>

#include "clock.h"
#include "error.h"
#include "inbox.h"
#include "keepalive.h"
#include "lock.h"
#include "outbox.h"
#include "wire.h"

/* Frames of ours that wait for the kernel: some Pongs, so that a burst of Pings costs one write(2). */
#define OURS_SIZE 512

/* What passing a read's bytes on can add to them: a control frame that was held back from an earlier
 * read, and a Pong made for each of the user's own Pings. */
#define PASS_EXTRA (3 * WSO_CONTROL_FRAME)

/* The most that one read(2) of the guard's thread takes, and what one wire is read ahead before it is
 * another one's turn: less than its pages hold, so that only a pool at its bound can fill a wire. */
#define FILL_SIZE 16384
#define STEP_PAGES 20
#define STEP_SIZE (STEP_PAGES * WSO_PAGE_BYTES - FILL_SIZE - 2 * PASS_EXTRA)

/* A Ping of the user's that has no Pong yet. */
struct user_ping {
    uint64_t at; /* the guard's clock */
    bool set;
    uint8_t size;
    uint8_t payload[WSO_CONTROL_PAYLOAD];
};

struct wire_notes {
    struct wso_wire_note ring[WSO_WIRE_NOTES];
    uint64_t written;
    uint64_t taken;
};

struct wso_wire {
    /* Set once. */
    enum wso_role role;
    struct wso_pages *pages;
    uint64_t read_ahead;
    atomic_uint shares;
    atomic_uint_fast64_t rescues;
    atomic_uint_fast64_t longest_rescue;

    struct wso_lock lock; /* guards what follows */
    int fd;               /* -1 once retired */
    enum wso_wire_state state;
    uint64_t clock_offset; /* from the guard's clock to CLOCK_MONOTONIC, when last told */

    struct wso_tracker in;
    struct wso_inbox inbox;
    bool full;        /* no room for more, until the inbox is half empty */
    bool input_ended; /* read(2) has returned 0 */
    int read_error;
    bool taken;           /* the loop took bytes since the guard's thread last looked */
    uint64_t full_since;  /* and the loop took nothing since; WSO_NEVER: not full */
    uint64_t max_stall;

    struct wso_tracker out; /* of the bytes that were sent */
    struct wso_outbox outbox;
    uint8_t ours[OURS_SIZE]; /* whole frames, the first of them perhaps half sent */
    size_t ours_start;
    size_t ours_end;
    bool owes_pong; /* the latest that did not fit into `ours` */
    bool owes_ping;
    uint8_t pong_size;
    uint8_t pong[WSO_CONTROL_PAYLOAD];
    uint32_t ping;
    bool ends_output;  /* once all is sent, shut down for writing */
    bool output_ended;
    int write_error;

    struct wso_keepalive keepalive;
    struct user_ping user_pings[2]; /* the older first */
    struct wire_notes *notes;       /* NULL: nobody wants them */
    uint64_t answered;
    uint64_t pinged;
    uint64_t ahead;
};

/* wire.c */
void wso_wire_tell_locked(struct wso_wire *wire, struct wso_wire_news *news);
void wso_wire_note_locked(struct wso_wire *wire, bool sent, enum wso_opcode opcode,
                          const uint8_t *payload, size_t size);
/* From now on the library sees every frame, and nothing new of ours goes out. */
void wso_wire_end_guarding_locked(struct wso_wire *wire);
uint64_t wso_wire_now_locked(const struct wso_wire *wire);

/* wire_in.c */
/* Pages for reading ahead, taken before the wire's lock: never two locks at once. */
struct wire_spare {
    struct wso_page *pages;
    struct wso_page *floor; /* only where the pool lends no others */
};
void wso_wire_spare_take(struct wso_wire *wire, struct wire_spare *spare);
struct wso_page **wso_wire_spare_locked(struct wso_wire *wire, struct wire_spare *spare);
void wso_wire_spare_give(struct wso_wire *wire, struct wire_spare *spare);
/* One read(2) into the inbox, as far as it and the spare pages have room; returns the bytes read. 0:
 * nothing there now, or the input has ended or failed, or there is no room. */
size_t wso_wire_read_ahead_locked(struct wso_wire *wire, struct wso_page **spare);
/* May the socket be read into the inbox? */
bool wso_wire_wants_input_locked(struct wso_wire *wire);
/* Bytes wait in the socket. */
bool wso_wire_has_unread_locked(const struct wso_wire *wire);

/* wire_out.c */
/* Send what can be sent: what is ours, what is owed, what the library wrote. */
void wso_wire_advance_locked(struct wso_wire *wire);
/* A Pong is due. False: it cannot be made, and the guarding has ended. */
bool wso_wire_owe_pong_locked(struct wso_wire *wire, const uint8_t *payload, size_t size);
void wso_wire_owe_ping_locked(struct wso_wire *wire, uint32_t payload);
/* Something waits for the socket to be writable. */
bool wso_wire_blocked_locked(const struct wso_wire *wire);
/* The peer has sent Close: of our frames only one that is half sent still goes out (5.5.2). */
void wso_wire_drop_owed_locked(struct wso_wire *wire);
/* Nothing of the outbox or ours will be sent any more. */
void wso_wire_drop_output_locked(struct wso_wire *wire);

/* Bytes that nobody can foresee (5.3); false if the system has none. */
bool wso_wire_random(void *bytes, size_t size);

#endif
