/* thread.h: name, stack, signals, join. */
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "check.h"
#include "error.h"
#include "thread.h"

/* What a thread sees of itself, after the creator is through with its start. */
struct view {
    atomic_bool started;
    char name[32];
    size_t stack_size;
    sigset_t mask;
};

static void *look(void *argument)
{
    struct view *view = argument;
    WAIT_UNTIL(atomic_load(&view->started));
    CHECK_EQ(pthread_getname_np(pthread_self(), view->name, sizeof view->name), 0);
    pthread_attr_t attributes;
    CHECK_EQ(pthread_getattr_np(pthread_self(), &attributes), 0);
    CHECK_EQ(pthread_attr_getstacksize(&attributes, &view->stack_size), 0);
    CHECK_EQ(pthread_attr_destroy(&attributes), 0);
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &view->mask), 0);
    return NULL;
}

static struct view view_of(const struct wso_thread_options *options)
{
    struct view view = {0};
    struct wso_thread thread;
    CHECK_EQ(wso_thread_start(&thread, options, look, &view), WSO_OK);
    atomic_store(&view.started, true);
    wso_thread_join(&thread);
    return view;
}

TEST(the_kernel_shows_15_bytes_of_the_name)
{
    CHECK(strcmp(view_of(&(struct wso_thread_options){.name = "short"}).name, "short") == 0);
    struct view view = view_of(&(struct wso_thread_options){.name = "0123456789abcdef"});
    CHECK(strcmp(view.name, "0123456789abcde") == 0);
}

TEST(the_stack_has_the_size_asked_for)
{
    /* Larger than any default; a smaller stack might be one that the C library kept for reuse. */
    const size_t large[] = {96u << 20, 192u << 20};
    for (int i = 0; i < 2; i++) {
        struct wso_thread_options options = {.name = "", .stack_size = large[i]};
        CHECK(view_of(&options).stack_size >= large[i]);
    }
    CHECK(view_of(&(struct wso_thread_options){.name = ""}).stack_size > 0);
}

TEST(a_stack_too_small_is_made_as_small_as_may_be)
{
    size_t size = view_of(&(struct wso_thread_options){.name = "", .stack_size = 1}).stack_size;
    CHECK(size >= (size_t)PTHREAD_STACK_MIN);
}

TEST(a_stack_too_large_is_an_error)
{
    struct wso_thread thread;
    struct view view = {0};
    struct wso_thread_options options = {.name = "", .stack_size = SIZE_MAX / 2};
    CHECK_EQ(wso_thread_start(&thread, &options, look, &view), WSO_ETHREAD);
}

TEST(a_worker_keeps_its_creators_mask)
{
    sigset_t one, before;
    CHECK_EQ(sigemptyset(&one) | sigaddset(&one, SIGUSR1), 0);
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, &one, &before), 0);
    struct view view = view_of(&(struct wso_thread_options){.name = ""});
    CHECK_EQ(sigismember(&view.mask, SIGUSR1), 1);
    CHECK_EQ(sigismember(&view.mask, SIGUSR2), 0);
    CHECK_EQ(sigismember(&view.mask, SIGTERM), 0);
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
}

TEST(a_service_thread_blocks_all_but_the_synchronous_signals)
{
    struct view view = view_of(&(struct wso_thread_options){.name = "", .block_signals = true});
    for (int number = 1; number < 32; number++) {
        bool synchronous = number == SIGSEGV || number == SIGBUS || number == SIGFPE ||
                           number == SIGILL || number == SIGTRAP || number == SIGSYS;
        bool unblockable = number == SIGKILL || number == SIGSTOP;
        CHECK_EQ(sigismember(&view.mask, number), !synchronous && !unblockable);
    }
    /* The creator's own mask is as before. */
    sigset_t mine;
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &mine), 0);
    CHECK_EQ(sigismember(&mine, SIGUSR1), 0);
    CHECK_EQ(sigismember(&mine, SIGINT), 0);
}

static void *look_at_policy(void *argument)
{
    *(int *)argument = sched_getscheduler(0);
    return NULL;
}

/* Twice, because the second call finds another policy than the usual one and leaves it. */
static void *let_waker_finish(void *argument)
{
    int *policies = argument;
    struct wso_thread thread;
    struct wso_thread_options options = {.name = "child"};
    for (int i = 0; i < 2; i++) {
        wso_thread_let_waker_finish();
        policies[i] = sched_getscheduler(0);
    }
    CHECK_EQ(wso_thread_start(&thread, &options, look_at_policy, &policies[2]), WSO_OK);
    wso_thread_join(&thread);
    return NULL;
}

/* Whether this process may ask for that policy: a sandbox can forbid it. */
static void *try_policy(void *argument)
{
    const struct sched_param none = {0};
    *(bool *)argument = sched_setscheduler(0, SCHED_BATCH, &none) == 0;
    return NULL;
}

TEST(a_thread_and_what_it_starts_let_their_wakers_finish)
{
    int before = sched_getscheduler(0), policies[3];
    bool allowed;
    struct wso_thread thread;
    struct wso_thread_options options = {.name = "batch"};
    CHECK_EQ(wso_thread_start(&thread, &options, try_policy, &allowed), WSO_OK);
    wso_thread_join(&thread);
    CHECK_EQ(wso_thread_start(&thread, &options, let_waker_finish, policies), WSO_OK);
    wso_thread_join(&thread);
    /* A process that was given another policy keeps it. */
    CHECK_EQ(policies[0], allowed && before == SCHED_OTHER ? SCHED_BATCH : before);
    CHECK_EQ(policies[1], policies[0]);
    CHECK_EQ(policies[2], policies[0]);
    CHECK_EQ(sched_getscheduler(0), before);
}

static void *set_late(void *argument)
{
    for (int i = 0; i < 10; i++) {
        check_nap();
    }
    *(int *)argument = 1;
    return NULL;
}

TEST(join_returns_when_the_thread_has_ended)
{
    int set = 0;
    struct wso_thread thread;
    struct wso_thread_options options = {.name = "late"};
    CHECK_EQ(wso_thread_start(&thread, &options, set_late, &set), WSO_OK);
    wso_thread_join(&thread);
    CHECK_EQ(set, 1);
}
