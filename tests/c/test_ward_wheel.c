/* rounds.c, ward.c: each keepalive is looked at when it is due, however far away that is; each word is told.
 *
 * The guard's thread has ended, and the test goes its rounds with a clock of its own.
 */
#include "loops.h"
#include "wire_inner.h"

#define SECOND WSO_NS_PER_S

/* A ward with one wire, and what the time is there. */
struct wheel {
    struct loop loop;
    struct wso_guard *guard;
    struct guarded one;
    uint64_t now;
};

static void wheel_open(struct wheel *wheel)
{
    wheel->guard = new_guard();
    loop_open(&wheel->loop, wheel->guard);
    guarded_open(&wheel->one, &wheel->loop, NULL, WSO_NEVER);
    wso_guard_stop(wheel->guard);
    loop_turn(&wheel->loop);
    wheel->now = wso_guard_now(wheel->guard) + SECOND;
}

static void wheel_close(struct wheel *wheel)
{
    guarded_close(&wheel->one);
    loop_close(&wheel->loop);
    wso_guard_release(wheel->guard);
}

/* One round at this time, of a loop that is there. */
static void turn(struct wheel *wheel, uint64_t now)
{
    wheel->now = now;
    uint64_t again = wso_ward_round(wheel->loop.ward, now);
    CHECK_EQ(again, wheel->loop.ward->ask_at);
    loop_turn(&wheel->loop);
}

static uint64_t pings(struct wheel *wheel)
{
    return link_counts(&wheel->one.link).pinged;
}

static void set_interval(struct wheel *wheel, uint64_t interval)
{
    /* From none to this one: the first Ping is due an interval from now. */
    struct wso_wire *wire = wheel->one.link.wire;
    AT_WIRE(&wheel->one.link, wso_wire_set_pings(wire, WSO_NEVER, WSO_NEVER, wheel->now));
    AT_WIRE(&wheel->one.link, wso_wire_set_pings(wire, interval, WSO_NEVER, wheel->now));
    wso_ward_look(wheel->one.post);
}

TEST(a_ping_goes_out_in_the_first_round_after_it_is_due)
{
    static const uint64_t intervals[] = {
        1, WSO_PULSE - 1, WSO_PULSE, WSO_PULSE + 1, 10 * WSO_PULSE, 511 * WSO_PULSE,
        512 * WSO_PULSE, 513 * WSO_PULSE, 600 * WSO_PULSE + 3, 1600 * WSO_PULSE,
    };
    struct wheel wheel;
    wheel_open(&wheel);
    for (size_t i = 0; i < sizeof intervals / sizeof *intervals; i++) {
        set_interval(&wheel, intervals[i]);
        uint64_t due = wheel.now + intervals[i];
        uint64_t sent = pings(&wheel);
        while (wheel.now < due) {
            CHECK_EQ(pings(&wheel), sent);
            turn(&wheel, wheel.now + WSO_PULSE);
        }
        /* It may need the round that comes next. */
        if (pings(&wheel) == sent) {
            turn(&wheel, wheel.now + WSO_PULSE);
        }
        CHECK_EQ(pings(&wheel), sent + 1);
    }
    wheel_close(&wheel);
}

TEST(an_interval_is_kept_for_long)
{
    struct wheel wheel;
    wheel_open(&wheel);
    set_interval(&wheel, 20 * SECOND);
    uint64_t begun = wheel.now;
    uint64_t random = 1;
    while (wheel.now < begun + 1000 * SECOND) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        turn(&wheel, wheel.now + WSO_PULSE + (random >> 40) % WSO_PULSE);
    }
    CHECK(pings(&wheel) >= 49 && pings(&wheel) <= 50);
    wheel_close(&wheel);
}

TEST(a_clock_that_leaps_misses_nothing_and_one_that_steps_back_does_no_harm)
{
    struct wheel wheel;
    wheel_open(&wheel);
    set_interval(&wheel, 20 * SECOND);
    turn(&wheel, wheel.now + WSO_PULSE);
    turn(&wheel, wheel.now + WSO_PULSE);
    turn(&wheel, wheel.now + 1000 * SECOND);
    turn(&wheel, wheel.now + WSO_PULSE);
    CHECK_EQ(pings(&wheel), 1);
    /* The guard's clock is corrected: it was a few rounds ahead. */
    set_interval(&wheel, SECOND);
    turn(&wheel, wheel.now + WSO_PULSE);
    uint64_t back = wheel.now - 4 * WSO_PULSE;
    for (int i = 0; i < 60; i++) {
        turn(&wheel, back);
        back += WSO_PULSE;
    }
    CHECK_EQ(pings(&wheel), 2);
    wheel_close(&wheel);
}

/* In the first seconds after the machine was switched on. */
TEST(a_young_clock_that_steps_back_does_no_harm)
{
    struct wheel wheel;
    wheel_open(&wheel);
    wheel.now = SECOND;
    wheel.loop.ward->tick = wheel.now / WSO_PULSE;
    wheel.loop.ward->ask_at = 0;
    set_interval(&wheel, SECOND);
    turn(&wheel, wheel.now + WSO_PULSE);
    turn(&wheel, wheel.now - 4 * WSO_PULSE);
    for (int i = 0; i < 60; i++) {
        turn(&wheel, wheel.now + WSO_PULSE);
    }
    CHECK_EQ(pings(&wheel), 1);
    wheel_close(&wheel);
}

TEST(settings_that_change_are_looked_at_in_the_next_round)
{
    struct wheel wheel;
    wheel_open(&wheel);
    set_interval(&wheel, 3600 * SECOND);
    for (int i = 0; i < 5; i++) {
        turn(&wheel, wheel.now + WSO_PULSE);
    }
    CHECK_EQ(wso_wire_set_pings(wheel.one.link.wire, 10 * WSO_PULSE, WSO_NEVER, wheel.now), WSO_OK);
    wso_ward_look(wheel.one.post);
    wso_ward_look(wheel.one.post);
    for (int i = 0; i < 12; i++) {
        turn(&wheel, wheel.now + WSO_PULSE);
    }
    CHECK_EQ(pings(&wheel), 1);
    wheel_close(&wheel);
}

/* A proposal that came from a Ping before the lease was spent, as the loop returns. */
TEST(a_silent_wire_is_not_judged_before_its_silence_is_forgiven)
{
    struct wheel wheel;
    wheel_open(&wheel);
    struct wso_ward *ward = wheel.loop.ward;
    wheel.one.post->max_stall = SECOND;
    struct link *link = &wheel.one.link;
    CHECK_EQ(wso_wire_set_pings(link->wire, SECOND, 10 * SECOND, wheel.now), WSO_OK);
    wso_ward_look(wheel.one.post);
    for (int i = 0; i < 42; i++) {
        turn(&wheel, wheel.now + WSO_PULSE);
    }
    CHECK_EQ(pings(&wheel), 1);
    /* The loop stays away until its lease is spent, and longer than the timeout. */
    for (int i = 0; i < 500; i++) {
        wheel.now += WSO_PULSE;
        (void)wso_ward_round(ward, wheel.now);
    }
    CHECK(wheel.one.post->silent);
    uint64_t silent_for = pings(&wheel);
    CHECK(silent_for <= 3);
    /* It answers in the middle of a round: the thread thinks it is still late. */
    loop_turn(&wheel.loop);
    ward->any_silent = false;
    atomic_store(&ward->pulse.asked_at, 0);
    (void)wso_ward_round(ward, wheel.now + WSO_PULSE);
    CHECK_EQ(pings(&wheel), silent_for);
    loop_turn(&wheel.loop);
    CHECK_EQ(wheel.one.dead, 0);
    /* In the next one it is forgiven. */
    ward->any_silent = true;
    wheel.now += 2 * WSO_PULSE;
    for (int i = 0; i < 5; i++) {
        turn(&wheel, wheel.now + WSO_PULSE);
    }
    CHECK(!wheel.one.post->silent);
    CHECK(pings(&wheel) > silent_for);
    CHECK_EQ(wheel.one.dead, 0);
    for (int i = 0; i < 11 * 40; i++) {
        turn(&wheel, wheel.now + WSO_PULSE);
    }
    CHECK(wheel.one.dead > 0);
    wheel_close(&wheel);
}

TEST(a_wire_that_the_thread_is_at_is_not_removed_by_trying)
{
    struct loop loop;
    struct guarded one;
    struct wso_guard *guard = new_guard();
    loop_open(&loop, guard);
    guarded_open(&one, &loop, NULL, WSO_NEVER);
    wso_guard_stop(guard);
    /* As if the thread, which has ended, were at it. */
    one.post->busy = true;
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(wso_ward_remove_try(one.post), WSO_EBUSY);
        CHECK_EQ(loop.ward->count, 1);
    }
    one.post->busy = false;
    CHECK_EQ(wso_ward_remove_try(one.post), WSO_OK);
    one.post = NULL;
    CHECK_EQ(loop.ward->count, 0);
    guarded_close(&one);
    loop_close(&loop);
    wso_guard_release(guard);
}

/* What the thread, which has ended, would have said. */
TEST(each_word_is_told_at_once_and_once)
{
    struct loop loop;
    struct guarded one;
    struct wso_guard *guard = new_guard();
    loop_open(&loop, guard);
    guarded_open(&one, &loop, NULL, WSO_NEVER);
    wso_guard_stop(guard);
    loop_turn(&loop);
    wso_post_say(one.post, &(struct wso_wire_step){.did = WSO_DID_PROPOSE});
    loop_turn(&loop);
    CHECK(one.dead == 1 && one.ready == 0);
    wso_post_say(one.post, &(struct wso_wire_step){.did = WSO_DID_READ});
    wso_post_say(one.post, &(struct wso_wire_step){.did = WSO_DID_READ});
    loop_turn(&loop);
    CHECK(one.dead == 1 && one.ready == 1 && one.rescues == 0);
    guarded_close(&one);
    loop_close(&loop);
    wso_guard_release(guard);
}
