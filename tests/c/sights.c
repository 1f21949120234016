/* See sights.h. */
#include "sights.h"

#include <string.h>

#include "check.h"

static void pass(struct sights *sights, const struct wso_sight *sight)
{
    CHECK(sight->size <= SIGHTS_BYTES - sights->passed_size);
    memcpy(sights->passed + sights->passed_size, sight->bytes, sight->size);
    sights->passed_size += sight->size;
}

static void add(struct sights *sights, const struct wso_sight *sight)
{
    CHECK(sights->count < SIGHTS_FRAMES);
    struct sighted *frame = &sights->frames[sights->count++];
    *frame = (struct sighted){
        .seen = sight->seen,
        .held = sight->held,
        .at = sights->fed,
        .payload_size = sight->payload_size,
    };
    CHECK(sight->payload_size <= WSO_CONTROL_PAYLOAD);
    memcpy(frame->payload, sight->payload, sight->payload_size);
}

void sights_feed(struct sights *sights, struct wso_tracker *tracker, const uint8_t *bytes,
                 size_t size)
{
    while (size > 0) {
        struct wso_sight sight;
        size_t taken = wso_tracker_feed(tracker, bytes, size, &sight);
        CHECK(taken > 0 && taken <= size);
        sights->fed += taken;
        pass(sights, &sight);
        if (sight.seen == WSO_SEEN_BYTES) {
            CHECK(!sight.held && sight.payload == NULL && sight.payload_size == 0);
        } else {
            CHECK(wso_tracker_between_frames(tracker));
            add(sights, &sight);
        }
        /* Held bytes come late, all others at once. */
        size_t late = tracker->held ? tracker->frame_size : 0;
        CHECK_EQ(sights->passed_size + late, sights->fed);
        bytes += taken;
        size -= taken;
    }
}

void sights_end(struct sights *sights, struct wso_tracker *tracker)
{
    for (int time = 0; time < 2; time++) { /* the second one has nothing to pass */
        struct wso_sight sight;
        wso_tracker_end(tracker, &sight);
        CHECK(sight.seen == WSO_SEEN_BYTES && !sight.held);
        pass(sights, &sight);
        CHECK_EQ(sights->passed_size, sights->fed);
    }
}

static bool same_frame(const struct sighted *left, const struct sighted *right)
{
    return left->seen == right->seen && left->held == right->held && left->at == right->at &&
           left->payload_size == right->payload_size &&
           memcmp(left->payload, right->payload, left->payload_size) == 0;
}

bool sights_same(const struct sights *left, const struct sights *right)
{
    bool same = left->count == right->count && left->passed_size == right->passed_size &&
                memcmp(left->passed, right->passed, left->passed_size) == 0;
    for (size_t i = 0; same && i < left->count; i++) {
        same = same_frame(&left->frames[i], &right->frames[i]);
    }
    return same;
}

/* Feed in pieces that end at these places, the last of which is the stream's end. */
static void feed_pieces(struct sights *sights, struct wso_tracker *tracker, const uint8_t *bytes,
                        const size_t *ends, size_t count)
{
    sights->fed = sights->passed_size = sights->count = 0;
    for (size_t i = 0; i < count; i++) {
        sights_feed(sights, tracker, bytes + sights->fed, ends[i] - sights->fed);
    }
}

static void check_pieces(const struct sights *expected, const struct wso_tracker *end,
                         struct wso_tracker tracker, const uint8_t *bytes, const size_t *ends,
                         size_t count)
{
    static struct sights sights;
    feed_pieces(&sights, &tracker, bytes, ends, count);
    CHECK_EQ(tracker.phase, end->phase);
    CHECK_EQ(wso_tracker_between_frames(&tracker), wso_tracker_between_frames(end));
    sights_end(&sights, &tracker);
    CHECK(sights_same(&sights, expected));
    CHECK(memcmp(sights.passed, bytes, sights.passed_size) == 0);
}

size_t sights_check_splits(const struct wso_tracker *tracker, const uint8_t *bytes, size_t size)
{
    static struct sights whole;
    struct wso_tracker end = *tracker;
    size_t ends[SIGHTS_BYTES] = {size};
    feed_pieces(&whole, &end, bytes, ends, 1);
    struct wso_tracker after = end;
    sights_end(&whole, &after);
    for (size_t first = 0; first <= size; first++) {
        for (size_t second = first; second <= size; second++) {
            ends[0] = first;
            ends[1] = second;
            ends[2] = size;
            check_pieces(&whole, &end, *tracker, bytes, ends, 3);
        }
    }
    for (size_t i = 0; i < size; i++) {
        ends[i] = i + 1;
    }
    check_pieces(&whole, &end, *tracker, bytes, ends, size);
    return whole.count;
}
