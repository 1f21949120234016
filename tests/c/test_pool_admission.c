/* pool.h: what becomes of a job that comes while the pool is full. */
#include <signal.h>

#include "check.h"
#include "kit.h"

enum { THREADS = 2, QUEUE = 3, BOUND = THREADS + QUEUE };

static atomic_bool open_all;
static struct task filling[BOUND];

/* A pool that is just full: all threads run a job that waits for open_all. */
static struct wso_pool *full_pool(enum wso_policy when_full)
{
    struct wso_pool *pool = kit_pool(THREADS, QUEUE, when_full, NULL);
    atomic_store(&open_all, false);
    kit_reset_order();
    for (int i = 0; i < BOUND; i++) {
        task_init(&filling[i], &open_all);
        filling[i].job.droppable = true;
        CHECK_EQ(kit_submit_turn(pool, &filling[i]), WSO_OK);
        CHECK_EQ(atomic_load(&filling[i].turns), 1);
    }
    WAIT_UNTIL(kit_stats(pool).running == THREADS);
    CHECK_EQ(kit_stats(pool).queued, QUEUE);
    return pool;
}

static void open_and_finish(struct wso_pool *pool)
{
    atomic_store(&open_all, true);
    kit_finish(pool);
}

TEST(bounded)
{
    struct task tasks[20];
    struct wso_pool *pool = full_pool(WSO_WHEN_FULL_WAIT);
    for (int i = 0; i < 20; i++) {
        task_init(&tasks[i], NULL);
        CHECK_EQ(kit_submit(pool, &tasks[i]), WSO_OK);
        CHECK_EQ(kit_stats(pool).queued + kit_stats(pool).running, BOUND);
        CHECK_EQ(kit_stats(pool).waiting, i + 1);
        CHECK_EQ(tasks[i].job.state, WSO_JOB_WAITING);
    }
    CHECK_EQ(kit_stats(pool).accepted, BOUND + 20);
    CHECK_EQ(kit_stats(pool).over, 0);
    open_and_finish(pool);
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(atomic_load(&tasks[i].dones), 1);
        CHECK_EQ(atomic_load(&tasks[i].status), WSO_OK);
    }
}

TEST(without_a_bound_nothing_is_ever_full)
{
    enum { JOBS = 1000 };
    static struct task tasks[JOBS];
    struct wso_pool *pool = kit_pool(1, 0, WSO_WHEN_FULL_RAISE, NULL);
    atomic_store(&open_all, false);
    for (int i = 0; i < JOBS; i++) {
        task_init(&tasks[i], &open_all);
        CHECK_EQ(kit_submit(pool, &tasks[i]), WSO_OK);
    }
    CHECK_EQ(kit_stats(pool).queued + kit_stats(pool).running, JOBS);
    open_and_finish(pool);
}

/* The sizes of the bound do not overflow. */
TEST(a_bound_as_large_as_can_be)
{
    struct task tasks[2];
    struct wso_pool *pool = kit_pool(1, SIZE_MAX, WSO_WHEN_FULL_RAISE, NULL);
    atomic_store(&open_all, false);
    for (int i = 0; i < 2; i++) {
        task_init(&tasks[i], &open_all);
        CHECK_EQ(kit_submit(pool, &tasks[i]), WSO_OK);
    }
    open_and_finish(pool);
}

TEST(waiting_jobs_are_admitted_in_the_order_in_which_they_came)
{
    enum { JOBS = 10 };
    struct task tasks[JOBS];
    atomic_bool first = false, others = false;
    struct wso_pool *pool = kit_pool(1, 1, WSO_WHEN_FULL_WAIT, NULL);
    kit_reset_order();
    for (int i = 0; i < JOBS; i++) {
        task_init(&tasks[i], i == 0 ? &first : &others);
        CHECK_EQ(kit_submit_turn(pool, &tasks[i]), WSO_OK);
    }
    for (int i = 0; i < JOBS; i++) {
        CHECK_EQ(atomic_load(&tasks[i].turns), i < 2);
    }
    /* One place gets free, one job takes it. */
    atomic_store(&first, true);
    WAIT_UNTIL(atomic_load(&tasks[2].turns) == 1);
    CHECK_EQ(atomic_load(&tasks[3].turns), 0);
    CHECK_EQ(kit_stats(pool).waiting, JOBS - 3);
    atomic_store(&others, true);
    kit_finish(pool);
    for (int i = 0; i < JOBS; i++) {
        CHECK_EQ(atomic_load(&tasks[i].order), i + 1);
        CHECK_EQ(atomic_load(&tasks[i].turns), 1);
    }
}

TEST(when_full_raise_refuses_and_the_caller_keeps_the_job)
{
    struct task task;
    struct wso_pool *pool = full_pool(WSO_WHEN_FULL_RAISE);
    task_init(&task, NULL);
    CHECK_EQ(kit_submit_turn(pool, &task), WSO_EFULL);
    CHECK_EQ(kit_submit_blocking(pool, &task), WSO_EFULL);
    CHECK_EQ(atomic_load(&task.turns), 0);
    CHECK(!wso_link_listed(&task.job.link));
    CHECK(!wso_pool_cancel(pool, &task.job, WSO_ECANCELLED));
    CHECK_EQ(kit_stats(pool).accepted, BOUND);
    atomic_store(&open_all, true);
    WAIT_UNTIL(kit_stats(pool).completed > 0);
    CHECK_EQ(kit_submit(pool, &task), WSO_OK);
    kit_finish(pool);
    CHECK_EQ(atomic_load(&task.dones), 1);
}

TEST(when_full_drop_oldest_drops_the_oldest_that_may_be_dropped)
{
    struct task tasks[3];
    struct wso_pool *pool = full_pool(WSO_WHEN_FULL_DROP_OLDEST);
    filling[THREADS].job.droppable = false;
    for (int i = 0; i < 2; i++) {
        task_init(&tasks[i], NULL);
        CHECK_EQ(kit_submit_turn(pool, &tasks[i]), WSO_OK);
        CHECK_EQ(atomic_load(&tasks[i].turns), 1);
        struct task *victim = &filling[THREADS + 1 + i];
        CHECK_EQ(atomic_load(&victim->dones), 1);
        CHECK_EQ(atomic_load(&victim->status), WSO_EDROPPED);
        CHECK(pthread_equal(victim->done_on, pthread_self()));
    }
    CHECK_EQ(kit_stats(pool).dropped, 2);
    CHECK_EQ(kit_stats(pool).queued, QUEUE);
    /* Nothing is left that may be dropped. */
    task_init(&tasks[2], NULL);
    CHECK_EQ(kit_submit(pool, &tasks[2]), WSO_EFULL);
    CHECK_EQ(kit_stats(pool).dropped, 2);
    open_and_finish(pool);
    CHECK_EQ(atomic_load(&filling[THREADS].status), WSO_OK);
    CHECK_EQ(atomic_load(&tasks[1].runs), 1);
    CHECK_EQ(atomic_load(&tasks[2].dones), 0);
}

/* Each policy lets these in and counts how far over the bound they stood. */
static void check_always(enum wso_policy when_full)
{
    struct task tasks[4];
    struct wso_pool *pool = full_pool(when_full);
    for (int i = 0; i < 4; i++) {
        task_init(&tasks[i], NULL);
        CHECK_EQ(wso_pool_submit(pool, &tasks[i].job, WSO_ADMIT_ALWAYS, NULL), WSO_OK);
    }
    CHECK_EQ(kit_stats(pool).queued, QUEUE + 4);
    CHECK_EQ(kit_stats(pool).waiting, 0);
    CHECK_EQ(kit_stats(pool).dropped, 0);
    CHECK_EQ(kit_stats(pool).over, 4);
    CHECK_EQ(kit_stats(pool).over_max, 4);
    /* A smaller excess later does not change the greatest. */
    CHECK(wso_pool_cancel(pool, &tasks[2].job, WSO_ECANCELLED));
    CHECK(wso_pool_cancel(pool, &tasks[3].job, WSO_ECANCELLED));
    task_init(&tasks[3], NULL);
    CHECK_EQ(wso_pool_submit(pool, &tasks[3].job, WSO_ADMIT_ALWAYS, NULL), WSO_OK);
    CHECK_EQ(kit_stats(pool).over, 5);
    CHECK_EQ(kit_stats(pool).over_max, 4);
    open_and_finish(pool);
}

TEST(admit_always_is_never_refused_and_counted_when_over_the_bound)
{
    check_always(WSO_WHEN_FULL_WAIT);
    check_always(WSO_WHEN_FULL_RAISE);
    check_always(WSO_WHEN_FULL_DROP_OLDEST);
}

TEST(admit_always_below_the_bound_is_not_over)
{
    struct task task;
    struct wso_pool *pool = kit_pool(1, 1, WSO_WHEN_FULL_RAISE, NULL);
    task_init(&task, NULL);
    CHECK_EQ(wso_pool_submit(pool, &task.job, WSO_ADMIT_ALWAYS, &task.turn), WSO_OK);
    CHECK_EQ(atomic_load(&task.turns), 1);
    CHECK_EQ(kit_stats(pool).over, 0);
    kit_finish(pool);
}

TEST(over_the_bound_nobody_is_admitted_until_it_is_kept_again)
{
    struct task always[2], waiting;
    struct wso_pool *pool = full_pool(WSO_WHEN_FULL_WAIT);
    task_init(&waiting, NULL);
    CHECK_EQ(kit_submit(pool, &waiting), WSO_OK);
    for (int i = 0; i < 2; i++) {
        task_init(&always[i], NULL);
        CHECK_EQ(wso_pool_submit(pool, &always[i].job, WSO_ADMIT_ALWAYS, NULL), WSO_OK);
    }
    CHECK(wso_pool_cancel(pool, &always[0].job, WSO_ECANCELLED));
    CHECK(wso_pool_cancel(pool, &always[1].job, WSO_ECANCELLED));
    CHECK_EQ(kit_stats(pool).waiting, 1);
    CHECK(wso_pool_cancel(pool, &filling[THREADS].job, WSO_ECANCELLED));
    CHECK_EQ(kit_stats(pool).waiting, 0);
    open_and_finish(pool);
}

TEST(a_cancelled_job_never_runs_and_frees_its_place_at_once)
{
    struct task task;
    struct wso_pool *pool = full_pool(WSO_WHEN_FULL_WAIT);
    task_init(&task, NULL);
    CHECK_EQ(kit_submit_turn(pool, &task), WSO_OK);
    CHECK_EQ(atomic_load(&task.turns), 0);
    struct task *victim = &filling[BOUND - 2];
    CHECK(wso_pool_cancel(pool, &victim->job, WSO_ECANCELLED));
    CHECK_EQ(atomic_load(&victim->dones), 1);
    CHECK_EQ(atomic_load(&victim->status), WSO_ECANCELLED);
    CHECK_EQ(atomic_load(&task.turns), 1);
    CHECK_EQ(task.job.state, WSO_JOB_QUEUED);
    CHECK_EQ(kit_stats(pool).cancelled, 1);
    CHECK_EQ(kit_stats(pool).queued, QUEUE);
    open_and_finish(pool);
    CHECK_EQ(atomic_load(&victim->runs), 0);
}

TEST(a_waiting_job_that_is_cancelled_has_its_turn)
{
    struct task tasks[2];
    struct wso_pool *pool = full_pool(WSO_WHEN_FULL_WAIT);
    for (int i = 0; i < 2; i++) {
        task_init(&tasks[i], NULL);
        CHECK_EQ(kit_submit_turn(pool, &tasks[i]), WSO_OK);
    }
    CHECK(wso_pool_cancel(pool, &tasks[0].job, WSO_ETHREAD));
    CHECK_EQ(atomic_load(&tasks[0].turns), 1);
    CHECK_EQ(atomic_load(&tasks[0].status), WSO_ETHREAD);
    CHECK_EQ(atomic_load(&tasks[1].turns), 0);
    CHECK_EQ(kit_stats(pool).waiting, 1);
    CHECK_EQ(kit_stats(pool).queued, QUEUE);
    open_and_finish(pool);
}

TEST(a_running_or_ended_job_cannot_be_cancelled)
{
    struct wso_pool *pool = full_pool(WSO_WHEN_FULL_WAIT);
    CHECK(!wso_pool_cancel(pool, &filling[0].job, WSO_ECANCELLED));
    CHECK(wso_pool_cancel(pool, &filling[BOUND - 1].job, WSO_ECANCELLED));
    CHECK(!wso_pool_cancel(pool, &filling[BOUND - 1].job, WSO_ECANCELLED));
    CHECK_EQ(kit_stats(pool).cancelled, 1);
    open_and_finish(pool);
    CHECK_EQ(atomic_load(&filling[0].runs), 1);
}
