/* A tracker of one direction of a WebSocket connection (RFC 6455): bytes in, what they are out.
 *
 * It finds the boundaries of frames and the control frames, in whatever pieces the bytes come, and
 * judges nobody: on the first thing that a strict endpoint would fail the connection for, it says
 * no more than "bytes" for ever (broken), so that the library sees it all and does the judging.
 *
 * A zeroed struct, no allocation, no I/O. Not thread-safe: the wire's lock guards its trackers.
 */
#ifndef WSO_FRAME_H
#define WSO_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum wso_role { WSO_SERVER, WSO_CLIENT };

enum wso_opcode {
    WSO_OP_CONTINUATION = 0,
    WSO_OP_TEXT = 1,
    WSO_OP_BINARY = 2,
    WSO_OP_CLOSE = 8,
    WSO_OP_PING = 9,
    WSO_OP_PONG = 10,
};

/* The longest payload of a control frame (5.5), and such a frame with its header and mask. */
#define WSO_CONTROL_PAYLOAD 125
#define WSO_CONTROL_FRAME (2 + 4 + WSO_CONTROL_PAYLOAD)

enum wso_phase {
    WSO_PHASE_HEAD,   /* the HTTP head, up to and with its empty line */
    WSO_PHASE_FRAMES,
    WSO_PHASE_CLOSED, /* a Close frame has passed: what follows is not looked at */
    WSO_PHASE_BROKEN, /* not WebSocket, or wrong: likewise */
};

struct wso_tracker {
    uint64_t left;         /* bytes of the current frame's payload that are still to come */
    uint64_t max_message;  /* bytes of a message's payloads on the wire; UINT64_MAX: no bound */
    uint64_t max_fragment; /* bytes of one frame's payload; likewise */
    uint64_t message_size; /* of the current message's frames so far */
    uint64_t largest_message;  /* what the bounds would have had to allow so far */
    uint64_t largest_fragment; /* likewise */
    enum wso_phase phase;
    bool masked;     /* the frames of this direction must be masked (5.1) */
    bool rsv1;       /* RSV1 is allowed, on a message's first frame (RFC 7692, section 6) */
    bool rsv1_seen;  /* and it was there once */
    bool in_message; /* a fragmented message has begun */
    bool hold;       /* hold control frames back until they are whole */
    bool held;       /* the current control frame is held back */
    uint8_t matched; /* bytes of the head's end seen so far */
    uint8_t frame_size; /* bytes in `frame`; 0 between frames and in a data frame's payload */
    uint8_t frame[WSO_CONTROL_FRAME]; /* the current frame so far; of a data frame, its header */
    uint8_t payload[WSO_CONTROL_PAYLOAD]; /* of the last whole control frame, unmasked */
};

enum wso_seen {
    WSO_SEEN_BYTES, /* to pass on; none of them if they are held */
    WSO_SEEN_PING,  /* a whole control frame ends here */
    WSO_SEEN_PONG,
    WSO_SEEN_CLOSE,
};

struct wso_sight {
    enum wso_seen seen;
    /* To pass on. In the input, or in the tracker until it is fed again. If `held`, this is the
     * whole control frame, of which nothing was passed before, and its owner may keep it back. */
    const uint8_t *bytes;
    size_t size;
    bool held;
    /* Of a control frame, unmasked; in the tracker until it is fed again. */
    const uint8_t *payload;
    size_t payload_size;
};

/* `masked`: this direction's sender is the client. `head`: it begins with an HTTP head. There are
 * no bounds, and RSV1 is allowed, until wso_tracker_limit. */
void wso_tracker_init(struct wso_tracker *tracker, bool masked, bool head);

/* What the handshake has settled, once it is known; at a time when no frame is held. If the frames
 * so far did not keep to it, the tracker is broken. */
void wso_tracker_limit(struct wso_tracker *tracker, bool rsv1, uint64_t max_message,
                       uint64_t max_fragment);

/* Take at least one of the `size` > 0 bytes and say what was seen; returns how many were taken.
 * Data frames in a row are one sight; the head, and each control frame, have sights of their own. */
size_t wso_tracker_feed(struct wso_tracker *tracker, const uint8_t *bytes, size_t size,
                        struct wso_sight *sight);

/* The stream ends: what is held back is to be passed on, as bytes. */
void wso_tracker_end(struct wso_tracker *tracker, struct wso_sight *sight);

/* Nothing of a frame is on its way: a control frame may go in between here (5.4). Also after
 * Close. */
bool wso_tracker_between_frames(const struct wso_tracker *tracker);

/* How many of these bytes end the current frame; `size` if it does not end in them. The tracker
 * stays as it is. */
size_t wso_tracker_to_boundary(const struct wso_tracker *tracker, const uint8_t *bytes,
                               size_t size);

/* Write a control frame and return its size. `size`: at most WSO_CONTROL_PAYLOAD. `mask`: four
 * bytes; NULL for a server, which never masks (5.1). */
size_t wso_control_encode(uint8_t frame[WSO_CONTROL_FRAME], enum wso_opcode opcode,
                          const uint8_t *payload, size_t size, const uint8_t *mask);

#endif
