/* Each resource of the guard is refused in turn: nothing is left, and the connection works on, unguarded
 * at worst.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "faults.h"
#include "loops.h"

/* How the last scenario went. */
static int unguarded, guarded;

/* The library's side, which asks nothing of the guard: it gets the text, and the Ping is answered by the
 * guard, by this call, or by the library. */
static void check_served(struct link *link)
{
    struct frame frame;
    bool pong = false;
    while (link->received_size == 0 || !memchr(link->received, 't', link->received_size)) {
        (void)link_receive(link);
    }
    while (peer_read(link, LINK_BYTES) > 0) {
    }
    while (peer_next(link, &frame)) {
        pong = pong || frame.first == PONG;
    }
    /* Masked with this mask, "ttttt" is what it is. */
    size_t ping = pong ? 0 : 6 + 5;
    CHECK_EQ(link->received_size, ping + 6 + 5);
}

/* A stall of some rounds, if there is a guard, and then the loop again. */
static void stall(struct loop *loop, struct link *link)
{
    static const uint8_t mask[4];
    uint8_t frames[64];
    size_t size = frame_make(frames, PING, mask, "xxxxx", 5);
    size += frame_make(frames + size, TEXT, mask, "ttttt", 5);
    peer_send(link, frames, size);
    if (loop != NULL) {
        wait_for_rounds(loop, 3);
    }
    check_served(link);
}

static bool told;

static void deliver(void *owner)
{
    struct loop *loop = owner;
    unsigned words;
    struct wso_rescue rescue;
    while (wso_ward_next(loop->ward, &words, &rescue) != NULL) {
        told = true;
    }
}

static int guard_it(struct loop *loop, struct link *link, struct wso_post **post)
{
    int status = wso_guard_new(&loop->guard);
    CHECK_EQ(loop->guard == NULL, status != WSO_OK);
    if (status == WSO_OK) {
        status = wso_mailbox_new(&loop->mailbox);
    }
    if (status == WSO_OK) {
        status = wso_ward_new(loop->guard, loop->mailbox, deliver, loop, &loop->ward);
        CHECK_EQ(loop->ward == NULL, status != WSO_OK);
    }
    if (status == WSO_OK) {
        status = wso_wire_start(link->wire, &link_settings, wso_guard_now(loop->guard));
    }
    if (status == WSO_OK) {
        status = wso_ward_add(loop->ward, link->wire, link->fd, WSO_NEVER, link, post);
        CHECK_EQ(*post == NULL, status != WSO_OK);
    }
    return status;
}

static void live(void)
{
    struct loop loop = {.guard = NULL};
    struct link link;
    struct wso_post *post = NULL;
    fault_spare(true);
    link_open(&link, WSO_SERVER);
    fault_spare(false);
    int status = guard_it(&loop, &link, &post);
    CHECK(status == WSO_OK || status == WSO_ENOMEM || status == WSO_EDESCRIPTOR ||
          status == WSO_ETHREAD);
    guarded += status == WSO_OK;
    unguarded += status != WSO_OK;
    stall(post != NULL ? &loop : NULL, &link);
    if (loop.mailbox != NULL) {
        loop_turn(&loop);
    }
    if (post != NULL) {
        wso_ward_remove(post);
    }
    if (loop.ward != NULL) {
        loop_close(&loop);
    } else if (loop.mailbox != NULL) {
        struct wso_list left;
        wso_list_init(&left);
        wso_mailbox_close(loop.mailbox, &left);
        wso_mailbox_release(loop.mailbox);
    }
    if (loop.guard != NULL) {
        end_guard(loop.guard);
    }
    link_close(&link);
}

static void live_with(enum fault kind, int error, bool may_refuse)
{
    guarded = unguarded = 0;
    fault_each(kind, error, live);
    CHECK(guarded > 0);
    CHECK_EQ(unguarded > 0, may_refuse);
}

TEST(a_guard_without_memory_is_none)
{
    live_with(FAULT_ALLOCATION, ENOMEM, true);
    live_with(FAULT_MUTEX, 0, true);
    live_with(FAULT_CONDITION, 0, true);
    live_with(FAULT_ATTRIBUTES, 0, true);
}

TEST(a_guard_without_a_thread_is_none)
{
    live_with(FAULT_THREAD, 0, true);
}

TEST(a_guard_without_descriptors_is_none)
{
    live_with(FAULT_DESCRIPTOR, EMFILE, true);
    live_with(FAULT_DESCRIPTOR, ENFILE, true);
    live_with(FAULT_DESCRIPTOR, ENOMEM, true);
}

TEST(a_guard_that_cannot_poll_a_wire_does_not_serve_it)
{
    live_with(FAULT_POLL, ENOMEM, true);
    live_with(FAULT_POLL, ENOSPC, true);
}

TEST(a_guard_without_pages_reads_nothing_ahead)
{
    live_with(FAULT_MAPPING, ENOMEM, false);
}

TEST(a_guard_whose_waiting_is_interrupted_goes_on)
{
    live_with(FAULT_WAIT, EINTR, false);
}

/* Rounds of a guard whose thread has ended, in a stall that goes on. */
TEST(a_poll_set_that_could_not_be_changed_is_changed_later)
{
    static uint8_t payload[300000];
    struct guarded one;
    struct loop loop;
    struct wso_guard *guard = new_guard();
    loop_open(&loop, guard);
    guarded_open(&one, &loop, NULL, WSO_NEVER);
    wso_guard_stop(guard);
    loop_turn(&loop);
    atomic_store(&guard->stopping, false);
    uint64_t now = wso_guard_now(guard) - 1000 * WSO_PULSE;
    loop.ward->ask_at = 0;
    (void)wso_ward_round(loop.ward, now);

    /* The output is blocked, and the wire is to be polled for writing. */
    link_send_frame(&one.link, BINARY, payload, sizeof payload);
    CHECK(one.link.news.want_write);
    fault_arm(FAULT_POLL, 2, true);
    (void)wso_ward_round(loop.ward, now += WSO_PULSE);
    CHECK_EQ(fault_disarm(), 1);
    CHECK_EQ(one.post->events, EPOLLIN);
    peer_ping(&one.link, "tries again");
    (void)wso_ward_round(loop.ward, now += WSO_PULSE);
    CHECK_EQ(one.post->events, EPOLLIN | EPOLLOUT);

    /* It is full and leaves the set, and cannot come back as the next stall begins. */
    peer_send_frame(&one.link, BINARY, payload, 100000);
    while (peer_read(&one.link, LINK_BYTES) > 0) {
        (void)wso_ward_round(loop.ward, now += WSO_PULSE);
    }
    CHECK_EQ(one.post->events, 0);
    loop_turn(&loop);
    CHECK(link_receive(&one.link) > 100000);
    (void)wso_ward_round(loop.ward, now += WSO_PULSE);
    CHECK(!wso_ward_late(loop.ward));
    fault_arm(FAULT_POLL, 2, true);
    (void)wso_ward_round(loop.ward, now += WSO_PULSE);
    CHECK_EQ(fault_disarm(), 1);
    CHECK_EQ(one.post->events, 0);
    loop_turn(&loop);
    (void)wso_ward_round(loop.ward, now += WSO_PULSE);
    (void)wso_ward_round(loop.ward, now += WSO_PULSE);
    CHECK_EQ(one.post->events, EPOLLIN);
    atomic_store(&guard->stopping, true);
    guarded_close(&one);
    loop_close(&loop);
    wso_guard_release(guard);
}

TEST(a_refusal_says_what_failed)
{
    struct loop loop = {.guard = NULL};
    fault_arm(FAULT_DESCRIPTOR, 2, false);
    fault_errno(ENFILE);
    errno = 0;
    CHECK_EQ(wso_guard_new(&loop.guard), WSO_EDESCRIPTOR);
    CHECK_EQ(errno, ENFILE);
    CHECK_EQ(fault_disarm(), 1);
    fault_arm(FAULT_POLL, 1, false);
    fault_errno(ENOSPC);
    CHECK_EQ(wso_guard_new(&loop.guard), WSO_EDESCRIPTOR);
    CHECK_EQ(errno, ENOSPC);
    CHECK_EQ(fault_disarm(), 1);

    loop.guard = new_guard();
    CHECK_EQ(wso_mailbox_new(&loop.mailbox), WSO_OK);
    fault_arm(FAULT_DESCRIPTOR, 1, false);
    fault_errno(EMFILE);
    CHECK_EQ(wso_ward_new(loop.guard, loop.mailbox, deliver, &loop, &loop.ward), WSO_EDESCRIPTOR);
    CHECK_EQ(errno, EMFILE);
    CHECK_EQ(fault_disarm(), 1);
    CHECK_EQ(wso_ward_new(loop.guard, loop.mailbox, deliver, &loop, &loop.ward), WSO_OK);

    struct link link;
    struct wso_post *post;
    link_open(&link, WSO_SERVER);
    link_start(&link);
    fault_arm(FAULT_POLL, 1, false);
    fault_errno(ENOSPC);
    CHECK_EQ(wso_ward_add(loop.ward, link.wire, link.fd, 1, &link, &post), WSO_EDESCRIPTOR);
    CHECK_EQ(errno, ENOSPC);
    CHECK_EQ(fault_disarm(), 1);
    fault_errno(0);
    CHECK(post == NULL);
    link_close(&link);
    loop_close(&loop);
    end_guard(loop.guard);
}
