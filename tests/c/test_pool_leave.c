/* pool.h: wso_pool_leave, at the end of the process. */
#include "check.h"
#include "kit.h"

static bool done(struct task *task)
{
    return atomic_load(&task->dones) == 1;
}

static void submit(struct wso_pool *pool, struct task *task, atomic_bool *hold, bool kept)
{
    task_init(task, hold);
    task->job.kept = kept;
    CHECK_EQ(kit_submit_turn(pool, task), WSO_OK);
}

static void submit_running(struct wso_pool *pool, struct task *task, atomic_bool *hold, bool kept)
{
    submit(pool, task, hold, kept);
    WAIT_UNTIL(atomic_load(&task->started) == 1);
}

TEST(leaving_waits_for_kept_jobs_and_for_no_others)
{
    struct task kept, other, queued[6];
    atomic_bool hold = false, hold_kept = false;
    struct wso_pool *pool = kit_pool(2, 2, WSO_WHEN_FULL_WAIT, NULL);
    submit_running(pool, &kept, &hold_kept, true);
    submit_running(pool, &other, &hold, false);
    for (int i = 0; i < 6; i++) {
        submit(pool, &queued[i], NULL, i % 2);
    }
    CHECK_EQ(kit_stats(pool).waiting, 4);
    wso_pool_leave(pool, false);
    CHECK_EQ(kit_stats(pool).abandoned, 1);
    for (int i = 0; i < 6; i += 2) {
        CHECK(done(&queued[i]));
        CHECK_EQ(atomic_load(&queued[i].status), WSO_ECANCELLED);
    }
    atomic_store(&hold_kept, true);
    CHECK_EQ(wso_pool_wait(pool), WSO_OK);
    CHECK(done(&kept) && !done(&other));
    for (int i = 1; i < 6; i += 2) {
        CHECK_EQ(atomic_load(&queued[i].runs), 1);
        CHECK(done(&queued[i]));
        CHECK_EQ(atomic_load(&queued[i].turns), 1);
    }
    struct task late;
    task_init(&late, NULL);
    CHECK_EQ(kit_submit(pool, &late), WSO_ECLOSED);
    atomic_store(&hold, true);
    WAIT_UNTIL(kit_stats(pool).threads == 0);
    kit_finish(pool);
}

TEST(abandoned_jobs_that_occupy_all_threads_do_not_hold_up_kept_ones)
{
    struct task abandoned[2], kept[4];
    atomic_bool hold = false;
    struct wso_pool *pool = kit_pool(2, 1, WSO_WHEN_FULL_WAIT, NULL);
    submit_running(pool, &abandoned[0], &hold, false);
    submit_running(pool, &abandoned[1], &hold, false);
    for (int i = 0; i < 4; i++) {
        submit(pool, &kept[i], NULL, true);
    }
    CHECK(task_abandon(pool, &abandoned[0]));
    wso_pool_leave(pool, false);
    CHECK_EQ(kit_stats(pool).abandoned, 2);
    CHECK_EQ(wso_pool_wait(pool), WSO_OK);
    for (int i = 0; i < 4; i++) {
        CHECK(done(&kept[i]));
        CHECK_EQ(atomic_load(&kept[i].status), WSO_OK);
    }
    CHECK_EQ(kit_stats(pool).started, 3);
    atomic_store(&hold, true);
    WAIT_UNTIL(kit_stats(pool).threads == 0);
    kit_finish(pool);
}

/* The extra thread makes more jobs run than the pool has threads: nobody is admitted meanwhile. */
TEST(a_pool_has_not_finished_while_a_kept_job_waits_for_its_admission)
{
    struct task abandoned, kept[2], closer;
    atomic_bool hold = false, hold_kept = false;
    struct wso_pool *pool = kit_pool(1, 1, WSO_WHEN_FULL_WAIT, NULL);
    submit_running(pool, &abandoned, &hold, false);
    submit(pool, &kept[0], &hold_kept, true);
    submit(pool, &kept[1], NULL, true);
    wso_pool_leave(pool, false);
    WAIT_UNTIL(kit_stats(pool).running == 2);
    CHECK_EQ(kit_stats(pool).waiting, 1);
    task_init(&closer, NULL);
    CHECK(!wso_pool_when_finished(pool, &closer.turn));
    /* Not even when all that runs is abandoned. */
    CHECK(task_abandon(pool, &kept[0]));
    CHECK_EQ(atomic_load(&closer.turns), 0);
    atomic_store(&hold_kept, true);
    WAIT_UNTIL(atomic_load(&closer.turns) == 1);
    CHECK(done(&kept[0]) && done(&kept[1]) && !done(&abandoned));
    atomic_store(&hold, true);
    WAIT_UNTIL(kit_stats(pool).threads == 0);
    kit_finish(pool);
}

/* As above, and the extra thread cannot be made: the exit ends all the same. */
TEST(without_an_extra_thread_kept_jobs_behind_abandoned_ones_end)
{
    struct task abandoned, kept[3];
    atomic_bool hold = false;
    struct watch watch = {.refusal = WSO_ETHREAD, .allowed = 1};
    struct wso_pool *pool = kit_pool(1, 1, WSO_WHEN_FULL_WAIT, &watch);
    submit_running(pool, &abandoned, &hold, false);
    for (int i = 0; i < 3; i++) {
        submit(pool, &kept[i], NULL, true);
    }
    wso_pool_leave(pool, false);
    for (int i = 0; i < 3; i++) {
        CHECK(done(&kept[i]));
        CHECK_EQ(atomic_load(&kept[i].status), WSO_ETHREAD);
    }
    CHECK_EQ(wso_pool_wait(pool), WSO_OK);
    CHECK(!done(&abandoned));
    atomic_store(&hold, true);
    WAIT_UNTIL(kit_stats(pool).threads == 0);
    kit_finish(pool);
}

/* As above, but one thread runs a kept job and will come back. */
TEST(without_an_extra_thread_kept_jobs_wait_for_a_thread_that_comes_back)
{
    struct task abandoned, kept, queued;
    atomic_bool hold = false, hold_kept = false;
    struct watch watch = {.refusal = WSO_ETHREAD, .allowed = 2};
    struct wso_pool *pool = kit_pool(2, 1, WSO_WHEN_FULL_WAIT, &watch);
    submit_running(pool, &abandoned, &hold, false);
    submit_running(pool, &kept, &hold_kept, true);
    submit(pool, &queued, NULL, true);
    wso_pool_leave(pool, false);
    CHECK_EQ(atomic_load(&watch.prepares), 3);
    CHECK_EQ(atomic_load(&queued.dones), 0);
    atomic_store(&hold_kept, true);
    CHECK_EQ(wso_pool_wait(pool), WSO_OK);
    CHECK_EQ(atomic_load(&queued.status), WSO_OK);
    CHECK(done(&queued) && !done(&abandoned));
    atomic_store(&hold, true);
    WAIT_UNTIL(kit_stats(pool).threads == 0);
    kit_finish(pool);
}

TEST(leaving_starts_no_thread_where_none_is_needed)
{
    struct task task, closer;
    struct watch watch = {0};
    struct wso_pool *pool = kit_pool(2, 0, WSO_WHEN_FULL_WAIT, &watch);
    submit(pool, &task, NULL, false);
    WAIT_UNTIL(kit_stats(pool).idle == 1);
    task_init(&closer, NULL);
    CHECK(!wso_pool_when_finished(pool, &closer.turn));
    wso_pool_leave(pool, false);
    wso_pool_leave(pool, false);
    WAIT_UNTIL(atomic_load(&closer.turns) == 1);
    CHECK_EQ(atomic_load(&watch.prepares), 1);
    kit_finish(pool);
}

TEST(leaving_tells_those_who_wait_for_the_end)
{
    struct task task, queued, closer;
    atomic_bool hold = false;
    struct wso_pool *pool = kit_pool(1, 0, WSO_WHEN_FULL_WAIT, NULL);
    submit_running(pool, &task, &hold, false);
    submit(pool, &queued, NULL, false);
    task_init(&closer, NULL);
    CHECK(!wso_pool_when_finished(pool, &closer.turn));
    wso_pool_leave(pool, false);
    CHECK(done(&queued));
    CHECK_EQ(atomic_load(&closer.turns), 1);
    atomic_store(&hold, true);
    WAIT_UNTIL(kit_stats(pool).threads == 0);
    kit_finish(pool);
}

/* The end of the process was told already. */
TEST(a_job_that_was_left_behind_is_not_reclaimed)
{
    struct task task;
    atomic_bool hold = false;
    struct wso_pool *pool = kit_pool(1, 0, WSO_WHEN_FULL_WAIT, NULL);
    submit_running(pool, &task, &hold, false);
    wso_pool_leave(pool, false);
    CHECK(task_reclaim(pool, &task));
    CHECK_EQ(kit_stats(pool).abandoned, 1);
    CHECK_EQ(wso_pool_wait(pool), WSO_OK);
    atomic_store(&hold, true);
    WAIT_UNTIL(kit_stats(pool).threads == 0);
    kit_finish(pool);
}

TEST(leaving_to_the_last_waits_for_every_thread)
{
    struct task abandoned, running, queued, closer;
    atomic_bool hold = false, hold_running = false;
    struct wso_pool *pool = kit_pool(2, 0, WSO_WHEN_FULL_WAIT, NULL);
    submit_running(pool, &abandoned, &hold, false);
    submit_running(pool, &running, &hold_running, false);
    submit(pool, &queued, NULL, false);
    CHECK(task_abandon(pool, &abandoned));
    task_init(&closer, NULL);
    wso_pool_leave(pool, true);
    CHECK_EQ(kit_stats(pool).abandoned, 1);
    CHECK_EQ(atomic_load(&queued.status), WSO_ECANCELLED);
    CHECK(!wso_pool_when_finished(pool, &closer.turn));
    atomic_store(&hold_running, true);
    WAIT_UNTIL(kit_stats(pool).threads == 1);
    CHECK_EQ(atomic_load(&closer.turns), 0);
    atomic_store(&hold, true);
    CHECK_EQ(wso_pool_wait(pool), WSO_OK);
    CHECK(done(&abandoned) && done(&running));
    WAIT_UNTIL(atomic_load(&closer.turns) == 1);
    kit_check_finished(pool);
}
