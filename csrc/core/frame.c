/* The tracker and the encoder: see frame.h. Section numbers are those of RFC 6455.
 *
 * A header is collected byte by byte, and each byte that can be wrong is judged as soon as it is
 * there: nothing wrong is ever held back for the sake of what comes next. Of a data frame's payload
 * only the length matters. A control frame is collected whole.
 */
#include "frame.h"

#include <string.h>

/* The first two bytes of a frame (5.2). */
enum {
    FIN = 0x80,
    RSV1 = 0x40,
    RSV2_RSV3 = 0x30,
    OPCODE = 0x0f,
    CONTROL = 0x08, /* of the opcodes */
    MASK = 0x80,
    LENGTH = 0x7f,
    LENGTH_16 = 126, /* the length follows in two bytes */
    LENGTH_64 = 127, /* in eight */
};

enum { FIRST_TWO = 2, MASK_SIZE = 4 };

/* Where the length ends, by the first two bytes. */
static size_t length_end(const uint8_t *header)
{
    switch (header[1] & LENGTH) {
    case LENGTH_16:
        return FIRST_TWO + 2;
    case LENGTH_64:
        return FIRST_TWO + 8;
    default:
        return FIRST_TWO;
    }
}

static size_t header_end(const uint8_t *header)
{
    return length_end(header) + (header[1] & MASK ? MASK_SIZE : 0);
}

static uint64_t payload_length(const uint8_t *header)
{
    size_t end = length_end(header);
    uint64_t length = end == FIRST_TWO ? header[1] & LENGTH : 0;
    for (size_t i = FIRST_TWO; i < end; i++) {
        length = length << 8 | header[i];
    }
    return length;
}

static bool header_is_whole(const struct wso_tracker *tracker)
{
    return tracker->frame_size >= FIRST_TWO && tracker->frame_size >= header_end(tracker->frame);
}

static bool first_byte_is_right(struct wso_tracker *tracker)
{
    uint8_t first = tracker->frame[0];
    if (first & RSV2_RSV3) {
        return false;
    }
    bool rsv1 = first & RSV1;
    switch (first & OPCODE) {
    case WSO_OP_TEXT:
    case WSO_OP_BINARY:
        tracker->rsv1_seen |= rsv1;
        return !tracker->in_message && (!rsv1 || tracker->rsv1);
    case WSO_OP_CONTINUATION:
        return tracker->in_message && !rsv1;
    case WSO_OP_CLOSE:
    case WSO_OP_PING:
    case WSO_OP_PONG:
        return first & FIN && !rsv1;
    default:
        return false;
    }
}

static bool second_byte_is_right(const struct wso_tracker *tracker)
{
    bool masked = tracker->frame[1] & MASK;
    bool control = tracker->frame[0] & CONTROL;
    return masked == tracker->masked &&
           !(control && (tracker->frame[1] & LENGTH) > WSO_CONTROL_PAYLOAD);
}

/* A control frame within a message has to fit into what the message leaves: the library has one
 * bound for all frames. The sum cannot overflow, since all of message_size was fed. */
static bool length_is_right(struct wso_tracker *tracker)
{
    uint64_t length = payload_length(tracker->frame);
    if (length > INT64_MAX) {
        return false;
    }
    uint64_t message = tracker->message_size + length;
    if (length > tracker->largest_fragment) {
        tracker->largest_fragment = length;
    }
    if (message > tracker->largest_message) {
        tracker->largest_message = message;
    }
    return length <= tracker->max_fragment && message <= tracker->max_message;
}

/* Judge the last byte of the header so far. */
static bool header_is_right(struct wso_tracker *tracker)
{
    if (tracker->frame_size == 1) {
        return first_byte_is_right(tracker);
    }
    if (tracker->frame_size == FIRST_TWO && !second_byte_is_right(tracker)) {
        return false;
    }
    return tracker->frame_size != length_end(tracker->frame) || length_is_right(tracker);
}

/* Take what there is of the header, and `left` from it once it is whole. */
static size_t take_header(struct wso_tracker *tracker, const uint8_t *bytes, size_t size)
{
    size_t taken = 0;
    while (taken < size && !header_is_whole(tracker)) {
        tracker->frame[tracker->frame_size++] = bytes[taken++];
        if (!header_is_right(tracker)) {
            tracker->phase = WSO_PHASE_BROKEN;
            return taken;
        }
        if (header_is_whole(tracker)) {
            tracker->left = payload_length(tracker->frame);
        }
    }
    return taken;
}

/* The part of the payload that is in `size` bytes. */
static size_t take_payload(struct wso_tracker *tracker, size_t size)
{
    size_t piece = tracker->left < size ? (size_t)tracker->left : size;
    tracker->left -= piece;
    return piece;
}

static size_t feed_head(struct wso_tracker *tracker, const uint8_t *bytes, size_t size)
{
    static const char end[] = "\r\n\r\n";
    for (size_t i = 0; i < size; i++) {
        bool matches = bytes[i] == end[tracker->matched];
        tracker->matched = matches ? tracker->matched + 1 : bytes[i] == end[0];
        if (tracker->matched == strlen(end)) {
            tracker->phase = WSO_PHASE_FRAMES;
            return i + 1;
        }
    }
    return size;
}

/* At most to the end of a data frame; everything if there are no frames any more. */
static size_t feed_data(struct wso_tracker *tracker, const uint8_t *bytes, size_t size)
{
    size_t taken = 0;
    if (tracker->phase == WSO_PHASE_FRAMES && tracker->left == 0) {
        taken = take_header(tracker, bytes, size);
        if (tracker->phase == WSO_PHASE_FRAMES && header_is_whole(tracker)) {
            tracker->in_message = !(tracker->frame[0] & FIN);
            tracker->message_size =
                tracker->in_message ? tracker->message_size + tracker->left : 0;
            tracker->frame_size = 0;
        }
    }
    if (tracker->phase != WSO_PHASE_FRAMES) {
        return size;
    }
    return taken + take_payload(tracker, size - taken);
}

/* The control frame is whole: say so. */
static void see_control(struct wso_tracker *tracker, struct wso_sight *sight)
{
    const uint8_t *frame = tracker->frame;
    size_t begin = header_end(frame);
    sight->payload = tracker->payload;
    sight->payload_size = tracker->frame_size - begin;
    for (size_t i = 0; i < sight->payload_size; i++) {
        uint8_t mask = tracker->masked ? frame[begin - MASK_SIZE + i % MASK_SIZE] : 0;
        tracker->payload[i] = frame[begin + i] ^ mask;
    }
    switch (frame[0] & OPCODE) {
    case WSO_OP_PING:
        sight->seen = WSO_SEEN_PING;
        break;
    case WSO_OP_PONG:
        sight->seen = WSO_SEEN_PONG;
        break;
    default:
        sight->seen = WSO_SEEN_CLOSE;
        tracker->phase = WSO_PHASE_CLOSED;
    }
    sight->held = tracker->held;
}

/* At most to the end of a control frame. */
static size_t feed_control(struct wso_tracker *tracker, const uint8_t *bytes, size_t size,
                           struct wso_sight *sight)
{
    if (tracker->frame_size == 0) {
        tracker->held = tracker->hold;
    }
    size_t taken = take_header(tracker, bytes, size);
    size_t piece = take_payload(tracker, size - taken);
    memcpy(tracker->frame + tracker->frame_size, bytes + taken, piece);
    tracker->frame_size = (uint8_t)(tracker->frame_size + piece);
    taken += piece;

    bool broken = tracker->phase == WSO_PHASE_BROKEN;
    bool whole = !broken && header_is_whole(tracker) && tracker->left == 0;
    sight->size = taken;
    if (tracker->held) {
        sight->bytes = tracker->frame;
        sight->size = broken || whole ? tracker->frame_size : 0;
    }
    if (whole) {
        see_control(tracker, sight);
    }
    if (broken || whole) {
        tracker->held = false;
        tracker->frame_size = 0;
    }
    return taken;
}

/* The next byte belongs to a control frame, by its opcode. */
static bool at_control(const struct wso_tracker *tracker, uint8_t next)
{
    if (tracker->phase != WSO_PHASE_FRAMES) {
        return false;
    }
    if (tracker->frame_size > 0) {
        return tracker->frame[0] & CONTROL;
    }
    return tracker->left == 0 && next & CONTROL;
}

/* At most to the end of the head or of a frame. */
static size_t feed_one(struct wso_tracker *tracker, const uint8_t *bytes, size_t size,
                       struct wso_sight *sight)
{
    *sight = (struct wso_sight){.bytes = bytes};
    if (at_control(tracker, bytes[0])) {
        return feed_control(tracker, bytes, size, sight);
    }
    bool head = tracker->phase == WSO_PHASE_HEAD;
    sight->size = head ? feed_head(tracker, bytes, size) : feed_data(tracker, bytes, size);
    return sight->size;
}

void wso_tracker_init(struct wso_tracker *tracker, bool masked, bool head)
{
    *tracker = (struct wso_tracker){
        .max_message = UINT64_MAX,
        .max_fragment = UINT64_MAX,
        .phase = head ? WSO_PHASE_HEAD : WSO_PHASE_FRAMES,
        .masked = masked,
        .rsv1 = true,
    };
}

void wso_tracker_limit(struct wso_tracker *tracker, bool rsv1, uint64_t max_message,
                       uint64_t max_fragment)
{
    tracker->rsv1 = rsv1;
    tracker->max_message = max_message;
    tracker->max_fragment = max_fragment;
    if ((tracker->rsv1_seen && !rsv1) || tracker->largest_message > max_message ||
        tracker->largest_fragment > max_fragment) {
        tracker->phase = WSO_PHASE_BROKEN;
    }
}

size_t wso_tracker_feed(struct wso_tracker *tracker, const uint8_t *bytes, size_t size,
                        struct wso_sight *sight)
{
    bool data = tracker->phase != WSO_PHASE_HEAD && !at_control(tracker, bytes[0]);
    size_t taken = feed_one(tracker, bytes, size, sight);
    while (data && taken < size && !at_control(tracker, bytes[taken])) {
        taken += feed_data(tracker, bytes + taken, size - taken);
        sight->size = taken;
    }
    return taken;
}

void wso_tracker_end(struct wso_tracker *tracker, struct wso_sight *sight)
{
    *sight = (struct wso_sight){
        .bytes = tracker->frame,
        .size = tracker->held ? tracker->frame_size : 0,
    };
    tracker->held = false;
}

bool wso_tracker_between_frames(const struct wso_tracker *tracker)
{
    return tracker->phase == WSO_PHASE_CLOSED ||
           (tracker->phase == WSO_PHASE_FRAMES && tracker->frame_size == 0 && tracker->left == 0);
}

size_t wso_tracker_to_boundary(const struct wso_tracker *tracker, const uint8_t *bytes, size_t size)
{
    struct wso_tracker copy = *tracker;
    struct wso_sight sight;
    size_t taken = 0;
    while (taken < size && !wso_tracker_between_frames(&copy)) {
        taken += feed_one(&copy, bytes + taken, size - taken, &sight);
    }
    return taken;
}

size_t wso_control_encode(uint8_t frame[WSO_CONTROL_FRAME], enum wso_opcode opcode,
                          const uint8_t *payload, size_t size, const uint8_t *mask)
{
    frame[0] = (uint8_t)(FIN | opcode);
    frame[1] = (uint8_t)((mask == NULL ? 0 : MASK) | size);
    if (mask != NULL) {
        memcpy(frame + FIRST_TWO, mask, MASK_SIZE);
    }
    size_t begin = header_end(frame);
    for (size_t i = 0; i < size; i++) {
        frame[begin + i] = mask == NULL ? payload[i] : payload[i] ^ mask[i % MASK_SIZE];
    }
    return begin + size;
}
