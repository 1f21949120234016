/* pool.h: jobs run once and in order, on threads that start on demand and end when idle. */
#include <signal.h>
#include <string.h>

#include "check.h"
#include "kit.h"

static bool done(struct task *task)
{
    return atomic_load(&task->dones) == 1;
}

TEST(a_job_runs_once_on_a_thread_of_the_pool)
{
    struct watch watch = {0};
    struct task task;
    struct wso_pool *pool = kit_pool(1, 0, WSO_WHEN_FULL_WAIT, &watch);
    CHECK_EQ(atomic_load(&watch.prepares), 0);
    task_init(&task, NULL);
    CHECK_EQ(kit_submit(pool, &task), WSO_OK);
    WAIT_UNTIL(done(&task));
    CHECK_EQ(atomic_load(&task.status), WSO_OK);
    CHECK(pthread_equal(task.ran_on, task.done_on));
    CHECK(!pthread_equal(task.ran_on, pthread_self()));
    kit_finish(pool);
    CHECK_EQ(atomic_load(&task.dones), 1);
    CHECK_EQ(atomic_load(&watch.begins), 1);
    CHECK_EQ(atomic_load(&watch.ends), 1);
    CHECK_EQ(atomic_load(&watch.unprepares), 0);
}

TEST(a_pool_without_jobs_has_no_thread)
{
    struct watch watch = {0};
    kit_finish(kit_pool(4, 2, WSO_WHEN_FULL_WAIT, &watch));
    CHECK_EQ(atomic_load(&watch.prepares), 0);
}

TEST(jobs_start_in_the_order_in_which_they_came)
{
    enum { JOBS = 50 };
    struct task tasks[JOBS];
    atomic_bool open = false;
    struct wso_pool *pool = kit_pool(1, 0, WSO_WHEN_FULL_WAIT, NULL);
    kit_reset_order();
    for (int i = 0; i < JOBS; i++) {
        task_init(&tasks[i], &open);
        CHECK_EQ(kit_submit(pool, &tasks[i]), WSO_OK);
    }
    WAIT_UNTIL(kit_stats(pool).running == 1);
    CHECK_EQ(kit_stats(pool).queued, JOBS - 1);
    atomic_store(&open, true);
    kit_finish(pool);
    for (int i = 0; i < JOBS; i++) {
        CHECK_EQ(atomic_load(&tasks[i].order), i + 1);
    }
}

TEST(threads_start_on_demand_and_no_more_than_the_maximum)
{
    enum { THREADS = 3, JOBS = 6 };
    struct task tasks[JOBS];
    struct watch watch = {0};
    atomic_bool open = false;
    struct wso_pool *pool = kit_pool(THREADS, 0, WSO_WHEN_FULL_WAIT, &watch);
    for (unsigned i = 0; i < JOBS; i++) {
        task_init(&tasks[i], &open);
        CHECK_EQ(kit_submit(pool, &tasks[i]), WSO_OK);
        unsigned expected = i + 1 < THREADS ? i + 1 : THREADS;
        CHECK_EQ(kit_stats(pool).threads, expected);
        WAIT_UNTIL(kit_stats(pool).running == expected);
    }
    CHECK_EQ(kit_stats(pool).queued, JOBS - THREADS);
    CHECK_EQ(kit_stats(pool).started, THREADS);
    atomic_store(&open, true);
    kit_finish(pool);
    CHECK_EQ(atomic_load(&watch.begins), THREADS);
    CHECK_EQ(atomic_load(&watch.ends), THREADS);
}

TEST(no_second_thread_is_started_for_sequential_jobs)
{
    enum { JOBS = 300 };
    struct task task;
    struct wso_pool *pool = kit_pool(8, 0, WSO_WHEN_FULL_WAIT, NULL);
    for (uint64_t i = 0; i < JOBS; i++) {
        /* Now the thread is between two jobs, about to sleep, or asleep. */
        WAIT_UNTIL(kit_stats(pool).completed == i);
        task_init(&task, NULL);
        CHECK_EQ(kit_submit(pool, &task), WSO_OK);
    }
    WAIT_UNTIL(kit_stats(pool).completed == JOBS);
    CHECK_EQ(kit_stats(pool).started, 1);
    kit_finish(pool);
}

TEST(a_thread_that_is_about_to_sleep_takes_the_next_job)
{
    struct task tasks[3];
    atomic_bool rest = true;
    struct watch watch = {.hold_rest = &rest};
    struct wso_pool *pool = kit_pool(8, 0, WSO_WHEN_FULL_WAIT, &watch);
    for (int i = 0; i < 3; i++) {
        task_init(&tasks[i], NULL);
    }
    CHECK_EQ(kit_submit(pool, &tasks[0]), WSO_OK);
    WAIT_UNTIL(done(&tasks[0]) && kit_stats(pool).idle == 1);
    int rests = atomic_load(&watch.rests);
    atomic_store(&rest, false);
    CHECK_EQ(kit_submit(pool, &tasks[1]), WSO_OK);
    WAIT_UNTIL(atomic_load(&watch.rests) == rests + 1);
    CHECK_EQ(kit_submit(pool, &tasks[2]), WSO_OK);
    CHECK_EQ(kit_stats(pool).threads, 1);
    CHECK_EQ(atomic_load(&tasks[2].started), 0);
    atomic_store(&rest, true);
    WAIT_UNTIL(done(&tasks[2]));
    CHECK(pthread_equal(tasks[0].ran_on, tasks[2].ran_on));
    kit_finish(pool);
    CHECK_EQ(atomic_load(&watch.begins), 1);
}

/* Three threads go idle one after the other; returns when all are. */
static void three_idle(struct wso_pool *pool, struct task *tasks, atomic_bool *open)
{
    for (unsigned i = 0; i < 3; i++) {
        atomic_store(&open[i], false);
        task_init(&tasks[i], &open[i]);
        CHECK_EQ(kit_submit(pool, &tasks[i]), WSO_OK);
        WAIT_UNTIL(atomic_load(&tasks[i].started) == 1);
    }
    for (unsigned i = 0; i < 3; i++) {
        atomic_store(&open[i], true);
        WAIT_UNTIL(kit_stats(pool).idle == i + 1);
    }
}

TEST(most_recently_idle_is_woken_first)
{
    struct task tasks[6];
    atomic_bool open[3], hold = false;
    struct wso_pool *pool = kit_pool(3, 0, WSO_WHEN_FULL_WAIT, NULL);
    three_idle(pool, tasks, open);
    for (int i = 3; i < 6; i++) {
        task_init(&tasks[i], &hold);
        CHECK_EQ(kit_submit(pool, &tasks[i]), WSO_OK);
        WAIT_UNTIL(atomic_load(&tasks[i].started) == 1);
        CHECK(pthread_equal(tasks[i].ran_on, tasks[5 - i].ran_on));
    }
    CHECK_EQ(kit_stats(pool).idle, 0);
    atomic_store(&hold, true);
    kit_finish(pool);
}

TEST(each_job_of_a_burst_wakes_a_thread_of_its_own)
{
    struct task tasks[3], burst[3];
    atomic_bool open[3], hold = false;
    struct wso_pool *pool = kit_pool(3, 0, WSO_WHEN_FULL_WAIT, NULL);
    three_idle(pool, tasks, open);
    for (int i = 0; i < 3; i++) {
        task_init(&burst[i], &hold);
        CHECK_EQ(kit_submit(pool, &burst[i]), WSO_OK);
    }
    WAIT_UNTIL(kit_stats(pool).running == 3);
    atomic_store(&hold, true);
    kit_finish(pool);
}

TEST(an_idle_thread_ends_after_keep_alive_and_another_starts_on_demand)
{
    uint64_t keep_alive = check_ms(3);
    struct watch watch = {0};
    struct task task;
    struct wso_pool *pool = kit_pool_keeping(keep_alive, 2, &watch);
    for (unsigned i = 1; i <= 3; i++) {
        task_init(&task, NULL);
        CHECK_EQ(kit_submit(pool, &task), WSO_OK);
        WAIT_UNTIL(done(&task));
        WAIT_UNTIL(kit_stats(pool).threads == 0);
        CHECK(atomic_load(&watch.ended_at) - atomic_load(&watch.rested_at) >= keep_alive);
        CHECK_EQ(kit_stats(pool).idle, 0);
        CHECK_EQ(kit_stats(pool).started, i);
        wso_pool_reap(pool);
    }
    kit_finish(pool);
    CHECK_EQ(atomic_load(&watch.ends), 3);
}

TEST(with_no_keep_alive_no_job_is_lost)
{
    enum { JOBS = 300 };
    struct task task;
    struct wso_pool *pool = kit_pool_keeping(0, 2, NULL);
    for (int i = 0; i < JOBS; i++) {
        task_init(&task, NULL);
        CHECK_EQ(kit_submit(pool, &task), WSO_OK);
        WAIT_UNTIL(done(&task));
        wso_pool_reap(pool);
    }
    WAIT_UNTIL(kit_stats(pool).threads == 0);
    kit_finish(pool);
}

TEST(a_keep_alive_beyond_the_clock_is_for_ever)
{
    struct task task;
    struct wso_pool *pool = kit_pool_keeping(WSO_NEVER - 1, 1, NULL);
    task_init(&task, NULL);
    CHECK_EQ(kit_submit(pool, &task), WSO_OK);
    WAIT_UNTIL(done(&task) && kit_stats(pool).idle == 1);
    kit_finish(pool);
}

TEST(the_time_that_jobs_waited_and_ran_is_recorded)
{
    struct task tasks[2];
    atomic_bool open = false;
    struct wso_pool *pool = kit_pool(1, 0, WSO_WHEN_FULL_WAIT, NULL);
    task_init(&tasks[0], &open);
    task_init(&tasks[1], NULL);
    CHECK_EQ(kit_submit(pool, &tasks[0]), WSO_OK);
    WAIT_UNTIL(atomic_load(&tasks[0].started) == 1);
    uint64_t before = wso_now();
    CHECK_EQ(kit_submit(pool, &tasks[1]), WSO_OK);
    uint64_t long_enough = check_ms(2);
    WAIT_UNTIL(wso_now() - before >= long_enough);
    atomic_store(&open, true);
    WAIT_UNTIL(kit_stats(pool).completed == 2);
    uint64_t elapsed = wso_now() - before;
    uint64_t waited = atomic_load(&wso_pool_waited(pool)->max);
    CHECK(waited >= long_enough && waited <= elapsed + WSO_NS_PER_S * 3600);
    CHECK(atomic_load(&wso_pool_ran(pool)->max) >= long_enough);
    CHECK(atomic_load(&wso_pool_ran(pool)->sum) < atomic_load(&wso_pool_ran(pool)->max) + elapsed);
    kit_finish(pool);
}

/* What a job sees of its thread. */
struct view {
    char name[32];
    size_t stack_size;
    sigset_t mask;
};

static void look(struct task *task)
{
    struct view *view = task->data;
    CHECK_EQ(pthread_getname_np(pthread_self(), view->name, sizeof view->name), 0);
    pthread_attr_t attributes;
    CHECK_EQ(pthread_getattr_np(pthread_self(), &attributes), 0);
    CHECK_EQ(pthread_attr_getstacksize(&attributes, &view->stack_size), 0);
    CHECK_EQ(pthread_attr_destroy(&attributes), 0);
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &view->mask), 0);
}

TEST(a_worker_has_its_name_its_stack_and_its_creators_mask)
{
    struct view view = {0};
    struct task task;
    struct watch watch = {.name = "pool-7 worker-123"};
    struct wso_pool *pool = kit_pool(1, 0, WSO_WHEN_FULL_WAIT, &watch);
    const size_t large = 96u << 20;
    wso_pool_set_stack_size(pool, large);
    sigset_t one, before;
    CHECK_EQ(sigemptyset(&one) | sigaddset(&one, SIGUSR1), 0);
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, &one, &before), 0);
    task_init(&task, NULL);
    task.act = look;
    task.data = &view;
    CHECK_EQ(kit_submit(pool, &task), WSO_OK);
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
    WAIT_UNTIL(done(&task));
    CHECK(strcmp(view.name, "pool-7 worker-1") == 0);
    CHECK(view.stack_size >= large);
    CHECK_EQ(sigismember(&view.mask, SIGUSR1), 1);
    CHECK_EQ(sigismember(&view.mask, SIGINT), 0);
    kit_finish(pool);
}

TEST(the_hooks_of_a_disowned_pool_get_no_owner)
{
    struct watch watch = {0};
    struct task task;
    struct wso_pool *pool = kit_pool(1, 0, WSO_WHEN_FULL_WAIT, &watch);
    wso_pool_disown(pool);
    task_init(&task, NULL);
    CHECK_EQ(kit_submit(pool, &task), WSO_OK);
    kit_finish(pool);
    CHECK_EQ(atomic_load(&watch.prepares), 0);
    CHECK(done(&task));
}

TEST(a_pool_outlives_its_owner_for_as_long_as_a_job_runs)
{
    struct task task;
    atomic_bool open = false;
    struct wso_pool *pool = kit_pool(1, 0, WSO_WHEN_FULL_WAIT, NULL);
    CHECK(wso_pool_share(pool) == pool);
    wso_pool_release(pool);
    task_init(&task, &open);
    CHECK_EQ(kit_submit(pool, &task), WSO_OK);
    WAIT_UNTIL(atomic_load(&task.started) == 1);
    wso_pool_close(pool, WSO_ECLOSED);
    wso_pool_release(pool);
    atomic_store(&open, true);
    WAIT_UNTIL(done(&task));
}
