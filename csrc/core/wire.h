/* One guarded connection: the socket, a tracker for each direction, inbox, outbox, keepalive, lock.
 *
 * The wire is the only reader and writer of its socket. The loop's thread and the guard's thread both
 * use it, each under its lock, so nobody ever sees half a frame that the other does not know of.
 * No call blocks on the socket. The descriptor is borrowed: its owner closes it after wso_wire_retire.
 *
 * The loop's thread holds the GIL and may not wait for the lock with it: its functions answer
 * WSO_EBUSY, having done nothing, while another thread is at the wire. It then lets the GIL go, calls
 * wso_wire_wait, takes the GIL back and tries again.
 */
#ifndef WSO_WIRE_H
#define WSO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "frame.h"
#include "pages.h"

/* The smallest buffer that wso_wire_receive takes. */
#define WSO_RECEIVE_MIN 4096

struct wso_wire;

struct wso_wire_options {
    int fd;             /* a connected stream socket, non-blocking; borrowed until retired */
    enum wso_role role; /* ours */
    bool at_upgrade;    /* the peer's frames begin at once; else its HTTP head comes first */
    struct wso_pages *pages; /* shared */
    uint64_t read_ahead;     /* bytes: the most that the inbox may hold */
};

/* WSO_ENOMEM; *wire is then NULL. One share. */
int wso_wire_new(const struct wso_wire_options *options, struct wso_wire **wire);
struct wso_wire *wso_wire_share(struct wso_wire *wire);
void wso_wire_release(struct wso_wire *wire);

/* Wait until nobody is at the wire. Not with the GIL, nor with a lock of ours. */
void wso_wire_wait(struct wso_wire *wire);

/* What a call of the loop's side found; all of it is of now. */
struct wso_wire_news {
    size_t received; /* bytes put into the caller's buffer */
    bool more;       /* the inbox holds more: call again */
    bool full;       /* the inbox is full: do not wait for the socket to be readable */
    bool end;        /* the peer's stream has ended, and the inbox is empty; said each time */
    bool stopped;    /* the socket has ended or failed: do not wait for it to be readable */
    int read_error;  /* errno that reading failed with, once the inbox is empty; said each time */
    int write_error; /* errno that writing failed with; said each time */
    size_t unsent;   /* bytes of the library's in the outbox */
    bool want_write; /* something waits for the socket to be writable */
};

/* ---- The loop's thread. Each may answer WSO_EBUSY. ---- */

/* Bytes for the library, from the inbox if it holds any, else from the socket (one read(2)). Pings are
 * answered on the way, if the connection is guarded. */
int wso_wire_receive(struct wso_wire *wire, uint8_t *buffer, size_t size,
                     struct wso_wire_news *news);

/* The library does not want bytes now: read the socket into the inbox, answer Pings on the way. */
int wso_wire_fill(struct wso_wire *wire, struct wso_wire_news *news);

/* Put these bytes, of a role's own input before adoption, through the input tracker into the inbox. */
int wso_wire_feed(struct wso_wire *wire, const uint8_t *bytes, size_t size);

/* Send what can be sent and keep a copy of the rest. WSO_ENOMEM: some bytes are lost, abort. */
int wso_wire_send(struct wso_wire *wire, const struct iovec *pieces, int count,
                  struct wso_wire_news *news);

/* The socket is writable: send what waits. */
int wso_wire_flush(struct wso_wire *wire, struct wso_wire_news *news);

/* Look without touching the socket. */
int wso_wire_look(struct wso_wire *wire, struct wso_wire_news *news);

struct wso_wire_settings {
    bool rsv1;             /* permessage-deflate was negotiated */
    uint64_t max_message;  /* bytes; UINT64_MAX: no bound */
    uint64_t max_fragment; /* likewise */
    uint64_t ping_interval; /* ns; WSO_NEVER */
    uint64_t ping_timeout;  /* ns; WSO_NEVER */
    uint64_t max_stall; /* ns; how long a full inbox puts the verdict off */
    bool log;               /* keep notes of our Pings and Pongs for wso_wire_take_notes */
};

/* The library has accepted the handshake: from now on Pings are answered. `now`: the guard's clock.
 * WSO_EUNGUARDABLE: the streams are not at WebSocket frames, or have ended; all goes on untouched. */
int wso_wire_start(struct wso_wire *wire, const struct wso_wire_settings *settings, uint64_t now);

/* Take a start back: from now on the library sees every frame, and the wire is not guarded again. */
int wso_wire_end(struct wso_wire *wire);

/* Other ping settings from now on. */
int wso_wire_set_pings(struct wso_wire *wire, uint64_t interval, uint64_t timeout, uint64_t now);

/* Is the peer dead? Looks for unread bytes first, which are life. */
int wso_wire_confirm_dead(struct wso_wire *wire, uint64_t now, bool *dead);

/* shutdown(2) for writing, once the outbox is empty; the guard writes nothing any more. */
int wso_wire_end_output(struct wso_wire *wire, struct wso_wire_news *news);

/* Nobody uses the descriptor any more when this returns WSO_OK; inbox and outbox are emptied. `close`:
 * tell the peer as close(2) would, also if a forked child has the socket too: FIN, or RST if bytes of
 * the peer are unread. Without it the socket is left as it is. */
int wso_wire_retire(struct wso_wire *wire, bool close);

/* ---- Any thread. Each may answer WSO_EBUSY. ---- */

enum wso_wire_state {
    WSO_WIRE_NEW,     /* not started */
    WSO_WIRE_GUARDED,
    WSO_WIRE_ENDED,   /* the peer sent Close, a wrong frame or its end: the library's work now */
    WSO_WIRE_RETIRED,
};

struct wso_wire_counts {
    enum wso_wire_state state;
    uint64_t answered;       /* Pings answered, by either thread */
    uint64_t pinged;         /* Pings of ours sent */
    uint64_t latency;        /* ns; 0 before the first measurement */
    uint64_t inbox;          /* bytes in it now */
    uint64_t read_ahead;     /* bytes that the guard's thread has read so far */
    uint64_t rescues;        /* stalls in which the guard's thread answered, sent or read something */
    uint64_t longest_rescue; /* ns */
};

int wso_wire_counts(struct wso_wire *wire, struct wso_wire_counts *counts);

/* A Ping or Pong of ours, for the log. */
struct wso_wire_note {
    bool sent;               /* else received */
    enum wso_opcode opcode;
    uint8_t size;
    uint8_t payload[WSO_CONTROL_PAYLOAD];
};

#define WSO_WIRE_NOTES 16

/* The notes since the last call, the oldest first, at most WSO_WIRE_NOTES; *missed: how many older ones
 * were forgotten. */
int wso_wire_take_notes(struct wso_wire *wire, struct wso_wire_note *notes, int *count,
                        uint64_t *missed);

/* A stall in which the guard served this wire is over. Takes no lock. */
void wso_wire_rescued(struct wso_wire *wire, uint64_t duration);

/* ---- The guard's thread; waits for the lock. ---- */

enum wso_wire_did {
    WSO_DID_ANSWER = 1, /* sent a Pong or a Ping */
    WSO_DID_READ = 2,   /* the loop has something to take: bytes, the end, an error */
    WSO_DID_BLOCK = 8,  /* the loop can go on: with sending what the socket did not take, or reading */
    WSO_DID_PROPOSE = 4, /* the peer seems dead: wso_wire_confirm_dead on the loop's thread */
};

struct wso_wire_step {
    unsigned did;
    uint32_t events; /* what to poll for: EPOLLIN, EPOLLOUT; 0: take it out of the poll set */
    uint64_t answered; /* Pings */
    uint64_t pinged;
    uint64_t read;   /* bytes */
    uint64_t next;   /* guard's clock: when to look at the keepalive again; of wso_wire_tick */
};

/* The loop is late: finish what is half sent, read at most 64 KiB into the inbox, answer Pings. */
void wso_wire_step(struct wso_wire *wire, uint64_t now, struct wso_wire_step *step);

/* Send a Ping if it is due; see whether the peer is dead. */
void wso_wire_tick(struct wso_wire *wire, uint64_t now, struct wso_wire_step *step);

/* The time until now was our own silence: it counts against nobody. */
void wso_wire_forgive(struct wso_wire *wire, uint64_t now);

#endif
