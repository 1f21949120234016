/* frame.h: what a tracker sees of right and wrong streams in whatever pieces, and the encoder. */
#include "frame.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "sights.h"

/* A string's bytes and how many they are. */
#define BYTES(text) (const uint8_t *)(text), sizeof(text) - 1

#define KEY "\x37\xfa\x21\x3d"
/* The same mask over "Hello" (5.7). */
#define HELLO KEY "\x7f\x9f\x4d\x51\x58"
#define HEAD "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

enum side { FROM_SERVER, FROM_CLIENT };

static struct wso_tracker tracker_of(enum side side, bool hold)
{
    struct wso_tracker tracker;
    wso_tracker_init(&tracker, side == FROM_CLIENT, false);
    tracker.hold = hold;
    return tracker;
}

static void check_frame(const struct sights *sights, size_t i, enum wso_seen seen, size_t at,
                        const uint8_t *payload, size_t size)
{
    CHECK(i < sights->count);
    CHECK_EQ(sights->frames[i].seen, seen);
    CHECK_EQ(sights->frames[i].at, at);
    CHECK_EQ(sights->frames[i].payload_size, size);
    CHECK(memcmp(sights->frames[i].payload, payload, size) == 0);
}

TEST(a_head_ends_with_its_first_empty_line)
{
    static const char *const heads[] = {
        HEAD, "\r\n\r\n", "a\n\n\r\n\r\n", "a\r\r\n\r\n", "a\r\n\r\r\n\r\n", "a\r\n\n\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        struct wso_tracker tracker;
        wso_tracker_init(&tracker, false, true);
        size_t size = strlen(heads[i]);
        for (size_t byte = 0; byte < size; byte++) {
            CHECK_EQ(tracker.phase, WSO_PHASE_HEAD);
            CHECK(!wso_tracker_between_frames(&tracker));
            struct wso_sight sight;
            const uint8_t *at = (const uint8_t *)heads[i] + byte;
            CHECK_EQ(wso_tracker_feed(&tracker, at, 1, &sight), 1);
            CHECK(sight.seen == WSO_SEEN_BYTES && sight.bytes == at && sight.size == 1);
        }
        CHECK_EQ(tracker.phase, WSO_PHASE_FRAMES);
        CHECK(wso_tracker_between_frames(&tracker));
    }
}

TEST(a_head_is_a_sight_of_its_own)
{
    struct wso_tracker tracker;
    wso_tracker_init(&tracker, false, true);
    struct wso_sight sight;
    CHECK_EQ(wso_tracker_feed(&tracker, BYTES(HEAD "\x81\x01x"), &sight), sizeof HEAD - 1);
    CHECK_EQ(sight.size, sizeof HEAD - 1);
}

TEST(the_examples_of_the_rfc)
{
    struct sights sights = {0};
    struct wso_tracker client = tracker_of(FROM_CLIENT, true);
    sights_feed(&sights, &client, BYTES("\x81\x85" HELLO "\x89\x85" HELLO "\x8a\x85" HELLO));
    CHECK_EQ(sights.count, 2);
    check_frame(&sights, 0, WSO_SEEN_PING, 22, BYTES("Hello"));
    check_frame(&sights, 1, WSO_SEEN_PONG, 33, BYTES("Hello"));

    sights = (struct sights){0};
    struct wso_tracker server = tracker_of(FROM_SERVER, true);
    sights_feed(&sights, &server, BYTES("\x01\x03Hel\x89\x05Hello\x80\x02lo\x88\x02\x03\xe8"));
    CHECK_EQ(sights.count, 2);
    check_frame(&sights, 0, WSO_SEEN_PING, 12, BYTES("Hello"));
    check_frame(&sights, 1, WSO_SEEN_CLOSE, 20, BYTES("\x03\xe8"));
}

TEST(data_frames_in_a_row_are_one_sight)
{
    static const char stream[] = "\x81\x02ok\x02\x7e\x00\x01x\x80\x00\x82\x7f\0\0\0\0\0\0\0\x01y"
                                 "\x89\x00\x81";
    struct wso_tracker tracker = tracker_of(FROM_SERVER, true);
    struct wso_sight sight;
    size_t data = sizeof stream - 1 - 3;
    CHECK_EQ(wso_tracker_feed(&tracker, BYTES(stream), &sight), data);
    CHECK(sight.seen == WSO_SEEN_BYTES && sight.size == data);
    CHECK(sight.bytes == (const uint8_t *)stream);
    CHECK(wso_tracker_between_frames(&tracker));
    CHECK_EQ(wso_tracker_feed(&tracker, BYTES("\x89\x00\x81"), &sight), 2);
    CHECK_EQ(sight.seen, WSO_SEEN_PING);
}

TEST(of_a_payload_only_the_length_matters)
{
    struct wso_tracker tracker = tracker_of(FROM_SERVER, true);
    struct wso_sight sight;
    CHECK_EQ(wso_tracker_feed(&tracker, BYTES("\x82\x7f\0\0\x01\0\0\0\0\0"), &sight), 10);
    /* There is one byte behind this pointer: any other that was looked at would be outside. */
    uint8_t *payload = calloc(1, 1);
    CHECK(payload != NULL);
    size_t rest = ((size_t)1 << 40) - 1;
    CHECK_EQ(wso_tracker_feed(&tracker, payload, rest, &sight), rest);
    CHECK(sight.bytes == payload && sight.size == rest);
    CHECK(!wso_tracker_between_frames(&tracker));
    CHECK_EQ(wso_tracker_feed(&tracker, payload, 1, &sight), 1);
    CHECK(wso_tracker_between_frames(&tracker));
    free(payload);
}

TEST(a_frame_that_is_not_held_passes_at_once)
{
    struct wso_tracker tracker = tracker_of(FROM_SERVER, false);
    static const uint8_t ping[] = "\x89\x02hi";
    struct wso_sight sight;
    for (size_t i = 0; i < 4; i++) {
        CHECK_EQ(wso_tracker_feed(&tracker, ping + i, 1, &sight), 1);
        CHECK(sight.bytes == ping + i && sight.size == 1 && !sight.held);
        CHECK_EQ(sight.seen, i == 3 ? WSO_SEEN_PING : WSO_SEEN_BYTES);
    }
    CHECK(sight.payload_size == 2 && memcmp(sight.payload, "hi", 2) == 0);
}

TEST(a_held_frame_comes_whole)
{
    struct wso_tracker tracker = tracker_of(FROM_SERVER, true);
    static const uint8_t ping[] = "\x89\x02hi";
    struct wso_sight sight;
    for (size_t i = 0; i < 3; i++) {
        CHECK_EQ(wso_tracker_feed(&tracker, ping + i, 1, &sight), 1);
        CHECK(sight.seen == WSO_SEEN_BYTES && sight.size == 0);
    }
    CHECK_EQ(wso_tracker_feed(&tracker, ping + 3, 1, &sight), 1);
    CHECK(sight.seen == WSO_SEEN_PING && sight.held && sight.size == 4);
    CHECK(memcmp(sight.bytes, ping, 4) == 0);
}

TEST(the_first_byte_decides_whether_a_frame_is_held)
{
    for (int hold = 0; hold < 2; hold++) {
        struct sights sights = {0};
        struct wso_tracker tracker = tracker_of(FROM_SERVER, hold);
        sights_feed(&sights, &tracker, BYTES("\x89"));
        tracker.hold = !hold;
        sights_feed(&sights, &tracker, BYTES("\x02hi\x8a\x00"));
        CHECK_EQ(sights.count, 2);
        CHECK_EQ(sights.frames[0].held, hold);
        CHECK_EQ(sights.frames[1].held, !hold);
    }
}

TEST(what_is_held_at_the_end_is_passed)
{
    for (size_t size = 1; size <= 7; size++) {
        struct sights sights = {0};
        struct wso_tracker tracker = tracker_of(FROM_CLIENT, true);
        sights_feed(&sights, &tracker, (const uint8_t *)"\x89\x82" KEY "hi", size);
        CHECK_EQ(sights.passed_size, 0);
        sights_end(&sights, &tracker);
    }
    /* Of a data frame nothing is held, nor of a control frame that has passed. */
    struct sights sights = {0};
    struct wso_tracker tracker = tracker_of(FROM_SERVER, true);
    sights_feed(&sights, &tracker, BYTES("\x89\x00\x81"));
    sights_end(&sights, &tracker);
    CHECK_EQ(sights.count, 1);
}

TEST(after_a_close_frame_all_is_bytes)
{
    struct sights sights = {0};
    struct wso_tracker tracker = tracker_of(FROM_SERVER, true);
    sights_feed(&sights, &tracker, BYTES("\x88\x00\x89\x00\xff\xff"));
    CHECK_EQ(sights.count, 1);
    CHECK_EQ(tracker.phase, WSO_PHASE_CLOSED);
    CHECK(wso_tracker_between_frames(&tracker));
    CHECK_EQ(sights.passed_size, 6);
}

TEST(every_form_of_a_length_is_read)
{
    static const struct {
        const char *header;
        size_t header_size;
        uint64_t length;
    } forms[] = {
        {"\x82\x00", 2, 0},
        {"\x82\x01", 2, 1},
        {"\x82\x7d", 2, 125},
        {"\x82\x7e\x00\x00", 4, 0}, /* longer than it must be, which is not judged here */
        {"\x82\x7e\x00\x7e", 4, 126},
        {"\x82\x7e\xab\xcd", 4, 0xabcd},
        {"\x82\x7f\0\0\0\0\0\0\0\x05", 10, 5},
        {"\x82\x7f\0\0\0\0\0\x01\0\0", 10, 0x10000},
        {"\x82\x7f\x01\x23\x45\x67\x89\xab\xcd\xef", 10, 0x0123456789abcdef},
        {"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", 10, INT64_MAX},
    };
    for (size_t i = 0; i < 2 * (sizeof forms / sizeof *forms); i++) {
        struct wso_tracker tracker = tracker_of(i % 2 == 0 ? FROM_SERVER : FROM_CLIENT, true);
        struct sights sights = {0};
        uint8_t header[14] = {0};
        size_t size = forms[i / 2].header_size;
        memcpy(header, forms[i / 2].header, size);
        if (tracker.masked) {
            header[1] |= 0x80;
            size += 4;
        }
        sights_feed(&sights, &tracker, header, size);
        CHECK_EQ(tracker.left, forms[i / 2].length);
        CHECK_EQ(wso_tracker_between_frames(&tracker), forms[i / 2].length == 0);
    }
}

/* Streams of all that may come, from a server and from a client. */
static const struct {
    enum side side;
    const char *bytes;
    size_t size;
    size_t controls;
} rights[] = {
#define RIGHT(controls, text) text, sizeof(text) - 1, controls
    {FROM_SERVER, RIGHT(3, "\x89\x00\x81\x02ok\x8a\x03" "abc\x02\x00\x89\x01x\x00\x01y\x80\x00"
                          "\x82\x00")},
    {FROM_SERVER, RIGHT(2, "\xc1\x7e\x00\x01z\x8a\x01q\x42\x7f\0\0\0\0\0\0\0\x02zz\x80\x00"
                          "\x88\x02\x03\xe8\x89\x00")},
    {FROM_CLIENT, RIGHT(2, "\x89\x82" KEY "hi\x01\x81" KEY "x\x8a\x80" KEY "\x80\x81" KEY "x")},
    {FROM_CLIENT, RIGHT(2, "\x82\xfe\x00\x01" KEY "x\x89\x85" HELLO "\x88\x80" KEY "\x89\x80" KEY)},
#undef RIGHT
};

TEST(every_split_of_a_stream_shows_the_same)
{
    for (size_t i = 0; i < 2 * (sizeof rights / sizeof *rights); i++) {
        struct wso_tracker tracker = tracker_of(rights[i / 2].side, i % 2);
        size_t size = rights[i / 2].size;
        CHECK_EQ(sights_check_splits(&tracker, (const uint8_t *)rights[i / 2].bytes, size),
                 rights[i / 2].controls);
    }
    struct wso_tracker tracker;
    wso_tracker_init(&tracker, false, true);
    CHECK_EQ(sights_check_splits(&tracker, BYTES("a\r\n\r\r\n\r\n\x89\x01x\x81\x01y\x8a\x00")), 2);
}

TEST(the_boundary_is_the_next_end_of_a_frame_or_head)
{
    static const uint8_t stream[] =
        "a\r\n\r\n\x89\x02hi\x81\x7e\x00\x02ok\x01\x00\x88\x01x\x89\x00";
    static const size_t ends[] = {5, 9, 15, 17, 20};
    size_t size = sizeof stream - 1;
    for (size_t from = 0; from < size; from++) {
        struct wso_tracker tracker;
        wso_tracker_init(&tracker, false, true);
        struct sights sights = {0};
        sights_feed(&sights, &tracker, stream, from);
        size_t expected = from; /* after the Close frame there is always a boundary */
        for (size_t i = 5; i-- > 0;) {
            expected = ends[i] >= from ? ends[i] : expected;
        }
        if (from == 0) {
            CHECK_EQ(expected, 5);
        }
        struct wso_tracker before = tracker;
        CHECK_EQ(wso_tracker_to_boundary(&tracker, stream + from, size - from), expected - from);
        CHECK_EQ(wso_tracker_to_boundary(&tracker, stream + from, 1), expected > from);
        CHECK(memcmp(&before, &tracker, sizeof before) == 0);
        CHECK_EQ(wso_tracker_between_frames(&tracker), expected == from);
    }
}

TEST(a_stream_that_does_not_end_in_its_frame_has_no_boundary)
{
    struct wso_tracker tracker = tracker_of(FROM_SERVER, false);
    struct sights sights = {0};
    sights_feed(&sights, &tracker, BYTES("\x81"));
    CHECK_EQ(wso_tracker_to_boundary(&tracker, BYTES("\x05" "abcd")), 5);
    CHECK_EQ(wso_tracker_to_boundary(&tracker, BYTES("\x05" "abcdef")), 6);
    CHECK_EQ(wso_tracker_to_boundary(&tracker, BYTES("\xff\x89\x00")), 3); /* broken */
    CHECK_EQ(wso_tracker_to_boundary(&tracker, NULL, 0), 0);
    tracker = tracker_of(FROM_SERVER, true);
    sights_feed(&sights, &tracker, BYTES("\x89"));
    CHECK_EQ(wso_tracker_to_boundary(&tracker, BYTES("\xff\x89\x00")), 3);
}

TEST(a_control_frame_is_encoded_as_in_the_rfc)
{
    static const struct {
        enum wso_opcode opcode;
        const char *mask;
        const char *frame;
        size_t size;
    } examples[] = {
        {WSO_OP_PING, NULL, "\x89\x05Hello", 7},
        {WSO_OP_PONG, KEY, "\x8a\x85" HELLO, 11},
        {WSO_OP_CLOSE, NULL, "\x88\x05Hello", 7},
    };
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        uint8_t frame[WSO_CONTROL_FRAME];
        CHECK_EQ(wso_control_encode(frame, examples[i].opcode, BYTES("Hello"),
                                    (const uint8_t *)examples[i].mask),
                 examples[i].size);
        CHECK(memcmp(frame, examples[i].frame, examples[i].size) == 0);
    }
}

TEST(what_is_encoded_is_seen)
{
    uint8_t payload[WSO_CONTROL_PAYLOAD];
    for (size_t i = 0; i < sizeof payload; i++) {
        payload[i] = (uint8_t)(i * 7 + 1);
    }
    for (size_t size = 0; size <= sizeof payload; size++) {
        for (int masked = 0; masked < 2; masked++) {
            uint8_t frame[WSO_CONTROL_FRAME];
            const uint8_t *mask = masked ? (const uint8_t *)KEY : NULL;
            size_t whole = wso_control_encode(frame, WSO_OP_PING, payload, size, mask);
            struct wso_tracker tracker = tracker_of(masked ? FROM_CLIENT : FROM_SERVER, true);
            struct sights sights = {0};
            sights_feed(&sights, &tracker, frame, whole);
            CHECK_EQ(sights.count, 1);
            check_frame(&sights, 0, WSO_SEEN_PING, whole, payload, size);
        }
    }
}
