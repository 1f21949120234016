/* guard.h, many wires at once: turns, poll sets that follow the wires, removal at any moment, and a clock
 * that leaves out what the guard's thread has slept. */
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "loops.h"
#include "wire_inner.h"

enum { MANY = 150 };

static struct guarded many[MANY];

TEST(each_of_many_wires_is_served_in_a_stall)
{
    struct loop loop;
    struct wso_guard *guard = new_guard();
    loop_open(&loop, guard);
    for (int i = 0; i < MANY; i++) {
        guarded_open(&many[i], &loop, NULL, WSO_NEVER);
    }
    /* The first Pings may be there as the stall begins, the second ones come in it. */
    for (int i = 0; i < MANY; i++) {
        peer_ping(&many[i].link, "one");
    }
    for (int i = 0; i < MANY; i++) {
        guarded_wait_for_pong(&many[i], "one");
    }
    for (int i = 0; i < MANY; i++) {
        peer_ping(&many[i].link, "two");
    }
    for (int i = 0; i < MANY; i++) {
        guarded_wait_for_pong(&many[i], "two");
    }
    wait_for_rounds(&loop, 1);
    LIVE_UNTIL(&loop, many[MANY - 1].rescues > 0);
    for (int i = 0; i < MANY; i++) {
        LIVE_UNTIL(&loop, many[i].rescues == 1);
        CHECK_EQ(many[i].rescue.answered, 2);
        guarded_close(&many[i]);
    }
    loop_close(&loop);
    end_guard(guard);
}

static int count_silent(struct loop *loop)
{
    int silent = 0;
    wso_lock_acquire(&loop->ward->lock);
    for (int i = 0; i < MANY; i++) {
        silent += many[i].post->silent;
    }
    wso_lock_release(&loop->ward->lock);
    return silent;
}

TEST(many_silent_wires_are_forgiven_when_the_loop_is_back)
{
    struct loop loop;
    struct wso_guard *guard = new_guard();
    loop_open(&loop, guard);
    for (int i = 0; i < MANY; i++) {
        guarded_open(&many[i], &loop, NULL, 2 * WSO_PULSE);
    }
    /* A wire falls silent when there is something to do for it and its lease is spent. */
    while (count_silent(&loop) < MANY) {
        for (int i = 0; i < MANY; i++) {
            peer_ping(&many[i].link, "at last to nobody");
        }
        wait_for_rounds(&loop, 1);
    }
    LIVE_UNTIL(&loop, count_silent(&loop) == 0);
    for (int i = 0; i < MANY; i++) {
        guarded_close(&many[i]);
    }
    loop_close(&loop);
    end_guard(guard);
}

static int still_unread(int count)
{
    int wires = 0;
    for (int i = 0; i < count; i++) {
        int unread = 0;
        CHECK_EQ(ioctl(many[i].link.fd, FIONREAD, &unread), 0);
        wires += unread > 0;
    }
    return wires;
}

/* The guard's thread has ended, and the test goes its rounds. */
TEST(a_flood_of_many_wires_leaves_the_others_their_turn)
{
    struct loop loop;
    struct wso_guard *guard = new_guard();
    loop_open(&loop, guard);
    for (int i = 0; i < 70; i++) {
        guarded_open(&many[i], &loop, NULL, WSO_NEVER);
    }
    wso_guard_stop(guard);
    loop_turn(&loop);
    atomic_store(&guard->stopping, false);
    uint64_t now = wso_guard_now(guard) - 10 * WSO_PULSE;
    loop.ward->ask_at = 0;
    (void)wso_ward_round(loop.ward, now);
    /* In an earlier stall they have left the poll set: all come back as this one begins. */
    for (int i = 0; i < 70; i++) {
        CHECK_EQ(epoll_ctl(loop.ward->poll_fd, EPOLL_CTL_DEL, many[i].link.fd, NULL), 0);
        many[i].post->events = 0;
    }
    now += WSO_PULSE;
    (void)wso_ward_round(loop.ward, now);
    CHECK(wso_ward_late(loop.ward));
    for (int i = 0; i < 70; i++) {
        CHECK_EQ(many[i].post->events, EPOLLIN);
    }
    for (int i = 0; i < 70; i++) {
        peer_ping(&many[i].link, "flood");
    }
    /* The next pulse is overdue by the time that the wires have their turn: 64 of them have one. */
    (void)wso_ward_round(loop.ward, now + 1);
    CHECK_EQ(still_unread(70), 70 - 64);
    (void)wso_ward_round(loop.ward, now + 2);
    CHECK_EQ(still_unread(70), 0);
    atomic_store(&guard->stopping, true);
    for (int i = 0; i < 70; i++) {
        guarded_close(&many[i]);
    }
    loop_close(&loop);
    wso_guard_release(guard);
}

TEST(a_wire_leaves_the_poll_set_when_it_is_full_and_comes_back_in_the_next_stall)
{
    struct loop loop;
    struct guarded one;
    static uint8_t payload[150000];
    struct wso_guard *guard = new_guard();
    loop_open(&loop, guard);
    guarded_open(&one, &loop, NULL, WSO_NEVER);
    for (int i = 0; i < 3; i++) {
        one.ready = 0;
        peer_send_frame(&one.link, BINARY, payload, sizeof payload);
        WAIT_UNTIL(link_counts(&one.link).inbox >= 65536);
        peer_ping(&one.link, "behind it");
        wait_for_rounds(&loop, 2);
        struct epoll_event event;
        CHECK_EQ(epoll_wait(guard->poll_fd, &event, 1, 0), 0);
        LIVE_UNTIL(&loop, one.ready > 0);
        size_t received = 0;
        while (received < sizeof payload + 14) {
            received += link_receive(&one.link);
        }
        CHECK_EQ(received, sizeof payload + 14);
        guarded_wait_for_pong(&one, "behind it");
    }
    guarded_close(&one);
    loop_close(&loop);
    end_guard(guard);
}

TEST(blocked_output_goes_on_in_a_stall)
{
    struct loop loop;
    struct guarded one;
    static uint8_t payload[2000000];
    struct wso_guard *guard = new_guard();
    loop_open(&loop, guard);
    guarded_open(&one, &loop, NULL, WSO_NEVER);
    link_send_frame(&one.link, BINARY, payload, sizeof payload);
    CHECK(one.link.news.want_write);
    peer_ping(&one.link, "behind it");
    struct frame frame;
    WAIT_UNTIL(guarded_peer_got(&one, &frame));
    CHECK(frame.first == BINARY && frame.size == sizeof payload);
    guarded_wait_for_pong(&one, "behind it");
    guarded_close(&one);
    loop_close(&loop);
    end_guard(guard);
}

struct pinger {
    struct guarded *guarded;
    atomic_bool ends;
};

/* A peer that pings and reads all the time. */
static void *keep_pinging(void *argument)
{
    struct pinger *pinger = argument;
    uint8_t frame[WSO_CONTROL_FRAME], bytes[4096];
    static const uint8_t mask[4];
    size_t size = frame_make(frame, PING, mask, "flood", 5);
    while (!atomic_load(&pinger->ends)) {
        (void)!send(pinger->guarded->link.peer, frame, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)!recv(pinger->guarded->link.peer, bytes, sizeof bytes, MSG_DONTWAIT);
    }
    return NULL;
}

/* After its removal the guard's thread is not at the wire, whatever it was doing. */
TEST(a_wire_may_be_removed_at_any_moment)
{
    struct loop loop;
    struct guarded one, other;
    struct wso_guard *guard = new_guard();
    loop_open(&loop, guard);
    guarded_open(&other, &loop, NULL, WSO_NEVER);
    struct wso_wire_settings settings = link_settings;
    settings.ping_interval = 1;
    for (int i = 0; i < 60; i++) {
        pthread_t thread;
        guarded_open(&one, &loop, &settings, WSO_NEVER);
        struct pinger pinger = {.guarded = &one};
        CHECK_EQ(pthread_create(&thread, NULL, keep_pinging, &pinger), 0);
        /* Each third time as the stall begins, else in the middle of it. */
        WAIT_UNTIL(i % 3 == 0 || link_counts(&one.link).answered > 10);
        if (i % 2 == 0) {
            guarded_remove(&one);
        } else {
            struct wso_post *post = one.post;
            one.post = NULL;
            int status;
            while ((status = wso_ward_remove_try(post)) == WSO_EBUSY) {
            }
            CHECK_EQ(status, WSO_OK);
        }
        /* Nobody else is at the wire: the lock is free at once, and all counts stand still. */
        struct wso_wire_counts before, after;
        CHECK_EQ(wso_wire_counts(one.link.wire, &before), WSO_OK);
        wait_for_rounds(&loop, 1);
        CHECK_EQ(wso_wire_counts(one.link.wire, &after), WSO_OK);
        CHECK(before.answered == after.answered && before.pinged == after.pinged);
        atomic_store(&pinger.ends, true);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        guarded_close(&one);
        if (i % 5 == 0) {
            loop_turn(&loop);
        }
    }
    guarded_close(&other);
    loop_close(&loop);
    end_guard(guard);
}

/* What the loop's thread does while it is told of a wire. */
static void remove_it(struct guarded *guarded)
{
    if (guarded->post != NULL) {
        guarded_remove(guarded);
    }
}

TEST(a_wire_may_be_removed_when_the_loop_is_told_of_it_and_others_too)
{
    struct loop loop;
    struct wso_guard *guard = new_guard();
    loop_open(&loop, guard);
    for (int i = 0; i < 4; i++) {
        guarded_open(&many[i], &loop, NULL, WSO_NEVER);
        many[i].on_word = remove_it;
        peer_ping(&many[i].link, "ping");
        peer_send_frame(&many[i].link, TEXT, "text", 4);
    }
    for (int i = 0; i < 4; i++) {
        guarded_wait_for_pong(&many[i], "ping");
    }
    wait_for_rounds(&loop, 1);
    /* They have two words each, of which only the first is said. */
    guarded_remove(&many[3]);
    loop_turn(&loop);
    for (int i = 0; i < 4; i++) {
        CHECK(many[i].post == NULL);
        CHECK_EQ(many[i].ready, i < 3);
        CHECK_EQ(many[i].rescues, 0);
        guarded_close(&many[i]);
    }
    /* No wire was left, and now there is one again. */
    guarded_open(&many[0], &loop, NULL, WSO_NEVER);
    peer_ping(&many[0].link, "again");
    guarded_wait_for_pong(&many[0], "again");
    guarded_close(&many[0]);
    loop_close(&loop);
    end_guard(guard);
}

/* Stop this whole process for a while; in a child, which may only do what a signal handler may. */
static void stop_for(uint64_t ns)
{
    pid_t parent = getpid();
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct timespec time = {.tv_nsec = (long)ns};
        (void)kill(parent, SIGSTOP);
        (void)nanosleep(&time, NULL);
        (void)kill(parent, SIGCONT);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

TEST(the_guards_clock_leaves_out_the_time_in_which_it_could_not_run)
{
    enum { STOP = 200000000 };
    struct loop loop;
    struct guarded one;
    struct wso_guard *guard = new_guard();
    loop_open(&loop, guard);
    guarded_open(&one, &loop, NULL, WSO_NEVER);
    wait_for_rounds(&loop, 2);
    /* Once in a while it is stopped in the middle of its work, which is not noticed. */
    uint64_t left_out = 0;
    for (int i = 0; i < 10 && left_out < STOP - 2 * WSO_PULSE; i++) {
        uint64_t before = atomic_load(&guard->slept);
        stop_for(STOP);
        wait_for_rounds(&loop, 1);
        left_out = atomic_load(&guard->slept) - before;
    }
    CHECK(left_out >= STOP - 2 * WSO_PULSE);
    uint64_t now = wso_guard_now(guard);
    CHECK(now + left_out <= wso_now());
    guarded_close(&one);
    loop_close(&loop);
    end_guard(guard);
}
