/* pool.h: closing, abandoning, leaving, and who is told that a pool has finished. */
#include "check.h"
#include "kit.h"

static bool done(struct task *task)
{
    return atomic_load(&task->dones) == 1;
}

/* Somebody who waits for the end of a pool without a thread: the turn of a task that never runs. */
static void closer_init(struct task *closer)
{
    task_init(closer, NULL);
}

static bool told(struct task *closer)
{
    return atomic_load(&closer->turns) == 1;
}

/* A pool with one thread, inside a job that waits for `hold`. */
static struct wso_pool *busy_pool(struct task *task, atomic_bool *hold)
{
    struct wso_pool *pool = kit_pool(1, 1, WSO_WHEN_FULL_WAIT, NULL);
    task_init(task, hold);
    CHECK_EQ(kit_submit(pool, task), WSO_OK);
    WAIT_UNTIL(atomic_load(&task->started) == 1);
    return pool;
}

static void submit_held(struct wso_pool *pool, struct task *task, atomic_bool *hold, bool kept)
{
    task_init(task, hold);
    task->job.kept = kept;
    CHECK_EQ(kit_submit_turn(pool, task), WSO_OK);
}

TEST(a_closed_pool_refuses_with_its_first_status)
{
    struct task task;
    struct wso_pool *pool = kit_pool(1, 0, WSO_WHEN_FULL_WAIT, NULL);
    wso_pool_close(pool, WSO_EBROKEN);
    wso_pool_close(pool, WSO_ECLOSED);
    task_init(&task, NULL);
    CHECK_EQ(kit_submit(pool, &task), WSO_EBROKEN);
    CHECK_EQ(wso_pool_submit(pool, &task.job, WSO_ADMIT_ALWAYS, &task.turn), WSO_EBROKEN);
    CHECK_EQ(atomic_load(&task.dones) + atomic_load(&task.turns), 0);
    kit_finish(pool);
}

TEST(what_was_accepted_runs_after_the_close)
{
    struct task running, queued, waiting;
    atomic_bool hold = false;
    struct wso_pool *pool = busy_pool(&running, &hold);
    submit_held(pool, &queued, NULL, false);
    submit_held(pool, &waiting, NULL, false);
    CHECK_EQ(kit_stats(pool).waiting, 1);
    wso_pool_close(pool, WSO_ECLOSED);
    atomic_store(&hold, true);
    kit_finish(pool);
    CHECK_EQ(atomic_load(&queued.runs), 1);
    CHECK_EQ(atomic_load(&waiting.runs), 1);
}

TEST(idle_threads_end_when_the_pool_closes)
{
    struct task task;
    struct watch watch = {0};
    struct wso_pool *pool = kit_pool(1, 0, WSO_WHEN_FULL_WAIT, &watch);
    task_init(&task, NULL);
    CHECK_EQ(kit_submit(pool, &task), WSO_OK);
    WAIT_UNTIL(kit_stats(pool).idle == 1);
    kit_finish(pool);
    CHECK_EQ(atomic_load(&watch.ends), 1);
}

TEST(cancel_all_ends_everything_that_no_worker_took)
{
    struct task running, others[4];
    atomic_bool hold = false;
    struct wso_pool *pool = busy_pool(&running, &hold);
    for (int i = 0; i < 4; i++) {
        submit_held(pool, &others[i], NULL, i % 2);
    }
    CHECK_EQ(kit_stats(pool).waiting, 3);
    wso_pool_cancel_all(pool, WSO_EBROKEN);
    for (int i = 0; i < 4; i++) {
        CHECK(done(&others[i]));
        CHECK_EQ(atomic_load(&others[i].status), WSO_EBROKEN);
        CHECK_EQ(atomic_load(&others[i].runs), 0);
        CHECK_EQ(atomic_load(&others[i].turns), 1);
    }
    CHECK_EQ(kit_stats(pool).cancelled, 4);
    CHECK(!done(&running));
    atomic_store(&hold, true);
    kit_finish(pool);
    CHECK(done(&running));
}

TEST(when_finished_says_so_at_once_or_tells_once)
{
    struct task task, early, retracted, late;
    atomic_bool hold = false;
    struct wso_pool *pool = busy_pool(&task, &hold);
    closer_init(&early);
    closer_init(&retracted);
    closer_init(&late);
    CHECK(!wso_pool_when_finished(pool, &early.turn));
    CHECK(!wso_pool_when_finished(pool, &retracted.turn));
    CHECK(wso_pool_retract(pool, &retracted.turn));
    wso_pool_close(pool, WSO_ECLOSED);
    CHECK(!told(&early));
    atomic_store(&hold, true);
    WAIT_UNTIL(told(&early));
    CHECK(!wso_pool_retract(pool, &early.turn));
    CHECK(wso_pool_when_finished(pool, &late.turn));
    kit_finish(pool);
    CHECK(!told(&retracted) && !told(&late));
}

TEST(an_open_pool_has_not_finished)
{
    struct task closer;
    struct wso_pool *pool = kit_pool(1, 0, WSO_WHEN_FULL_WAIT, NULL);
    closer_init(&closer);
    CHECK(!wso_pool_when_finished(pool, &closer.turn));
    wso_pool_close(pool, WSO_ECLOSED);
    CHECK(told(&closer));
    kit_finish(pool);
}

TEST(closing_does_not_wait_for_an_abandoned_job)
{
    struct task task, closer;
    atomic_bool hold = false;
    struct wso_pool *pool = busy_pool(&task, &hold);
    closer_init(&closer);
    wso_pool_close(pool, WSO_ECLOSED);
    CHECK(!wso_pool_when_finished(pool, &closer.turn));
    CHECK(task_abandon(pool, &task));
    CHECK(told(&closer));
    CHECK_EQ(kit_stats(pool).abandoned, 1);
    CHECK_EQ(kit_stats(pool).running, 1);
    /* Once is enough. */
    CHECK(task_abandon(pool, &task));
    CHECK_EQ(kit_stats(pool).abandoned, 1);
    CHECK_EQ(wso_pool_wait(pool), WSO_OK);
    CHECK(!done(&task));
    atomic_store(&hold, true);
    WAIT_UNTIL(kit_stats(pool).threads == 0);
    CHECK(done(&task));
    CHECK_EQ(kit_stats(pool).completed, 1);
    kit_finish(pool);
}

TEST(an_abandoned_thread_takes_jobs_again_when_it_comes_back)
{
    struct task first, second;
    atomic_bool hold = false;
    struct wso_pool *pool = busy_pool(&first, &hold);
    CHECK(task_abandon(pool, &first));
    submit_held(pool, &second, NULL, false);
    CHECK_EQ(kit_stats(pool).threads, 1);
    atomic_store(&hold, true);
    WAIT_UNTIL(done(&second));
    CHECK_EQ(kit_stats(pool).abandoned, 0);
    CHECK(pthread_equal(first.ran_on, second.ran_on));
    kit_finish(pool);
}

TEST(a_reclaimed_job_is_waited_for_again)
{
    struct task task, closer;
    atomic_bool hold = false;
    struct wso_pool *pool = busy_pool(&task, &hold);
    CHECK(task_reclaim(pool, &task));
    CHECK_EQ(kit_stats(pool).abandoned, 0);
    CHECK(task_abandon(pool, &task));
    CHECK(task_reclaim(pool, &task));
    CHECK_EQ(kit_stats(pool).abandoned, 0);
    wso_pool_close(pool, WSO_ECLOSED);
    closer_init(&closer);
    CHECK(!wso_pool_when_finished(pool, &closer.turn));
    /* It may be abandoned again. */
    CHECK(task_abandon(pool, &task));
    CHECK(told(&closer));
    CHECK(task_reclaim(pool, &task));
    atomic_store(&hold, true);
    kit_finish(pool);
    CHECK(done(&task));
}

TEST(abandoning_a_job_that_does_not_run_changes_nothing)
{
    struct task running, queued;
    atomic_bool hold = false;
    struct wso_pool *pool = busy_pool(&running, &hold);
    submit_held(pool, &queued, NULL, false);
    wso_pool_abandon(pool, &queued.job);
    CHECK_EQ(kit_stats(pool).abandoned, 0);
    atomic_store(&hold, true);
    kit_finish(pool);
}

/* 1. A closed pool's only thread is inside an abandoned job, and one job is queued. 2. Somebody waits
 * for the end. 3. The queued job is cancelled: nothing is left that anybody waits for. */
TEST(cancelling_the_last_job_tells_those_who_wait_for_the_end)
{
    struct task running, queued, closer;
    atomic_bool hold = false;
    struct wso_pool *pool = busy_pool(&running, &hold);
    submit_held(pool, &queued, NULL, false);
    wso_pool_close(pool, WSO_ECLOSED);
    CHECK(task_abandon(pool, &running));
    closer_init(&closer);
    CHECK(!wso_pool_when_finished(pool, &closer.turn));
    CHECK(wso_pool_cancel(pool, &queued.job, WSO_ECANCELLED));
    CHECK(told(&closer));
    atomic_store(&hold, true);
    WAIT_UNTIL(kit_stats(pool).threads == 0);
    kit_finish(pool);
}

/* As above, with cancel_all. */
TEST(cancelling_all_jobs_tells_those_who_wait_for_the_end)
{
    struct task running, queued, closer;
    atomic_bool hold = false;
    struct wso_pool *pool = busy_pool(&running, &hold);
    submit_held(pool, &queued, NULL, false);
    wso_pool_close(pool, WSO_ECLOSED);
    CHECK(task_abandon(pool, &running));
    closer_init(&closer);
    CHECK(!wso_pool_when_finished(pool, &closer.turn));
    wso_pool_cancel_all(pool, WSO_ECANCELLED);
    CHECK(told(&closer));
    atomic_store(&hold, true);
    WAIT_UNTIL(kit_stats(pool).threads == 0);
    kit_finish(pool);
}

/* 1. Ann's submit has reserved a thread and is about to make it. 2. The pool is closed. 3. It must
 * not have finished: the thread is still to come, and to go. */
TEST(a_pool_has_not_finished_while_a_thread_is_being_made)
{
    struct task ann, closer;
    struct caller caller;
    atomic_bool prepare = false;
    struct watch watch = {.hold_prepare = &prepare};
    struct wso_pool *pool = kit_pool(1, 0, WSO_WHEN_FULL_WAIT, &watch);
    task_init(&ann, NULL);
    closer_init(&closer);
    caller_start(&caller, kit_submit, pool, &ann);
    WAIT_UNTIL(atomic_load(&watch.prepares) == 1);
    wso_pool_close(pool, WSO_ECLOSED);
    CHECK(!wso_pool_when_finished(pool, &closer.turn));
    CHECK(!told(&closer));
    atomic_store(&prepare, true);
    CHECK_EQ(caller_join(&caller), WSO_ECLOSED);
    WAIT_UNTIL(told(&closer));
    CHECK_EQ(kit_stats(pool).threads, 0);
    CHECK_EQ(atomic_load(&ann.dones), 0);
    kit_finish(pool);
    CHECK_EQ(atomic_load(&watch.ends), 1);
}

/* As above, and the thread cannot be made. */
TEST(a_thread_that_was_not_made_lets_a_closed_pool_finish)
{
    struct task ann, closer;
    struct caller caller;
    atomic_bool prepare = false;
    struct watch watch = {.hold_prepare = &prepare, .refusal = WSO_ETHREAD};
    struct wso_pool *pool = kit_pool(1, 0, WSO_WHEN_FULL_WAIT, &watch);
    task_init(&ann, NULL);
    closer_init(&closer);
    caller_start(&caller, kit_submit, pool, &ann);
    WAIT_UNTIL(atomic_load(&watch.prepares) == 1);
    wso_pool_close(pool, WSO_ECLOSED);
    CHECK(!wso_pool_when_finished(pool, &closer.turn));
    atomic_store(&prepare, true);
    CHECK_EQ(caller_join(&caller), WSO_ETHREAD);
    CHECK(told(&closer));
    kit_finish(pool);
}
