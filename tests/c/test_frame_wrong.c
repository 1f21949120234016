/* frame.h: on what a tracker gives up, at which byte, and that it keeps nothing back then. */
#include <string.h>

#include "check.h"
#include "frame.h"
#include "sights.h"

#define KEY "\x37\xfa\x21\x3d"
#define NO_BOUND UINT64_MAX

/* A stream that a strict endpoint fails the connection for, because of the `at`th byte. */
struct wrong {
    size_t at;
    const char *bytes;
    size_t size;
};
#define WRONG(at, text) {at, text, sizeof(text) - 1}

/* Feed to the wrong byte and beyond. */
static void check_wrong(struct wso_tracker fresh, const struct wrong *wrong)
{
    const uint8_t *bytes = (const uint8_t *)wrong->bytes;
    for (int hold = 0; hold < 2; hold++) {
        static struct sights sights;
        sights.fed = sights.passed_size = sights.count = 0;
        struct wso_tracker tracker = fresh;
        tracker.hold = hold;
        sights_feed(&sights, &tracker, bytes, wrong->at - 1);
        CHECK_EQ(tracker.phase, WSO_PHASE_FRAMES);
        size_t controls = sights.count;
        sights_feed(&sights, &tracker, bytes + wrong->at - 1, 1);
        CHECK_EQ(tracker.phase, WSO_PHASE_BROKEN);
        CHECK(!wso_tracker_between_frames(&tracker));
        CHECK_EQ(sights.passed_size, wrong->at);
        /* What looks like a Ping is only bytes now. */
        sights_feed(&sights, &tracker, bytes + wrong->at, wrong->size - wrong->at);
        sights_feed(&sights, &tracker, (const uint8_t *)"\x89\x00\x89\x80" KEY, 8);
        CHECK_EQ(sights.passed_size, wrong->size + 8);
        CHECK_EQ(sights.count, controls);
        CHECK(memcmp(sights.passed, bytes, wrong->size) == 0);

        tracker = fresh;
        tracker.hold = hold;
        CHECK_EQ(sights_check_splits(&tracker, bytes, wrong->size), controls);
    }
}

#define CHECK_WRONGS(fresh, wrongs)                                                                \
    for (size_t i = 0; i < sizeof(wrongs) / sizeof *(wrongs); i++) {                               \
        check_wrong(fresh, &(wrongs)[i]);                                                          \
    }

static struct wso_tracker tracker_of(bool masked)
{
    struct wso_tracker tracker;
    wso_tracker_init(&tracker, masked, false);
    return tracker;
}

static struct wso_tracker limited(bool rsv1, uint64_t max_message, uint64_t max_fragment)
{
    struct wso_tracker tracker = tracker_of(false);
    wso_tracker_limit(&tracker, rsv1, max_message, max_fragment);
    CHECK_EQ(tracker.phase, WSO_PHASE_FRAMES);
    return tracker;
}

TEST(a_server_must_not_mask)
{
    static const struct wrong wrongs[] = {
        WRONG(2, "\x81\x80" KEY),
        WRONG(2, "\x89\x82" KEY "hi"),
        WRONG(5, "\x01\x01x\x80\xfe\x00\x01" KEY "y"),
    };
    CHECK_WRONGS(tracker_of(false), wrongs);
}

TEST(a_client_must_mask)
{
    static const struct wrong wrongs[] = {
        WRONG(2, "\x81\x00"),
        WRONG(2, "\x89\x02hi"),
        WRONG(8, "\x89\x80" KEY "\x82\x7e\x00\x01y"),
    };
    CHECK_WRONGS(tracker_of(true), wrongs);
}

TEST(an_opcode_must_be_known)
{
    static const struct wrong wrongs[] = {
        WRONG(1, "\x83\x00"), WRONG(1, "\x84\x00"), WRONG(1, "\x85\x00"), WRONG(1, "\x86\x00"),
        WRONG(1, "\x87\x00"), WRONG(1, "\x8b\x00"), WRONG(1, "\x8c\x00"), WRONG(1, "\x8d\x00"),
        WRONG(1, "\x8e\x00"), WRONG(1, "\x8f\x00"), WRONG(3, "\x89\x00\x8b\x00"),
    };
    CHECK_WRONGS(tracker_of(false), wrongs);
}

TEST(no_other_reserved_bits_are_allowed)
{
    static const struct wrong wrongs[] = {
        WRONG(1, "\xa1\x00"), WRONG(1, "\x91\x00"), WRONG(1, "\xa9\x00"), WRONG(1, "\x99\x00"),
        WRONG(1, "\xa8\x00"), WRONG(1, "\x92\x00"), WRONG(4, "\x01\x01x\xa0\x00"),
        WRONG(4, "\x01\x01x\x90\x00"),
    };
    CHECK_WRONGS(tracker_of(false), wrongs);
}

TEST(the_first_reserved_bit_is_for_the_first_frame_of_a_message)
{
    static const struct wrong wrongs[] = {
        WRONG(1, "\xc8\x00"),
        WRONG(1, "\xc9\x00"),
        WRONG(1, "\xca\x00"),
        WRONG(4, "\x41\x01x\xc0\x00"),
        WRONG(4, "\x42\x01x\x40\x00"),
        WRONG(6, "\x42\x01x\x89\x00\xc9\x00"),
    };
    CHECK_WRONGS(tracker_of(false), wrongs);
}

TEST(the_first_reserved_bit_must_be_negotiated)
{
    static const struct wrong wrongs[] = {
        WRONG(1, "\xc1\x00"),
        WRONG(1, "\xc2\x00"),
        WRONG(3, "\x81\x00\x41\x00"),
    };
    CHECK_WRONGS(limited(false, NO_BOUND, NO_BOUND), wrongs);
}

TEST(a_control_frame_is_whole_and_short)
{
    static const struct wrong wrongs[] = {
        WRONG(1, "\x08\x00"),
        WRONG(1, "\x09\x00"),
        WRONG(1, "\x0a\x00"),
        WRONG(2, "\x88\x7e\x00\x01x"),
        WRONG(2, "\x89\x7e\x00\x01x"),
        WRONG(2, "\x8a\x7f\0\0\0\0\0\0\0\x01x"),
    };
    CHECK_WRONGS(tracker_of(false), wrongs);
}

TEST(a_length_has_63_bits)
{
    static const struct wrong wrongs[] = {
        WRONG(10, "\x82\x7f\x80\0\0\0\0\0\0\0\x89\0"),
        WRONG(10, "\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff\x89\0"),
    };
    CHECK_WRONGS(tracker_of(false), wrongs);
}

TEST(a_message_begins_continues_and_ends)
{
    static const struct wrong wrongs[] = {
        WRONG(1, "\x80\x00"),
        WRONG(1, "\x00\x01x"),
        WRONG(3, "\x81\x00\x80\x00"),
        WRONG(5, "\x01\x00\x80\x00\x80\x00"),
        WRONG(3, "\x01\x00\x81\x00"),
        WRONG(5, "\x01\x00\x89\x00\x02\x00"),
        WRONG(5, "\x02\x00\x00\x00\x82\x00"),
    };
    CHECK_WRONGS(tracker_of(false), wrongs);
}

TEST(a_message_has_a_bound)
{
    static const struct wrong wrongs[] = {
        WRONG(2, "\x81\x05" "abcde"),
        WRONG(4, "\x81\x7e\x00\x05" "abcde"),
        WRONG(6, "\x01\x02" "ab\x80\x03" "cde"),
        WRONG(9, "\x01\x02" "ab\x00\x01" "c\x80\x02" "de"),
        WRONG(10, "\x01\x02" "ab\x80\x02" "cd\x82\x05" "abcde"),
        /* A control frame has to fit into what the message leaves. */
        WRONG(2, "\x89\x05" "abcde"),
        WRONG(6, "\x01\x02" "ab\x89\x03" "cde"),
        WRONG(10, "\x01\x02" "ab\x8a\x02" "cd\x88\x03" "efg"),
    };
    CHECK_WRONGS(limited(true, 4, NO_BOUND), wrongs);
}

TEST(a_frame_has_a_bound)
{
    static const struct wrong wrongs[] = {
        WRONG(2, "\x81\x03" "abc"),
        WRONG(6, "\x01\x02" "ab\x00\x03" "cde"),
        WRONG(2, "\x89\x03" "abc"),
        WRONG(6, "\x01\x02" "ab\x8a\x03" "cde"),
    };
    CHECK_WRONGS(limited(true, NO_BOUND, 2), wrongs);
}

TEST(a_masked_frame_is_judged_before_its_mask)
{
    static const struct wrong wrongs[] = {
        WRONG(2, "\x81\x85" KEY "abcde"),
        WRONG(4, "\x81\xfe\x00\x05" KEY "abcde"),
        WRONG(2, "\x89\x85" KEY "abcde"),
    };
    struct wso_tracker tracker = tracker_of(true);
    wso_tracker_limit(&tracker, true, 4, NO_BOUND);
    CHECK_WRONGS(tracker, wrongs);
}

/* A stream within its bounds, with two control frames. */
static void check_right(struct wso_tracker tracker, const char *bytes, size_t size)
{
    CHECK_EQ(sights_check_splits(&tracker, (const uint8_t *)bytes, size), 2);
    struct wso_sight sight;
    for (size_t taken = 0; taken < size;) {
        taken += wso_tracker_feed(&tracker, (const uint8_t *)bytes + taken, size - taken, &sight);
    }
    CHECK_EQ(tracker.phase, WSO_PHASE_FRAMES);
    CHECK(wso_tracker_between_frames(&tracker));
}

TEST(what_just_fits_is_right)
{
    static const char message[] = "\x89\x04" "abcd\x81\x04" "abcd\x01\x02" "ab\x8a\x02" "cd\x80\x02"
                                  "cd\x42\x00\x80\x04" "abcd";
    check_right(limited(true, 4, NO_BOUND), message, sizeof message - 1);
    static const char fragment[] = "\x89\x02" "ab\x01\x02" "ab\x00\x02" "cd\x8a\x02" "ab\x80\x02"
                                   "ef";
    check_right(limited(false, NO_BOUND, 2), fragment, sizeof fragment - 1);
    static const char nothing[] = "\x89\x00\x01\x00\x8a\x00\x80\x00";
    check_right(limited(false, 0, 0), nothing, sizeof nothing - 1);
}

/* Feed without bounds, then set these; the phase. */
static enum wso_phase phase_after(const char *bytes, size_t size, bool rsv1, uint64_t max_message,
                                  uint64_t max_fragment)
{
    struct wso_tracker tracker = tracker_of(false);
    static struct sights sights;
    sights.fed = sights.passed_size = sights.count = 0;
    sights_feed(&sights, &tracker, (const uint8_t *)bytes, size);
    CHECK_EQ(tracker.phase, WSO_PHASE_FRAMES);
    wso_tracker_limit(&tracker, rsv1, max_message, max_fragment);
    /* What is wrong stays wrong, and passes. */
    enum wso_phase phase = tracker.phase;
    sights_feed(&sights, &tracker, (const uint8_t *)"y", 1);
    CHECK_EQ(tracker.phase, phase);
    CHECK_EQ(sights.passed_size, size + 1);
    return phase;
}

TEST(limits_that_come_late_hold_for_what_was_before)
{
    /* A message of six bytes in frames of two, the last only half there, with a Ping among them. */
    static const char stream[] = "\xc1\x01x\x01\x02" "ab\x00\x02" "cd\x89\x01p\x80\x02" "e";
    static const enum wso_phase right = WSO_PHASE_FRAMES, wrong = WSO_PHASE_BROKEN;
    size_t size = sizeof stream - 1;
    CHECK_EQ(phase_after(stream, size, true, 6, 2), right);
    CHECK_EQ(phase_after(stream, size, true, NO_BOUND, NO_BOUND), right);
    CHECK_EQ(phase_after(stream, size, false, 6, 2), wrong);
    CHECK_EQ(phase_after(stream, size, true, 5, 2), wrong);
    CHECK_EQ(phase_after(stream, size, true, 6, 1), wrong);
    /* Half a header is judged when the rest of it comes. */
    CHECK_EQ(phase_after("\x81\x7e\x00", 3, false, 'y', 'y'), right);
    /* The Ping counts too. */
    CHECK_EQ(phase_after("\x01\x01x\x89\x02pp\x80\x02z", 10, false, 3, 2), right);
    CHECK_EQ(phase_after("\x01\x01x\x89\x02pp\x80\x01z\x82\x01", 12, false, 2, 2), wrong);
}
