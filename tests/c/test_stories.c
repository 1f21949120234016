/* Bell and mailbox, interrupted at each point where another thread can come between.
 *
 * Each test says in its name who is interrupted by whom. Afterwards no mail may be forgotten: it was
 * taken, or the descriptor is readable; and the bell must still ring.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "check.h"
#include "mailbox.h"
#include "points.h"

static struct wso_mailbox *box;
static struct wso_mail letters[3];
static struct wso_list taken;

static bool readable(int fd)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    return poll(&poller, 1, 0) == 1;
}

static int count_taken(void)
{
    int count = 0;
    for (struct wso_link *link = taken.head.next; link != &taken.head; link = link->next) {
        count++;
    }
    return count;
}

static void post_and_ring(void *argument)
{
    CHECK_EQ(wso_mailbox_post(box, argument), WSO_OK);
    wso_mailbox_ring(box);
}

static void take(void *argument)
{
    (void)argument;
    wso_mailbox_take(box, &taken);
}

static void open_box(void)
{
    CHECK_EQ(wso_mailbox_new(&box), WSO_OK);
    wso_list_init(&taken);
    for (int i = 0; i < 3; i++) {
        letters[i] = (struct wso_mail){.deliver = NULL};
    }
}

/* The loop goes on taking for as long as it is woken; then all `posted` letters are there. */
static void check_nothing_lost(int posted)
{
    while (readable(wso_mailbox_fd(box))) {
        wso_mailbox_take(box, &taken);
    }
    CHECK_EQ(count_taken(), posted);
    post_and_ring(&letters[2]);
    CHECK(readable(wso_mailbox_fd(box)));
    wso_mailbox_take(box, &taken);
    CHECK_EQ(count_taken(), posted + 1);
    CHECK(!readable(wso_mailbox_fd(box)));
    struct wso_list left;
    wso_list_init(&left);
    wso_mailbox_close(box, &left);
    CHECK(wso_list_empty(&left));
    wso_mailbox_release(box);
}

/* The action in a thread of its own, from start to end. */
struct elsewhere {
    void (*action)(void *argument);
    void *argument;
};

static void *act(void *argument)
{
    struct elsewhere *elsewhere = argument;
    elsewhere->action(elsewhere->argument);
    return NULL;
}

static void run_elsewhere(void *argument)
{
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, act, argument), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
}

/* Interrupt `interrupted` at the nth point of a kind; false when it has fewer of them. */
static bool interrupt_at(enum point kind, int nth, struct elsewhere *interrupted,
                         struct elsewhere *action)
{
    point_arm(kind, nth, run_elsewhere, action);
    interrupted->action(interrupted->argument);
    return point_was_reached();
}

TEST(a_take_after_a_ring_is_interrupted_by_a_ring)
{
    const enum point kinds[] = {POINT_LOCK, POINT_READ, POINT_READ_DONE};
    for (int i = 0; i < 3; i++) {
        for (int nth = 1;; nth++) {
            open_box();
            post_and_ring(&letters[0]);
            bool reached =
                interrupt_at(kinds[i], nth, &(struct elsewhere){take, NULL},
                             &(struct elsewhere){post_and_ring, &letters[1]});
            check_nothing_lost(reached ? 2 : 1);
            if (!reached) {
                CHECK(nth > 1);
                break;
            }
        }
    }
}

TEST(a_take_without_a_ring_is_interrupted_by_a_ring)
{
    const enum point kinds[] = {POINT_LOCK, POINT_READ, POINT_READ_DONE};
    for (int i = 0; i < 3; i++) {
        open_box();
        CHECK(interrupt_at(kinds[i], 1, &(struct elsewhere){take, NULL},
                           &(struct elsewhere){post_and_ring, &letters[1]}));
        check_nothing_lost(1);
    }
}

TEST(a_ring_is_interrupted_by_a_take)
{
    const enum point kinds[] = {POINT_LOCK, POINT_WRITE};
    for (int i = 0; i < 2; i++) {
        for (int nth = 1;; nth++) {
            open_box();
            bool reached =
                interrupt_at(kinds[i], nth, &(struct elsewhere){post_and_ring, &letters[0]},
                             &(struct elsewhere){take, NULL});
            check_nothing_lost(1);
            if (!reached) {
                CHECK(nth > 1);
                break;
            }
        }
    }
}

TEST(a_ring_is_interrupted_by_a_ring)
{
    for (int nth = 1; nth <= 2; nth++) {
        open_box();
        CHECK(interrupt_at(POINT_LOCK, nth, &(struct elsewhere){post_and_ring, &letters[0]},
                           &(struct elsewhere){post_and_ring, &letters[1]}));
        check_nothing_lost(2);
    }
}

/* A ring comes while a second one, whose thread has not written yet, was hushed already. */
static void take_and_ring(void *argument)
{
    take(NULL);
    post_and_ring(argument);
}

TEST(a_ring_is_interrupted_by_a_take_and_another_ring)
{
    open_box();
    CHECK(interrupt_at(POINT_LOCK, 2, &(struct elsewhere){post_and_ring, &letters[0]},
                       &(struct elsewhere){take_and_ring, &letters[1]}));
    check_nothing_lost(2);
}

/* 1. A ringer is about to write. 2. The loop closes. 3. The number of the descriptor must not be free
 * before the ringer has written. */
static struct wso_bell bell;
static atomic_bool closed;
static pthread_t closer;

static void *close_bell(void *argument)
{
    (void)argument;
    wso_bell_close(&bell);
    atomic_store(&closed, true);
    return NULL;
}

static void start_to_close(void *argument)
{
    CHECK_EQ(pthread_create(&closer, NULL, close_bell, NULL), 0);
    for (int naps = 0; naps < 200 && !atomic_load(&closed); naps++) {
        check_nap();
    }
    CHECK(fcntl(*(int *)argument, F_GETFD) >= 0);
}

TEST(gone_means_gone_to_a_ringer_that_is_about_to_write)
{
    CHECK_EQ(wso_bell_open(&bell), WSO_OK);
    int fd = wso_bell_fd(&bell);
    atomic_store(&closed, false);
    point_arm(POINT_WRITE, 1, start_to_close, &fd);
    wso_bell_ring(&bell);
    CHECK(point_was_reached());
    CHECK_EQ(pthread_join(closer, NULL), 0);
    CHECK(fcntl(fd, F_GETFD) < 0 && errno == EBADF);
    wso_bell_destroy(&bell);
}

/* 1. A ringer has found the bell silent and is about to take its lock. 2. The loop closes, and a pipe
 * gets the number of the descriptor. 3. The ringer goes on: the pipe gets no byte. */
static void close_and_reuse(void *argument)
{
    int *fds = argument;
    wso_bell_close(&bell);
    CHECK_EQ(dup2(fds[1], fds[2]), fds[2]);
}

TEST(gone_means_gone_to_a_ringer_that_found_the_bell_silent)
{
    int fds[3];
    CHECK_EQ(wso_bell_open(&bell), WSO_OK);
    fds[2] = wso_bell_fd(&bell);
    CHECK_EQ(pipe2(fds, O_NONBLOCK), 0);
    point_arm(POINT_LOCK, 1, close_and_reuse, fds);
    wso_bell_ring(&bell);
    CHECK(point_was_reached());
    CHECK(!readable(fds[0]));
    CHECK_EQ(atomic_load(&bell.rings), 0);
    wso_bell_destroy(&bell);
    CHECK_EQ(close(fds[0]) | close(fds[1]) | close(fds[2]), 0);
}

TEST(a_signal_in_the_middle_changes_nothing)
{
    CHECK_EQ(wso_bell_open(&bell), WSO_OK);
    points_interrupt(2);
    wso_bell_ring(&bell);
    CHECK(readable(wso_bell_fd(&bell)));
    points_interrupt(2);
    wso_bell_hush(&bell);
    CHECK(!readable(wso_bell_fd(&bell)));
    CHECK_EQ(atomic_load(&bell.rings), 1);
    wso_bell_destroy(&bell);
}

TEST(a_full_counter_is_readable_all_the_same)
{
    CHECK_EQ(wso_bell_open(&bell), WSO_OK);
    const uint64_t most = UINT64_MAX - 1;
    CHECK_EQ(write(wso_bell_fd(&bell), &most, sizeof most), sizeof most);
    wso_bell_ring(&bell);
    CHECK(readable(wso_bell_fd(&bell)));
    wso_bell_hush(&bell);
    CHECK(!readable(wso_bell_fd(&bell)));
    wso_bell_destroy(&bell);
}
