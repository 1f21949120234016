/* What the tests of wires share: a wire at one end of a connection, and a strict peer at the other.
 *
 * The peer parses every byte that it gets and fails the test on the first thing that an endpoint may
 * not send (RFC 6455, section 5). All sockets are non-blocking; what one end of a Unix pair has written
 * the other can read at once, so that nothing needs to wait there.
 */
#ifndef SOCKETS_H
#define SOCKETS_H

#include "check.h"
#include "wire.h"

/* The most that a peer keeps of what it gets, and a library of what it receives. */
#define LINK_BYTES ((size_t)8 << 20)

struct link {
    struct wso_wire *wire;
    struct wso_pages *pages;
    enum wso_role role;        /* the wire's */
    int fd;                    /* the wire's end */
    int peer;                  /* the other end; -1 once closed */
    struct wso_wire_news news; /* of the last call below */
    uint8_t *received;         /* what the library got */
    size_t received_size;
    uint8_t *got; /* what the peer got */
    size_t got_from; /* and has parsed */
    size_t got_size;
    uint32_t masks; /* the peer's, when it is a client */
};

struct link_options {
    enum wso_role role;
    bool tcp;              /* else a pair of Unix sockets */
    bool head;             /* leave both HTTP heads to the test */
    int send_buffer;       /* bytes, SO_SNDBUF of the wire's end; 0: the system's default */
    uint64_t read_ahead;   /* 0: 64 KiB */
    struct wso_pages *pages; /* shared; NULL: a pool of 16 MiB */
};

/* A call of the loop's side, again until the guard's thread is not at the wire. */
#define AT_WIRE(link, call)                                                                        \
    do {                                                                                           \
        int status_;                                                                               \
        while ((status_ = (call)) == WSO_EBUSY) {                                                  \
            wso_wire_wait((link)->wire);                                                           \
        }                                                                                          \
        CHECK_EQ(status_, WSO_OK);                                                                 \
    } while (0)

/* Two connected stream sockets. */
void sockets_pair(bool tcp, int pair[2]);

void link_open_with(struct link *link, const struct link_options *options);
void link_open(struct link *link, enum wso_role role);

/* Retire the wire and close both ends. */
void link_close(struct link *link);

/* No bounds, no Pings, nothing logged. */
extern const struct wso_wire_settings link_settings;

/* Guard it from now on; the guard's clock is CLOCK_MONOTONIC. */
void link_start(struct link *link);
void link_start_with(struct link *link, const struct wso_wire_settings *settings);

/* Receive all that there is; returns how many bytes came. They are appended to `received`. */
size_t link_receive(struct link *link);

/* The library received exactly this since the last call. */
void link_check_received(struct link *link, const void *bytes, size_t size);

/* Write, as the library does. */
void link_send(struct link *link, const void *bytes, size_t size);

/* The library's frames, masked with zeroes where they must be. */
void link_send_frame(struct link *link, uint8_t first, const void *payload, size_t size);

struct wso_wire_counts link_counts(struct link *link);

/* A frame as it goes over the wire; `first`: FIN, RSV and opcode. Returns its size. */
size_t frame_make(uint8_t *frame, uint8_t first, const uint8_t *mask, const void *payload,
                  size_t size);

/* A frame of the peer, and of the library, in this link's roles. */
size_t peer_make(struct link *link, uint8_t *frame, uint8_t first, const void *payload, size_t size);
size_t link_make(struct link *link, uint8_t *frame, uint8_t first, const void *payload, size_t size);

/* The peer sends: all of it. */
void peer_send(struct link *link, const void *bytes, size_t size);
void peer_send_frame(struct link *link, uint8_t first, const void *payload, size_t size);
void peer_ping(struct link *link, const char *payload);

/* The peer reads up to `most` bytes; returns how many came. */
size_t peer_read(struct link *link, size_t most);

struct frame {
    uint8_t first;
    uint8_t mask[4];
    size_t size;
    const uint8_t *payload; /* unmasked; until the peer reads again */
};

/* The next whole frame of what the peer has read; false if there is none yet. */
bool peer_next(struct link *link, struct frame *frame);

/* The peer reads all that there is and finds this frame next. */
void peer_expect(struct link *link, uint8_t first, const void *payload, size_t size);
void peer_expect_pong(struct link *link, const char *payload);

/* The peer reads all that there is, which is no frame and no part of one. */
void peer_expect_nothing(struct link *link);

/* The peer's side closes. */
void peer_close(struct link *link);

/* With FIN. */
#define TEXT 0x81
#define BINARY 0x82
#define CLOSE 0x88
#define PING 0x89
#define PONG 0x8a

#endif
