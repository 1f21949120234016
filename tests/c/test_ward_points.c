/* Whatever happens between two steps of a round of the guard's thread, nothing is lost or left.
 *
 * The guard's thread has ended, and the test goes its rounds in a stall. Before the nth lock that a round
 * takes the loop's side does something; for each n until the round takes no more.
 */
#include <string.h>
#include <sys/epoll.h>

#include "loops.h"
#include "points.h"
#include "wire_inner.h"

#define SECOND WSO_NS_PER_S

enum { WIRES = 2 };

struct scene {
    struct loop loop;
    struct wso_guard *guard;
    struct guarded wires[WIRES], more;
    uint64_t now;
    int done; /* the action was called so often */
};

/* A loop whose wires have a Ping to answer and one of ours due, and that is late in the next round. */
static void scene_open(struct scene *scene)
{
    struct wso_wire_settings settings = link_settings;
    memset(scene, 0, sizeof *scene);
    settings.ping_interval = SECOND;
    scene->guard = new_guard();
    loop_open(&scene->loop, scene->guard);
    for (int i = 0; i < WIRES; i++) {
        guarded_open(&scene->wires[i], &scene->loop, &settings, WSO_NEVER);
    }
    wso_guard_stop(scene->guard);
    wso_bell_hush(&scene->guard->bell);
    loop_turn(&scene->loop);
    atomic_store(&scene->guard->stopping, false);
    /* In the past, as a clock that runs on shows a loop that is late. */
    scene->now = wso_guard_now(scene->guard) - 100 * SECOND;
    scene->loop.ward->ask_at = 0;
    scene->loop.ward->tick = scene->now / WSO_PULSE;
    for (int i = 0; i < WIRES; i++) {
        struct link *link = &scene->wires[i].link;
        CHECK_EQ(wso_wire_set_pings(link->wire, WSO_NEVER, WSO_NEVER, 0), WSO_OK);
        CHECK_EQ(wso_wire_set_pings(link->wire, SECOND, WSO_NEVER, scene->now - SECOND), WSO_OK);
        wso_ward_look(scene->wires[i].post);
        peer_ping(link, "theirs");
    }
    (void)wso_ward_round(scene->loop.ward, scene->now);
}

static void next_round(struct scene *scene)
{
    scene->now += WSO_PULSE;
    (void)wso_ward_round(scene->loop.ward, scene->now);
}

static void scene_close(struct scene *scene)
{
    atomic_store(&scene->guard->stopping, true);
    for (int i = 0; i < WIRES; i++) {
        guarded_close(&scene->wires[i]);
    }
    if (scene->more.loop != NULL) {
        guarded_close(&scene->more);
    }
    loop_close(&scene->loop);
    wso_guard_release(scene->guard);
}

/* Call `check` after a round in which `action` came before its nth lock, for each n; in the first round of
 * the stall and in a later one. Returns in how many places. */
static int at_each_point(void (*action)(void *scene), void (*check)(struct scene *scene))
{
    static struct scene scene;
    int places = 0;
    for (int later = 0; later <= 1; later++) {
        bool reached = true;
        for (int nth = 1; reached; nth++) {
            scene_open(&scene);
            if (later) {
                next_round(&scene);
                for (int i = 0; i < WIRES; i++) {
                    peer_ping(&scene.wires[i].link, "again");
                }
            }
            point_arm_mine(POINT_LOCK, nth, action, &scene);
            next_round(&scene);
            reached = point_was_reached();
            CHECK_EQ(scene.done, reached);
            places += reached;
            check(&scene);
            scene_close(&scene);
        }
    }
    return places;
}

static void change_settings(void *argument)
{
    struct scene *scene = argument;
    scene->done++;
    for (int i = 0; i < WIRES; i++) {
        struct link *link = &scene->wires[i].link;
        CHECK_EQ(wso_wire_set_pings(link->wire, 2, WSO_NEVER, 0), WSO_OK);
        wso_ward_look(scene->wires[i].post);
    }
}

static void check_new_settings(struct scene *scene)
{
    uint64_t sent[WIRES];
    for (int i = 0; i < WIRES; i++) {
        sent[i] = link_counts(&scene->wires[i].link).pinged;
    }
    next_round(scene);
    next_round(scene);
    for (int i = 0; i < WIRES; i++) {
        CHECK(scene->done == 0 || link_counts(&scene->wires[i].link).pinged > sent[i]);
    }
}

TEST(settings_that_change_at_any_point_of_a_round_are_looked_at)
{
    CHECK(at_each_point(change_settings, check_new_settings) > 10);
}

static void close_ward(void *argument)
{
    struct scene *scene = argument;
    scene->done++;
    wso_ward_close(scene->loop.ward);
}

static void check_closed(struct scene *scene)
{
    struct epoll_event event;
    if (scene->done) {
        CHECK(!wso_ward_late(scene->loop.ward));
        CHECK_EQ(epoll_wait(scene->guard->poll_fd, &event, 1, 0), 0);
        /* The thread comes by no more, but perhaps with a share that it has already. */
        next_round(scene);
        for (int i = 0; i < WIRES; i++) {
            struct guarded *wire = &scene->wires[i];
            uint64_t answered = link_counts(&wire->link).answered;
            peer_ping(&wire->link, "to nobody");
            next_round(scene);
            CHECK_EQ(link_counts(&wire->link).answered, answered);
        }
        CHECK_EQ(epoll_wait(scene->guard->poll_fd, &event, 1, 0), 0);
    }
}

TEST(a_ward_that_is_closed_at_any_point_of_a_round_is_silent_and_wakes_nobody)
{
    CHECK(at_each_point(close_ward, check_closed) > 10);
}

static void take_mail(void *argument)
{
    struct scene *scene = argument;
    scene->done++;
    loop_turn(&scene->loop);
}

/* The loop is back for a moment: what was read is told it, once, and what comes next is served. */
static void check_served(struct scene *scene)
{
    next_round(scene);
    loop_turn(&scene->loop);
    next_round(scene);
    loop_turn(&scene->loop);
    for (int i = 0; i < WIRES; i++) {
        struct guarded *wire = &scene->wires[i];
        CHECK(wire->dead == 0 && wire->ready == 0);
        uint64_t told = link_counts(&wire->link).rescues;
        CHECK_EQ(told, wire->rescues);
        if (wire->link.news.received == 0) {
            (void)link_receive(&wire->link);
        }
        CHECK(link_counts(&wire->link).answered > 0);
    }
    next_round(scene);
    next_round(scene);
    CHECK(wso_ward_late(scene->loop.ward));
    peer_ping(&scene->wires[0].link, "in the next stall");
    next_round(scene);
    struct frame frame = {.first = 0};
    bool served = false;
    while (guarded_peer_got(&scene->wires[0], &frame)) {
        served = frame.first == PONG && frame.size == strlen("in the next stall");
    }
    CHECK(served);
}

TEST(a_loop_that_answers_at_any_point_of_a_round_is_told_what_was_done)
{
    CHECK(at_each_point(take_mail, check_served) > 10);
}

static void remove_wires(void *argument)
{
    struct scene *scene = argument;
    scene->done++;
    for (int i = 0; i < WIRES; i++) {
        struct wso_post *post = scene->wires[i].post;
        if (wso_ward_remove_try(post) == WSO_OK) {
            scene->wires[i].post = NULL;
            CHECK_EQ(wso_wire_retire(scene->wires[i].link.wire, true), WSO_OK);
        }
    }
}

static void check_removed(struct scene *scene)
{
    next_round(scene);
    next_round(scene);
    loop_turn(&scene->loop);
    size_t left = 0;
    for (int i = 0; i < WIRES; i++) {
        left += scene->wires[i].post != NULL;
    }
    CHECK_EQ(scene->loop.ward->count, left);
}

TEST(wires_may_be_removed_at_any_point_of_a_round)
{
    CHECK(at_each_point(remove_wires, check_removed) > 10);
}

static void add_wire(void *argument)
{
    struct scene *scene = argument;
    scene->done++;
    guarded_open(&scene->more, &scene->loop, NULL, WSO_NEVER);
    peer_ping(&scene->more.link, "new");
}

static void check_added(struct scene *scene)
{
    next_round(scene);
    if (scene->done) {
        peer_expect_pong(&scene->more.link, "new");
    }
}

TEST(a_wire_that_is_added_at_any_point_of_a_round_is_served)
{
    CHECK(at_each_point(add_wire, check_added) > 10);
}

enum { MANY = 70, BATCH = 64 };

static struct guarded many[MANY];
static uint64_t answered_before;

static uint64_t answered(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < MANY; i++) {
        sum += link_counts(&many[i].link).answered;
    }
    return sum;
}

static void close_it(void *argument)
{
    answered_before = answered();
    wso_ward_close(argument);
}

TEST(of_a_ward_that_is_closed_the_thread_finishes_one_batch)
{
    for (int nth = 1; nth <= 12; nth++) {
        struct loop loop;
        struct wso_guard *guard = new_guard();
        loop_open(&loop, guard);
        for (int i = 0; i < MANY; i++) {
            guarded_open(&many[i], &loop, NULL, WSO_NEVER);
            peer_ping(&many[i].link, "ping");
        }
        wso_guard_stop(guard);
        loop_turn(&loop);
        atomic_store(&guard->stopping, false);
        uint64_t now = wso_guard_now(guard) - 100 * SECOND;
        loop.ward->ask_at = 0;
        (void)wso_ward_round(loop.ward, now);
        point_arm_mine(POINT_LOCK, nth, close_it, loop.ward);
        (void)wso_ward_round(loop.ward, now + WSO_PULSE);
        CHECK(point_was_reached());
        CHECK(answered() - answered_before <= BATCH);
        atomic_store(&guard->stopping, true);
        for (int i = 0; i < MANY; i++) {
            guarded_close(&many[i]);
        }
        loop_close(&loop);
        wso_guard_release(guard);
    }
}
