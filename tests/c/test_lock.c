/* lock.h: exclusion, waiting, and what debug builds refuse. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "lock.h"

enum { THREADS = 4, ROUNDS = 2000 };

static struct wso_lock lock;
static struct wso_cond cond;
static int counter;

static void *count_up(void *argument)
{
    (void)argument;
    for (int i = 0; i < ROUNDS; i++) {
        wso_lock_acquire(&lock);
        counter++;
        wso_lock_release(&lock);
    }
    return NULL;
}

TEST(one_thread_at_a_time)
{
    counter = 0;
    CHECK_EQ(wso_lock_init(&lock), WSO_OK);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, count_up, NULL), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
    CHECK_EQ(counter, THREADS * ROUNDS);
    wso_lock_destroy(&lock);
}

static void *signal_cond(void *argument)
{
    (void)argument;
    wso_lock_acquire(&lock);
    counter = 1;
    wso_cond_signal(&cond);
    wso_lock_release(&lock);
    return NULL;
}

/* Returns only when the signal came: with no deadline, and with the farthest there is. */
static void wait_for_signal(uint64_t deadline)
{
    pthread_t thread;
    counter = 0;
    wso_lock_acquire(&lock);
    CHECK_EQ(pthread_create(&thread, NULL, signal_cond, NULL), 0);
    while (counter == 0) {
        wso_cond_wait(&cond, &lock, deadline);
    }
    wso_lock_release(&lock);
    CHECK_EQ(pthread_join(thread, NULL), 0);
}

TEST(a_signal_ends_a_wait)
{
    CHECK_EQ(wso_lock_init(&lock), WSO_OK);
    CHECK_EQ(wso_cond_init(&cond), WSO_OK);
    wait_for_signal(WSO_NEVER);
    wait_for_signal(WSO_NEVER - 1);
    wso_cond_destroy(&cond);
    wso_lock_destroy(&lock);
}

TEST(a_deadline_ends_a_wait_and_not_before)
{
    CHECK_EQ(wso_lock_init(&lock), WSO_OK);
    CHECK_EQ(wso_cond_init(&cond), WSO_OK);
    uint64_t deadline = wso_deadline_after(check_ms(5));
    wso_lock_acquire(&lock);
    unsigned waits = 0;
    while (wso_now() < deadline) {
        wso_cond_wait(&cond, &lock, deadline);
        waits++;
    }
    wso_lock_release(&lock);
    /* A deadline on another clock would be in the past, and this a loop that spins. */
    CHECK(waits < 100);
    wso_cond_destroy(&cond);
    wso_lock_destroy(&lock);
}

#ifdef WSO_DEBUG
/* The function ends its process by an assertion. */
static void check_aborts(void (*function)(void))
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        (void)close(STDERR_FILENO);
        function();
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static struct wso_lock second;

static void take_twice(void)
{
    wso_lock_acquire(&lock);
    wso_lock_acquire(&lock);
}

static void take_another(void)
{
    wso_lock_acquire(&lock);
    wso_lock_acquire(&second);
}

static void release_untaken(void)
{
    wso_lock_release(&lock);
}

static void *hold(void *argument)
{
    wso_lock_acquire(&lock);
    atomic_store((atomic_bool *)argument, true);
    WAIT_UNTIL(false);
    return NULL;
}

static void release_of_another(void)
{
    pthread_t thread;
    atomic_bool held = false;
    CHECK_EQ(pthread_create(&thread, NULL, hold, &held), 0);
    WAIT_UNTIL(atomic_load(&held));
    wso_lock_release(&lock);
}

static void wait_unheld(void)
{
    wso_cond_wait(&cond, &lock, 0);
}

TEST(one_lock_at_a_time)
{
    CHECK_EQ(wso_lock_init(&lock), WSO_OK);
    CHECK_EQ(wso_lock_init(&second), WSO_OK);
    CHECK_EQ(wso_cond_init(&cond), WSO_OK);
    CHECK_EQ(wso_locks_held, 0);
    wso_lock_acquire(&lock);
    CHECK_EQ(wso_locks_held, 1);
    CHECK(wso_lock_is_mine(&lock) && !wso_lock_is_mine(&second));
    wso_cond_wait(&cond, &lock, 0);
    CHECK(wso_lock_is_mine(&lock) && wso_locks_held == 1);
    wso_lock_release(&lock);
    CHECK_EQ(wso_locks_held, 0);
    CHECK(!wso_lock_is_mine(&lock));
    check_aborts(take_another);
    check_aborts(take_twice);
    check_aborts(release_untaken);
    check_aborts(release_of_another);
    check_aborts(wait_unheld);
    wso_cond_destroy(&cond);
    wso_lock_destroy(&second);
    wso_lock_destroy(&lock);
}
#endif
