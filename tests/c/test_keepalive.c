/* keepalive.h: what is decided at given times. */
#include <string.h>

#include "check.h"
#include "keepalive.h"

#define S WSO_NS_PER_S

static struct wso_keepalive started(uint64_t interval, uint64_t timeout, uint64_t now)
{
    struct wso_keepalive keepalive;
    memset(&keepalive, 0xff, sizeof keepalive);
    wso_keepalive_init(&keepalive);
    wso_keepalive_set(&keepalive, interval, timeout, now);
    return keepalive;
}

static bool pong(struct wso_keepalive *keepalive, uint32_t payload, uint64_t now, uint64_t *at)
{
    return wso_keepalive_pong(keepalive, (const uint8_t *)&payload, sizeof payload, now, at);
}

TEST(nothing_is_due_before_the_start)
{
    struct wso_keepalive keepalive;
    memset(&keepalive, 0xff, sizeof keepalive);
    wso_keepalive_init(&keepalive);
    uint64_t at;
    CHECK(!wso_keepalive_ping_due(&keepalive, UINT64_MAX));
    CHECK(!wso_keepalive_dead(&keepalive, UINT64_MAX));
    CHECK(wso_keepalive_next(&keepalive) == WSO_NEVER);
    CHECK(!pong(&keepalive, 0, 5, &at));
    CHECK(!keepalive.measured && keepalive.latency == 0);
    wso_keepalive_heard(&keepalive);
    wso_keepalive_forgive(&keepalive, 5);
    CHECK(!wso_keepalive_dead(&keepalive, UINT64_MAX));
}

TEST(a_ping_is_due_an_interval_after_the_start_and_after_the_last_one)
{
    struct wso_keepalive keepalive = started(20 * S, 20 * S, 100 * S);
    CHECK_EQ(wso_keepalive_next(&keepalive), 120 * S);
    CHECK(!wso_keepalive_ping_due(&keepalive, 120 * S - 1));
    CHECK(wso_keepalive_ping_due(&keepalive, 120 * S));
    /* It goes out late, and the next one is an interval later still. */
    wso_keepalive_pinged(&keepalive, 1, 125 * S);
    wso_keepalive_heard(&keepalive);
    CHECK_EQ(wso_keepalive_next(&keepalive), 145 * S);
    CHECK(!wso_keepalive_ping_due(&keepalive, 145 * S - 1));
    CHECK(wso_keepalive_ping_due(&keepalive, 145 * S));
}

TEST(a_peer_is_dead_when_a_ping_has_waited_and_no_byte_came)
{
    struct wso_keepalive keepalive = started(20 * S, 10 * S, 0);
    CHECK(!wso_keepalive_dead(&keepalive, 1000 * S));
    wso_keepalive_pinged(&keepalive, 1, 20 * S);
    CHECK_EQ(wso_keepalive_next(&keepalive), 30 * S);
    CHECK(!wso_keepalive_dead(&keepalive, 30 * S - 1));
    CHECK(wso_keepalive_dead(&keepalive, 30 * S));
    CHECK(wso_keepalive_dead(&keepalive, 31 * S));
    wso_keepalive_heard(&keepalive);
    CHECK(!wso_keepalive_dead(&keepalive, 1000 * S));
    CHECK_EQ(wso_keepalive_next(&keepalive), 40 * S);
}

TEST(the_oldest_ping_since_the_last_byte_is_judged)
{
    struct wso_keepalive keepalive = started(10 * S, 25 * S, 0);
    wso_keepalive_pinged(&keepalive, 1, 10 * S);
    wso_keepalive_heard(&keepalive);
    wso_keepalive_pinged(&keepalive, 2, 20 * S);
    wso_keepalive_pinged(&keepalive, 3, 30 * S);
    wso_keepalive_pinged(&keepalive, 4, 40 * S);
    CHECK(!wso_keepalive_dead(&keepalive, 45 * S - 1));
    CHECK(wso_keepalive_dead(&keepalive, 45 * S));
}

TEST(with_no_interval_nothing_is_sent_and_nobody_judged)
{
    struct wso_keepalive keepalive = started(20 * S, 10 * S, 0);
    wso_keepalive_pinged(&keepalive, 1, 20 * S);
    wso_keepalive_set(&keepalive, WSO_NEVER, 10 * S, 21 * S);
    CHECK(!wso_keepalive_ping_due(&keepalive, UINT64_MAX));
    CHECK(!wso_keepalive_dead(&keepalive, UINT64_MAX));
    CHECK(wso_keepalive_next(&keepalive) == WSO_NEVER);
}

TEST(with_no_timeout_pings_are_sent_and_nobody_is_judged)
{
    struct wso_keepalive keepalive = started(20 * S, WSO_NEVER, 0);
    wso_keepalive_pinged(&keepalive, 1, 20 * S);
    CHECK(!wso_keepalive_dead(&keepalive, UINT64_MAX));
    CHECK_EQ(wso_keepalive_next(&keepalive), 40 * S);
    CHECK(wso_keepalive_ping_due(&keepalive, 40 * S));
}

TEST(settings_change_in_mid_flight)
{
    struct wso_keepalive keepalive = started(20 * S, 10 * S, 0);
    wso_keepalive_pinged(&keepalive, 1, 20 * S);
    /* The Ping under way is judged by the new timeout, the next is due by the new interval. */
    wso_keepalive_set(&keepalive, 50 * S, 60 * S, 25 * S);
    CHECK_EQ(wso_keepalive_next(&keepalive), 70 * S);
    CHECK(!wso_keepalive_dead(&keepalive, 80 * S - 1));
    CHECK(wso_keepalive_dead(&keepalive, 80 * S));
    wso_keepalive_set(&keepalive, 3 * S, 5 * S, 26 * S);
    CHECK(wso_keepalive_ping_due(&keepalive, 26 * S));
    CHECK(wso_keepalive_dead(&keepalive, 26 * S));
}

TEST(who_sets_the_timeout_often_does_not_put_the_ping_off)
{
    struct wso_keepalive keepalive = started(20 * S, 10 * S, 0);
    for (uint64_t now = 1; now < 20; now++) {
        wso_keepalive_set(&keepalive, 20 * S, now * S, now * S);
    }
    CHECK(wso_keepalive_ping_due(&keepalive, 20 * S));
}

TEST(pings_that_are_switched_on_again_begin_with_an_interval)
{
    struct wso_keepalive keepalive = started(WSO_NEVER, 10 * S, 0);
    CHECK(wso_keepalive_next(&keepalive) == WSO_NEVER);
    wso_keepalive_set(&keepalive, 20 * S, 10 * S, 1000 * S);
    CHECK_EQ(wso_keepalive_next(&keepalive), 1020 * S);
    wso_keepalive_set(&keepalive, WSO_NEVER, 10 * S, 1010 * S);
    wso_keepalive_set(&keepalive, 20 * S, 10 * S, 2000 * S);
    CHECK_EQ(wso_keepalive_next(&keepalive), 2020 * S);
}

TEST(times_that_do_not_fit_never_come)
{
    struct wso_keepalive keepalive = started(UINT64_MAX - 10, UINT64_MAX - 10, 10);
    CHECK(wso_keepalive_next(&keepalive) == WSO_NEVER);
    CHECK(!wso_keepalive_ping_due(&keepalive, UINT64_MAX));
    keepalive = started(UINT64_MAX - 10, UINT64_MAX - 10, 9);
    CHECK(wso_keepalive_next(&keepalive) == UINT64_MAX - 1);
    CHECK(!wso_keepalive_ping_due(&keepalive, UINT64_MAX - 2));
    CHECK(wso_keepalive_ping_due(&keepalive, UINT64_MAX - 1));
    wso_keepalive_pinged(&keepalive, 1, 11);
    CHECK(!wso_keepalive_dead(&keepalive, UINT64_MAX));
    CHECK(!wso_keepalive_ping_due(&keepalive, UINT64_MAX));
}

TEST(a_pong_is_measured_and_settles_the_older_pings)
{
    struct wso_keepalive keepalive = started(10 * S, 100 * S, 0);
    uint64_t at = 77;
    for (uint32_t i = 1; i <= 4; i++) {
        wso_keepalive_pinged(&keepalive, i, i * 10 * S);
    }
    CHECK(!pong(&keepalive, 5, 41 * S, &at));
    CHECK_EQ(at, 77);
    CHECK(!keepalive.measured);
    CHECK(pong(&keepalive, 3, 42 * S, &at));
    CHECK_EQ(at, 30 * S);
    CHECK(keepalive.measured);
    CHECK_EQ(keepalive.latency, 12 * S);
    CHECK_EQ(keepalive.count, 1);
    for (uint32_t i = 1; i <= 3; i++) {
        CHECK(!pong(&keepalive, i, 43 * S, &at));
    }
    CHECK_EQ(keepalive.latency, 12 * S);
    CHECK(pong(&keepalive, 4, 44 * S, &at));
    CHECK_EQ(at, 40 * S);
    CHECK_EQ(keepalive.latency, 4 * S);
    CHECK(!pong(&keepalive, 4, 44 * S, &at));
}

TEST(only_four_bytes_are_an_answer)
{
    struct wso_keepalive keepalive = started(10 * S, 100 * S, 0);
    const uint32_t payload = 0;
    const uint8_t bytes[125] = {0};
    uint64_t at;
    wso_keepalive_pinged(&keepalive, payload, 10 * S);
    for (size_t size = 0; size <= sizeof bytes; size++) {
        CHECK(size == 4 || !wso_keepalive_pong(&keepalive, bytes, size, 11 * S, &at));
    }
    CHECK(!wso_keepalive_pong(&keepalive, NULL, 0, 11 * S, &at));
    CHECK(wso_keepalive_pong(&keepalive, bytes, 4, 11 * S, &at));
}

TEST(the_last_eight_pings_are_remembered)
{
    struct wso_keepalive keepalive = started(10 * S, 100 * S, 0);
    uint64_t at;
    for (uint32_t i = 1; i <= 10; i++) {
        wso_keepalive_pinged(&keepalive, i, i);
    }
    CHECK(!pong(&keepalive, 1, 20, &at));
    CHECK(!pong(&keepalive, 2, 20, &at));
    CHECK(pong(&keepalive, 3, 20, &at));
    CHECK_EQ(at, 3);
    CHECK_EQ(keepalive.count, 7);
    CHECK(pong(&keepalive, 10, 20, &at));
    CHECK_EQ(at, 10);
    CHECK_EQ(keepalive.count, 0);
}

TEST(a_pong_before_its_ping_took_no_time)
{
    struct wso_keepalive keepalive = started(10 * S, 100 * S, 0);
    uint64_t at;
    wso_keepalive_pinged(&keepalive, 1, 10 * S);
    CHECK(pong(&keepalive, 1, 10 * S - 1, &at));
    CHECK_EQ(keepalive.latency, 0);
    CHECK(keepalive.measured);
}

TEST(what_is_forgiven_begins_to_wait_anew)
{
    struct wso_keepalive keepalive = started(20 * S, 10 * S, 0);
    wso_keepalive_forgive(&keepalive, 15 * S);
    CHECK_EQ(wso_keepalive_next(&keepalive), 20 * S);
    CHECK(!wso_keepalive_dead(&keepalive, 1000 * S));
    wso_keepalive_pinged(&keepalive, 1, 20 * S);
    wso_keepalive_forgive(&keepalive, 500 * S);
    CHECK(!wso_keepalive_dead(&keepalive, 510 * S - 1));
    CHECK(wso_keepalive_dead(&keepalive, 510 * S));
    /* A Ping is due at once; its predecessor can still be answered. */
    CHECK(wso_keepalive_ping_due(&keepalive, 500 * S));
    uint64_t at;
    CHECK(pong(&keepalive, 1, 501 * S, &at));
    CHECK_EQ(at, 20 * S);
}
