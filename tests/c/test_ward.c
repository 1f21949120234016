/* guard.h: the guard's thread serves the wires of a loop that is late, and tells the loop when it is back. */
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loops.h"
#include "wire_inner.h"

#define SECOND WSO_NS_PER_S

TEST(a_guard_without_wards_ends)
{
    struct wso_guard *guard = new_guard();
    wso_guard_stop(guard);
    wso_guard_stop(guard);
    wso_guard_release(guard);
}

TEST(a_ward_without_wires_is_left_alone)
{
    struct loop loop;
    struct wso_guard *guard = new_guard();
    loop_open(&loop, guard);
    loop_turn(&loop);
    CHECK_EQ(loop.delivered, 0);
    CHECK(!wso_ward_late(loop.ward));
    wso_ward_close(loop.ward);
    loop_close(&loop);
    end_guard(guard);
}

TEST(while_the_loop_is_late_pings_are_answered_and_all_else_is_kept_for_it)
{
    struct loop loop;
    struct guarded one;
    uint8_t frame[64];
    struct wso_guard *guard = new_guard();
    loop_open(&loop, guard);
    guarded_open(&one, &loop, NULL, WSO_NEVER);
    peer_ping(&one.link, "first");
    size_t size = peer_make(&one.link, frame, TEXT, "kept", 4);
    peer_send(&one.link, frame, size);
    guarded_wait_for_pong(&one, "first");
    WAIT_UNTIL(link_counts(&one.link).inbox == size);
    wait_for_rounds(&loop, 1);
    peer_send(&one.link, frame, size);
    memcpy(frame + size, frame, size);
    size *= 2;
    peer_ping(&one.link, "second");
    guarded_wait_for_pong(&one, "second");
    wait_for_rounds(&loop, 1);
    CHECK(wso_ward_late(loop.ward));
    CHECK_EQ(loop.delivered, 0);
    CHECK_EQ(link_counts(&one.link).rescues, 0);
    /* The loop is back. */
    LIVE_UNTIL(&loop, one.rescues > 0);
    CHECK_EQ(one.ready, 1);
    CHECK_EQ(one.rescue.answered, 2);
    CHECK_EQ(one.rescue.pinged, 0);
    CHECK(one.rescue.read >= size && one.rescue.duration >= WSO_LATE);
    CHECK_EQ(link_counts(&one.link).rescues, 1);
    CHECK_EQ(link_counts(&one.link).longest_rescue, one.rescue.duration);
    link_check_received(&one.link, frame, size);
    /* What was told is not told again. */
    one.ready = 0;
    int delivered = loop.delivered;
    LIVE_UNTIL(&loop, loop.delivered > delivered + 3);
    CHECK(one.ready == 0 && one.rescues == 1 && one.dead == 0);
    /* To be told and not asked is one turn more. */
    delivered = loop.delivered;
    CHECK_EQ(wso_pulse_tell(&loop.ward->pulse), WSO_OK);
    loop_turn(&loop);
    CHECK_EQ(loop.delivered, delivered + 1);
    guarded_close(&one);
    loop_close(&loop);
    end_guard(guard);
}

TEST(each_of_several_stalls_is_a_rescue)
{
    struct loop loop;
    struct guarded one;
    struct wso_guard *guard = new_guard();
    loop_open(&loop, guard);
    guarded_open(&one, &loop, NULL, WSO_NEVER);
    for (int i = 1; i <= 4; i++) {
        peer_ping(&one.link, "in a stall");
        guarded_wait_for_pong(&one, "in a stall");
        peer_ping(&one.link, "and another");
        guarded_wait_for_pong(&one, "and another");
        /* The Pong goes out before the thread has noted it. */
        wait_for_rounds(&loop, 1);
        /* One turn of the loop between two stalls. */
        LIVE_UNTIL(&loop, one.rescues == i);
        CHECK_EQ(one.rescue.answered, 2);
    }
    CHECK_EQ(link_counts(&one.link).rescues, 4);
    guarded_close(&one);
    loop_close(&loop);
    end_guard(guard);
}

TEST(the_end_of_a_stream_in_a_stall_is_told)
{
    struct loop loop;
    struct guarded one;
    struct wso_guard *guard = new_guard();
    loop_open(&loop, guard);
    guarded_open(&one, &loop, NULL, WSO_NEVER);
    peer_ping(&one.link, "last words");
    CHECK_EQ(shutdown(one.link.peer, SHUT_WR), 0);
    guarded_wait_for_pong(&one, "last words");
    WAIT_UNTIL(link_counts(&one.link).state == WSO_WIRE_ENDED);
    LIVE_UNTIL(&loop, one.ready > 0);
    CHECK_EQ(link_receive(&one.link), 0);
    CHECK(one.link.news.end);
    guarded_close(&one);
    loop_close(&loop);
    end_guard(guard);
}

/* Settings by which a Ping of ours is due in every round. */
static struct wso_wire_settings pinging(uint64_t timeout)
{
    struct wso_wire_settings settings = link_settings;
    settings.ping_interval = 1000000;
    settings.ping_timeout = timeout;
    return settings;
}

static bool pinged(struct guarded *guarded)
{
    struct frame frame;
    return guarded_peer_got(guarded, &frame) && frame.first == PING;
}

TEST(pings_of_ours_go_out_in_health_and_in_a_stall)
{
    struct loop loop;
    struct guarded one;
    struct wso_guard *guard = new_guard();
    struct wso_wire_settings settings = pinging(WSO_NEVER);
    loop_open(&loop, guard);
    guarded_open(&one, &loop, &settings, WSO_NEVER);
    for (int i = 0; i < 3; i++) {
        LIVE_UNTIL(&loop, pinged(&one));
    }
    for (int i = 0; i < 5; i++) {
        WAIT_UNTIL(pinged(&one));
    }
    LIVE_UNTIL(&loop, one.rescues > 0);
    CHECK(one.rescue.pinged > 0 && one.dead == 0);
    /* Without an interval they cease, and with one they begin again, at once. */
    AT_WIRE(&one.link, wso_wire_set_pings(one.link.wire, WSO_NEVER, WSO_NEVER, wso_guard_now(guard)));
    wso_ward_look(one.post);
    while (pinged(&one)) {
    }
    wait_for_rounds(&loop, 4);
    CHECK(!pinged(&one));
    AT_WIRE(&one.link, wso_wire_set_pings(one.link.wire, 1, WSO_NEVER, wso_guard_now(guard)));
    wso_ward_look(one.post);
    LIVE_UNTIL(&loop, pinged(&one));
    guarded_close(&one);
    loop_close(&loop);
    end_guard(guard);
}

TEST(a_peer_that_sends_nothing_is_reported)
{
    struct loop loop;
    struct guarded one, other;
    struct wso_guard *guard = new_guard();
    struct wso_wire_settings settings = pinging(check_ms(300));
    loop_open(&loop, guard);
    guarded_open(&other, &loop, NULL, WSO_NEVER);
    guarded_open(&one, &loop, &settings, WSO_NEVER);
    bool dead = false;
    LIVE_UNTIL(&loop, one.dead > 0);
    AT_WIRE(&one.link, wso_wire_confirm_dead(one.link.wire, wso_guard_now(guard), &dead));
    CHECK(dead && other.dead == 0);
    guarded_close(&one);
    guarded_close(&other);
    loop_close(&loop);
    end_guard(guard);
}

TEST(a_peer_that_dies_in_a_stall_is_reported_after_it)
{
    struct loop loop;
    struct guarded one;
    struct wso_guard *guard = new_guard();
    struct wso_wire_settings settings = pinging(1);
    loop_open(&loop, guard);
    guarded_open(&one, &loop, &settings, WSO_NEVER);
    WAIT_UNTIL(wso_ward_late(loop.ward) && pinged(&one));
    wait_for_rounds(&loop, 3);
    LIVE_UNTIL(&loop, one.dead > 0);
    guarded_close(&one);
    loop_close(&loop);
    end_guard(guard);
}

static bool is_silent(struct guarded *guarded)
{
    wso_lock_acquire(&guarded->loop->ward->lock);
    bool silent = guarded->post->silent;
    wso_lock_release(&guarded->loop->ward->lock);
    return silent;
}

TEST(when_its_lease_is_spent_a_wire_falls_silent_until_the_loop_is_back)
{
    struct loop loop;
    struct guarded one, other;
    struct wso_guard *guard = new_guard();
    struct wso_wire_settings settings = pinging(1);
    settings.ping_timeout = check_ms(3600000);
    loop_open(&loop, guard);
    guarded_open(&one, &loop, &settings, 2 * WSO_PULSE);
    guarded_open(&other, &loop, NULL, WSO_NEVER);
    WAIT_UNTIL(is_silent(&one));
    while (pinged(&one)) {
    }
    /* It is neither read nor answered nor pinged; the other one is served. */
    peer_ping(&one.link, "to nobody");
    peer_ping(&other.link, "to the guard");
    guarded_wait_for_pong(&other, "to the guard");
    wait_for_rounds(&loop, 4);
    CHECK(is_silent(&one) && !is_silent(&other));
    /* What is unread there does not wake the thread. */
    struct epoll_event event;
    CHECK_EQ(epoll_wait(guard->poll_fd, &event, 1, 0), 0);
    peer_expect_nothing(&one.link);
    CHECK_EQ(link_counts(&one.link).answered, 0);
    /* The loop is back: the silence counts against nobody, and the wire is guarded as before. */
    uint64_t back = wso_guard_now(guard);
    LIVE_UNTIL(&loop, !is_silent(&one));
    wso_lock_acquire(&one.link.wire->lock);
    uint64_t waiting_since = one.link.wire->keepalive.waiting_since;
    wso_lock_release(&one.link.wire->lock);
    CHECK(waiting_since >= back - 2 * WSO_PULSE);
    CHECK_EQ(link_receive(&one.link), 0);
    struct frame frame;
    WAIT_UNTIL(guarded_peer_got(&one, &frame) && frame.first == PONG);
    LIVE_UNTIL(&loop, pinged(&one));
    CHECK_EQ(one.dead, 0);
    guarded_close(&one);
    guarded_close(&other);
    loop_close(&loop);
    end_guard(guard);
}

/* Another loop, live or not, keeps the guard's thread awake. */
TEST(the_wires_of_a_closed_ward_or_loop_fall_silent_at_once)
{
    for (int ward = 0; ward < 2; ward++) {
        struct loop loop, witness;
        struct guarded one, other;
        struct wso_list left;
        struct wso_guard *guard = new_guard();
        struct wso_wire_settings settings = pinging(WSO_NEVER);
        wso_list_init(&left);
        loop_open(&loop, guard);
        loop_open(&witness, guard);
        guarded_open(&other, &witness, NULL, WSO_NEVER);
        guarded_open(&one, &loop, &settings, WSO_NEVER);
        peer_ping(&one.link, "served");
        struct frame frame;
        WAIT_UNTIL(guarded_peer_got(&one, &frame) && frame.first == PONG);
        if (ward) {
            /* The mail in the box is not for anybody any more. */
            wso_ward_close(loop.ward);
            loop_turn(&loop);
            CHECK_EQ(loop.delivered, 0);
        } else {
            wso_mailbox_close(loop.mailbox, &left);
            struct wso_link *link = wso_list_pop_front(&left);
            if (link != NULL) {
                struct wso_mail *mail = WSO_ITEM(link, struct wso_mail, link);
                mail->drop(mail);
            }
        }
        wait_for_rounds(&witness, 4);
        while (guarded_peer_got(&one, &frame)) {
        }
        peer_ping(&one.link, "to nobody");
        wait_for_rounds(&witness, 4);
        peer_expect_nothing(&one.link);
        CHECK(!wso_ward_late(loop.ward));
        /* What is readable there does not wake the thread either. */
        struct epoll_event event;
        CHECK_EQ(epoll_wait(guard->poll_fd, &event, 1, 0), 0);
        /* The other loop is served all the while. */
        peer_ping(&other.link, "alive");
        guarded_wait_for_pong(&other, "alive");
        guarded_close(&one);
        guarded_close(&other);
        loop_close(&loop);
        loop_close(&witness);
        end_guard(guard);
    }
}

TEST(a_guard_that_was_stopped_serves_nobody_and_its_wards_are_closed_as_ever)
{
    struct loop loop;
    struct guarded one;
    struct wso_post *post = (void *)&post;
    struct wso_guard *guard = new_guard();
    loop_open(&loop, guard);
    guarded_open(&one, &loop, NULL, WSO_NEVER);
    peer_ping(&one.link, "served");
    guarded_wait_for_pong(&one, "served");
    wso_guard_stop(guard);
    peer_ping(&one.link, "to nobody");
    loop_turn(&loop);
    CHECK_EQ(one.rescues, 1);
    peer_expect_nothing(&one.link);
    CHECK_EQ(wso_ward_add(loop.ward, one.link.wire, one.link.fd, 1, &one, &post), WSO_ECLOSED);
    CHECK(post == NULL);
    wso_ward_look(one.post);
    wso_guard_release(guard);
    CHECK_EQ(link_receive(&one.link), 0);
    peer_expect_pong(&one.link, "to nobody");
    guarded_close(&one);
    wso_ward_close(loop.ward);
    CHECK_EQ(wso_ward_add(loop.ward, one.link.wire, one.link.fd, 1, &one, &post), WSO_ECLOSED);
    loop_close(&loop);
}

TEST(of_two_loops_the_one_that_is_late_is_served)
{
    struct loop late, live;
    struct guarded one, other;
    struct wso_guard *guard = new_guard();
    loop_open(&late, guard);
    loop_open(&live, guard);
    guarded_open(&one, &late, NULL, WSO_NEVER);
    guarded_open(&other, &live, NULL, WSO_NEVER);
    LIVE_UNTIL(&live, wso_ward_late(late.ward));
    LIVE_UNTIL(&live, !wso_ward_late(live.ward));
    CHECK(wso_ward_late(late.ward));
    peer_ping(&one.link, "by the guard");
    struct frame frame;
    LIVE_UNTIL(&live, guarded_peer_got(&one, &frame));
    CHECK(frame.first == PONG);
    CHECK(one.rescues == 0 && late.delivered == 0 && live.delivered > 0);
    /* They change places. */
    LIVE_UNTIL(&late, one.rescues == 1 && wso_ward_late(live.ward));
    peer_ping(&other.link, "by the guard too");
    LIVE_UNTIL(&late, guarded_peer_got(&other, &frame));
    guarded_close(&one);
    guarded_close(&other);
    loop_close(&late);
    loop_close(&live);
    end_guard(guard);
}
