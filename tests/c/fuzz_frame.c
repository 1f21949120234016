/* frame.h under libFuzzer: one stream in many pieces, and the control frames that come out of it.
 *
 * The first bytes of the input choose the tracker, the bounds, where holding begins, and the
 * pieces; the rest is the stream.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "sights.h"

enum { CHOICES = 6 };

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

/* What check.h's macros call; here no main of check.c's is there. */
void check_failed(const char *file, int line, const char *text)
{
    (void)fprintf(stderr, "%s:%d: %s\n", file, line, text);
    abort();
}

void check_equal(const char *file, int line, const char *text, long long left, long long right)
{
    if (left != right) {
        check_failed(file, line, text);
    }
}

/* What the input's first bytes choose. */
struct choices {
    struct wso_tracker fresh; /* without bounds */
    bool rsv1;
    uint64_t max_message;
    uint64_t max_fragment;
    size_t hold_from; /* bytes of the stream */
    unsigned seed;    /* of the sizes of pieces */
    size_t most;      /* and the largest */
    uint8_t part;     /* of 256 */
};

static struct choices choose(const uint8_t *input)
{
    struct choices choices = {
        .rsv1 = input[0] & 4,
        .max_message = input[0] & 8 ? input[1] : UINT64_MAX,
        .max_fragment = input[0] & 16 ? input[2] : UINT64_MAX,
        .hold_from = input[3],
        .seed = input[4],
        .most = 1 + input[4] % 32,
        .part = input[5],
    };
    wso_tracker_init(&choices.fresh, input[0] & 1, input[0] & 2);
    return choices;
}

static void limit(struct wso_tracker *tracker, const struct choices *choices)
{
    wso_tracker_limit(tracker, choices->rsv1, choices->max_message, choices->max_fragment);
}

/* Feed the stream from where it was fed to, up to `size`, in pieces of at most `most`. */
static void feed(struct sights *sights, struct wso_tracker *tracker, const uint8_t *stream,
                 size_t size, const struct choices *choices, size_t most)
{
    unsigned seed = choices->seed;
    while (sights->fed < size) {
        tracker->hold = sights->fed >= choices->hold_from;
        size_t left = size - sights->fed;
        if (!tracker->hold && choices->hold_from < size) {
            left = choices->hold_from - sights->fed;
        }
        seed = seed * 1103515245u + 12345u;
        size_t piece = 1 + (seed >> 16) % most;
        sights_feed(sights, tracker, stream + sights->fed, piece < left ? piece : left);
    }
}

/* Bounds that come late end where those that were there from the beginning do. */
static void check_late_limit(const struct choices *choices, const uint8_t *bytes, size_t size)
{
    struct wso_tracker early = choices->fresh, late = choices->fresh;
    limit(&early, choices);
    for (size_t i = 0; i < size; i++) {
        struct wso_sight sight;
        (void)wso_tracker_feed(&early, bytes + i, 1, &sight);
        (void)wso_tracker_feed(&late, bytes + i, 1, &sight);
    }
    limit(&late, choices);
    CHECK_EQ(early.phase, late.phase);
}

/* The boundary is where feeding byte by byte finds it. */
static void check_boundary(const struct wso_tracker *tracker, const uint8_t *bytes, size_t size)
{
    struct wso_tracker copy = *tracker;
    size_t boundary = wso_tracker_to_boundary(tracker, bytes, size);
    CHECK(memcmp(&copy, tracker, sizeof copy) == 0);
    CHECK(boundary <= size);
    for (size_t i = 0; i < boundary; i++) {
        CHECK(!wso_tracker_between_frames(&copy));
        struct wso_sight sight;
        CHECK_EQ(wso_tracker_feed(&copy, bytes + i, 1, &sight), 1);
    }
    CHECK(boundary == size || wso_tracker_between_frames(&copy));
}

/* Each control frame is well formed: a tracker of the other direction sees it encoded again. */
static void check_frames(const struct sights *sights, bool masked)
{
    for (size_t i = 0; i < sights->count; i++) {
        static const enum wso_opcode opcodes[] = {
            [WSO_SEEN_PING] = WSO_OP_PING,
            [WSO_SEEN_PONG] = WSO_OP_PONG,
            [WSO_SEEN_CLOSE] = WSO_OP_CLOSE,
        };
        const struct sighted *frame = &sights->frames[i];
        uint8_t bytes[WSO_CONTROL_FRAME];
        size_t size = wso_control_encode(bytes, opcodes[frame->seen], frame->payload,
                                         frame->payload_size, masked ? NULL : frame->payload);
        struct wso_tracker tracker;
        wso_tracker_init(&tracker, !masked, false);
        struct wso_sight sight;
        CHECK_EQ(wso_tracker_feed(&tracker, bytes, size, &sight), size);
        CHECK(sight.seen == frame->seen && sight.payload_size == frame->payload_size);
        CHECK(memcmp(sight.payload, frame->payload, frame->payload_size) == 0);
        CHECK(frame->seen != WSO_SEEN_CLOSE || i + 1 == sights->count);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static struct sights whole, pieces;
    whole.fed = whole.passed_size = whole.count = 0;
    pieces.fed = pieces.passed_size = pieces.count = 0;
    if (size <= CHOICES || size > SIGHTS_BYTES) {
        return 0;
    }
    struct choices choices = choose(input);
    const uint8_t *stream = input + CHOICES;
    size -= CHOICES;
    size_t part = size * choices.part / 256;
    check_late_limit(&choices, stream, part);

    limit(&choices.fresh, &choices);
    struct wso_tracker left = choices.fresh, right = choices.fresh;
    feed(&whole, &left, stream, size, &choices, SIZE_MAX);
    feed(&pieces, &right, stream, part, &choices, choices.most);
    check_boundary(&right, stream + part, size - part);
    feed(&pieces, &right, stream, size, &choices, choices.most);
    CHECK_EQ(left.phase, right.phase);
    sights_end(&whole, &left);
    sights_end(&pieces, &right);
    CHECK(sights_same(&whole, &pieces) && memcmp(whole.passed, stream, size) == 0);
    check_frames(&whole, choices.fresh.masked);
    return 0;
}
