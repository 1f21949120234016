/* wire.h: the verdict over a silent peer, who may be at the wire, and its end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "sockets.h"
#include "wire_inner.h"

#define SECOND WSO_NS_PER_S

/* A server's link with Pings every second and this timeout; the guard's clock begins at `now`. */
static uint64_t open_judged(struct link *link, uint64_t timeout, uint64_t max_stall)
{
    struct wso_wire_settings settings = link_settings;
    uint64_t now = wso_now();
    settings.ping_interval = SECOND;
    settings.ping_timeout = timeout;
    settings.max_stall = max_stall;
    link_open(link, WSO_SERVER);
    CHECK_EQ(wso_wire_start(link->wire, &settings, now), WSO_OK);
    return now;
}

static struct wso_wire_step tick(struct link *link, uint64_t now)
{
    struct wso_wire_step step;
    wso_wire_tick(link->wire, now, &step);
    return step;
}

static bool is_dead(struct link *link, uint64_t now)
{
    bool dead;
    CHECK_EQ(wso_wire_confirm_dead(link->wire, now, &dead), WSO_OK);
    return dead;
}

TEST(a_peer_that_sends_nothing_for_the_timeout_is_dead)
{
    struct link link;
    uint64_t now = open_judged(&link, 3 * SECOND, WSO_NEVER);
    struct wso_wire_step step = tick(&link, now + SECOND);
    CHECK(step.pinged == 1 && step.next == now + 2 * SECOND);
    step = tick(&link, now + 4 * SECOND - 1);
    CHECK(step.pinged == 1 && step.did == WSO_DID_ANSWER && step.next == now + 4 * SECOND);
    CHECK(!is_dead(&link, now + 4 * SECOND - 1));
    step = tick(&link, now + 4 * SECOND);
    CHECK_EQ(step.did, WSO_DID_PROPOSE);
    /* If nobody acts, it is proposed again after a while. */
    CHECK_EQ(step.next, now + 5 * SECOND);
    CHECK(is_dead(&link, now + 4 * SECOND));
    CHECK_EQ(tick(&link, now + 5 * SECOND).did, WSO_DID_PROPOSE | WSO_DID_ANSWER);
    /* Any byte is life. */
    peer_send(&link, "\x82", 1);
    CHECK_EQ(link_receive(&link), 1);
    CHECK(!is_dead(&link, now + 5 * SECOND));
    CHECK_EQ(tick(&link, now + 5 * SECOND).did, 0);
    link_close(&link);
}

TEST(unread_bytes_put_the_verdict_off_while_the_wire_may_read_them)
{
    struct link link;
    uint64_t now = open_judged(&link, SECOND, WSO_NEVER);
    CHECK_EQ(tick(&link, now + SECOND).pinged, 1);
    peer_send_frame(&link, TEXT, "unread", 6);
    struct wso_wire_step step = tick(&link, now + 2 * SECOND);
    CHECK_EQ(step.did, WSO_DID_ANSWER);
    CHECK(!is_dead(&link, now + 2 * SECOND));
    CHECK_EQ(tick(&link, now + 3 * SECOND).did & WSO_DID_PROPOSE, 0);
    /* The library takes them, and nothing comes any more. */
    CHECK(link_receive(&link) > 0);
    CHECK_EQ(tick(&link, now + 4 * SECOND).did, WSO_DID_ANSWER);
    CHECK_EQ(tick(&link, now + 5 * SECOND).did & WSO_DID_PROPOSE, WSO_DID_PROPOSE);
    /* Between the proposal and the loop's own look a byte comes. */
    peer_send(&link, "\x82", 1);
    CHECK(!is_dead(&link, now + 5 * SECOND));
    link_close(&link);
}

TEST(a_full_inbox_puts_the_verdict_off_for_max_stall_since_the_library_took_something)
{
    struct link link;
    static uint8_t payload[100000];
    uint8_t buffer[WSO_RECEIVE_MIN];
    uint64_t now = open_judged(&link, SECOND, 10 * SECOND);
    peer_send_frame(&link, BINARY, payload, sizeof payload);
    do {
        CHECK_EQ(wso_wire_fill(link.wire, &link.news), WSO_OK);
    } while (!link.news.full);
    CHECK_EQ(tick(&link, now + SECOND).pinged, 1);
    /* The bound is counted from the first look at the full inbox; Pings go on until then. */
    struct wso_wire_step step = tick(&link, now + 2 * SECOND);
    CHECK(step.did == WSO_DID_ANSWER && step.next == now + 3 * SECOND);
    CHECK(!is_dead(&link, now + 11 * SECOND));
    /* The library takes a little, which does not make room yet: the bound counts anew. */
    CHECK_EQ(wso_wire_receive(link.wire, buffer, sizeof buffer, &link.news), WSO_OK);
    CHECK(link.news.full);
    CHECK_EQ(tick(&link, now + 11 * SECOND).did & WSO_DID_PROPOSE, 0);
    CHECK(!is_dead(&link, now + 20 * SECOND));
    step = tick(&link, now + 21 * SECOND - 1);
    CHECK(step.did == WSO_DID_ANSWER && step.next == now + 21 * SECOND);
    CHECK_EQ(tick(&link, now + 21 * SECOND).did & WSO_DID_PROPOSE, WSO_DID_PROPOSE);
    CHECK(is_dead(&link, now + 21 * SECOND));
    /* It takes all: what lies in the socket is life again. */
    for (int i = 0; i < 10; i++) {
        CHECK_EQ(wso_wire_receive(link.wire, buffer, sizeof buffer, &link.news), WSO_OK);
    }
    CHECK(!link.news.full);
    CHECK(!is_dead(&link, now + 22 * SECOND));
    link_close(&link);
}

TEST(a_full_inbox_and_no_bound_put_the_verdict_off_for_ever)
{
    struct link link;
    static uint8_t payload[100000];
    uint64_t now = open_judged(&link, SECOND, WSO_NEVER);
    peer_send_frame(&link, BINARY, payload, sizeof payload);
    do {
        CHECK_EQ(wso_wire_fill(link.wire, &link.news), WSO_OK);
    } while (!link.news.full);
    CHECK_EQ(tick(&link, now + SECOND).pinged, 1);
    for (uint64_t later = 2; later < 1000000; later *= 2) {
        struct wso_wire_step step = tick(&link, now + later * SECOND);
        CHECK(step.did == WSO_DID_ANSWER && step.next == now + (later + 1) * SECOND);
        CHECK(!is_dead(&link, now + later * SECOND));
    }
    link_close(&link);
}

TEST(without_a_timeout_nobody_is_judged_and_without_an_interval_nobody_is_pinged)
{
    struct link link;
    uint64_t now = open_judged(&link, WSO_NEVER, WSO_NEVER);
    for (uint64_t i = 1; i < 5; i++) {
        struct wso_wire_step step = tick(&link, now + i * SECOND);
        CHECK(step.did == WSO_DID_ANSWER && step.next == now + (i + 1) * SECOND);
    }
    CHECK(!is_dead(&link, now + 1000000 * SECOND));
    /* Other settings hold at once, also for the Ping that is under way. */
    CHECK_EQ(wso_wire_set_pings(link.wire, SECOND, 10 * SECOND, now), WSO_OK);
    CHECK(!is_dead(&link, now + 11 * SECOND - 1));
    CHECK(is_dead(&link, now + 11 * SECOND));
    CHECK_EQ(wso_wire_set_pings(link.wire, WSO_NEVER, SECOND, now), WSO_OK);
    CHECK(!is_dead(&link, now + 100 * SECOND));
    struct wso_wire_step step = tick(&link, now + 100 * SECOND);
    CHECK(step.did == 0 && step.next == WSO_NEVER);
    link_close(&link);
}

TEST(our_own_silence_counts_against_nobody)
{
    struct link link;
    uint64_t now = open_judged(&link, SECOND, WSO_NEVER);
    CHECK_EQ(tick(&link, now + SECOND).pinged, 1);
    wso_wire_forgive(link.wire, now + 100 * SECOND);
    CHECK(!is_dead(&link, now + 101 * SECOND - 1));
    CHECK_EQ(tick(&link, now + 100 * SECOND).did, WSO_DID_ANSWER);
    CHECK_EQ(tick(&link, now + 101 * SECOND).did & WSO_DID_PROPOSE, WSO_DID_PROPOSE);
    CHECK(is_dead(&link, now + 101 * SECOND));
    link_close(&link);
}

TEST(a_peer_that_has_closed_or_ended_is_not_judged)
{
    struct link link;
    for (int ends = 0; ends < 2; ends++) {
        uint64_t now = open_judged(&link, SECOND, WSO_NEVER);
        CHECK_EQ(tick(&link, now + SECOND).pinged, 1);
        if (ends) {
            peer_close(&link);
        } else {
            peer_send_frame(&link, CLOSE, "", 0);
        }
        (void)link_receive(&link);
        struct wso_wire_step step = tick(&link, now + 10 * SECOND);
        CHECK(step.did == 0 && step.next == WSO_NEVER);
        CHECK(!is_dead(&link, now + 10 * SECOND));
        link_close(&link);
    }
}

TEST(a_step_tells_of_the_end_and_leaves_the_poll_set)
{
    struct link link;
    struct wso_wire_step step;
    (void)open_judged(&link, SECOND, WSO_NEVER);
    peer_ping(&link, "last words");
    peer_send_frame(&link, TEXT, "x", 1);
    CHECK_EQ(shutdown(link.peer, SHUT_WR), 0);
    wso_wire_step(link.wire, wso_now(), &step);
    CHECK_EQ(step.did, WSO_DID_ANSWER | WSO_DID_READ);
    CHECK(step.events == 0 && step.answered == 1);
    peer_expect_pong(&link, "last words");
    /* It is not looked at again. */
    wso_wire_step(link.wire, wso_now(), &step);
    CHECK(step.did == 0 && step.events == 0 && step.read == 0);
    CHECK(link_receive(&link) > 0);
    CHECK(link.news.end);
    link_close(&link);
}

TEST(a_step_finishes_what_is_half_sent_and_waits_for_room)
{
    struct link link;
    struct wso_wire_step step;
    static uint8_t payload[300000];
    link_open_with(&link, &(struct link_options){.role = WSO_SERVER, .send_buffer = 1});
    link_start(&link);
    link_send_frame(&link, BINARY, payload, sizeof payload);
    CHECK(link.news.want_write);
    peer_ping(&link, "between");
    wso_wire_step(link.wire, wso_now(), &step);
    /* The loop has to know that it must wait for room. */
    CHECK(step.did == WSO_DID_BLOCK && step.read > 0 && step.answered == 0);
    CHECK_EQ(step.events, EPOLLIN | EPOLLOUT);
    do {
        CHECK(peer_read(&link, 20000) > 0);
        wso_wire_step(link.wire, wso_now(), &step);
    } while (step.answered == 0);
    CHECK((step.did & WSO_DID_ANSWER) != 0);
    peer_expect(&link, BINARY, payload, sizeof payload);
    wso_wire_step(link.wire, wso_now(), &step);
    CHECK_EQ(step.events, EPOLLIN);
    peer_expect_pong(&link, "between");
    link_close(&link);
}

TEST(a_start_that_is_taken_back_leaves_every_frame_to_the_library)
{
    struct link link;
    struct wso_wire_step step;
    link_open(&link, WSO_SERVER);
    link_start(&link);
    CHECK_EQ(wso_wire_end(link.wire), WSO_OK);
    CHECK_EQ(link_counts(&link).state, WSO_WIRE_ENDED);
    peer_ping(&link, "the library's");
    wso_wire_step(link.wire, wso_now(), &step);
    CHECK(step.did == 0 && step.events == 0);
    CHECK(link_receive(&link) > 0);
    CHECK_EQ(link_counts(&link).answered, 0);
    link_close(&link);
}

/* Each call of the loop's side, and of any thread, that may answer WSO_EBUSY. */
static int call(struct link *link, int which)
{
    static uint8_t buffer[WSO_RECEIVE_MIN];
    struct iovec piece = {buffer, 1};
    struct wso_wire_counts counts;
    struct wso_wire_note notes[WSO_WIRE_NOTES];
    struct wso_wire_settings settings = link_settings;
    uint64_t missed;
    bool dead;
    int count;
    settings.log = true;
    switch (which) {
    case 0: return wso_wire_receive(link->wire, buffer, sizeof buffer, &link->news);
    case 1: return wso_wire_fill(link->wire, &link->news);
    case 2: return wso_wire_feed(link->wire, buffer, 1);
    case 3: return wso_wire_send(link->wire, &piece, 1, &link->news);
    case 4: return wso_wire_flush(link->wire, &link->news);
    case 5: return wso_wire_look(link->wire, &link->news);
    case 6: return wso_wire_start(link->wire, &settings, wso_now());
    case 7: return wso_wire_set_pings(link->wire, 1, 1, wso_now());
    case 8: return wso_wire_confirm_dead(link->wire, wso_now(), &dead);
    case 9: return wso_wire_end_output(link->wire, &link->news);
    case 10: return wso_wire_counts(link->wire, &counts);
    case 11: return wso_wire_take_notes(link->wire, notes, &count, &missed);
    case 12: return wso_wire_end(link->wire);
    case 13: return wso_wire_retire(link->wire, true);
    default: return -1;
    }
}

struct holder {
    struct wso_wire *wire;
    atomic_bool holds, let_go;
    atomic_int waiters;
};

static void *hold(void *argument)
{
    struct holder *holder = argument;
    wso_lock_acquire(&holder->wire->lock);
    atomic_store(&holder->holds, true);
    WAIT_UNTIL(atomic_load(&holder->let_go));
    wso_lock_release(&holder->wire->lock);
    return NULL;
}

TEST(while_another_thread_is_at_the_wire_the_loop_is_told_so_and_nothing_is_done)
{
    struct link link;
    pthread_t thread;
    link_open(&link, WSO_SERVER);
    struct holder holder = {.wire = link.wire};
    peer_ping(&link, "unread");
    CHECK_EQ(pthread_create(&thread, NULL, hold, &holder), 0);
    WAIT_UNTIL(atomic_load(&holder.holds));
    for (int which = 0; call(&link, which) != -1; which++) {
        CHECK_EQ(call(&link, which), WSO_EBUSY);
    }
    CHECK_EQ(wso_pages_lent(link.pages), 0);
    atomic_store(&holder.let_go, true);
    wso_wire_wait(link.wire);
    CHECK_EQ(link_counts(&link).state, WSO_WIRE_NEW);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK(link_receive(&link) > 0);
    peer_expect_nothing(&link);
    for (int which = 0; which <= 12; which++) {
        CHECK(call(&link, which) != WSO_EBUSY);
    }
    link_close(&link);
}

TEST(rescues_are_counted_with_the_longest)
{
    struct link link;
    link_open(&link, WSO_SERVER);
    wso_wire_rescued(link.wire, 5);
    wso_wire_rescued(link.wire, 7);
    wso_wire_rescued(link.wire, 6);
    CHECK_EQ(link_counts(&link).rescues, 3);
    CHECK_EQ(link_counts(&link).longest_rescue, 7);
    link_close(&link);
}

static int by_value(const void *left, const void *right)
{
    uint32_t a, b;
    memcpy(&a, left, sizeof a);
    memcpy(&b, right, sizeof b);
    return a < b ? -1 : a > b;
}

TEST(each_frame_of_a_client_has_a_mask_of_its_own)
{
    enum { PINGS = 5000 };
    static uint32_t masks[PINGS];
    struct link link;
    link_open(&link, WSO_CLIENT);
    link_start(&link);
    for (int i = 0; i < PINGS; i++) {
        struct frame frame;
        peer_ping(&link, "x");
        CHECK_EQ(link_receive(&link), 0);
        while (peer_read(&link, LINK_BYTES) > 0) {
        }
        CHECK(peer_next(&link, &frame));
        memcpy(&masks[i], frame.mask, sizeof masks[i]);
    }
    qsort(masks, PINGS, sizeof masks[0], by_value);
    int repeats = 0;
    for (int i = 1; i < PINGS; i++) {
        repeats += masks[i] == masks[i - 1];
    }
    /* One is expected in 340 runs; three in more than 10^8. */
    CHECK(repeats < 3);
    link_close(&link);
}
