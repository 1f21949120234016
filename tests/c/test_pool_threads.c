/* pool.h: what becomes of jobs when a thread cannot be made, ends, or is taken by another's job.
 * Stories are told as numbered steps; a hook or a job holds each step until the next is due. */
#include <stdio.h>
#include <unistd.h>

#include "check.h"
#include "kit.h"

static bool done(struct task *task)
{
    return atomic_load(&task->dones) == 1;
}

TEST(without_any_thread_the_caller_gets_the_error_and_keeps_the_job)
{
    struct task task;
    struct watch watch = {.refusal = WSO_ETHREAD};
    struct wso_pool *pool = kit_pool(2, 1, WSO_WHEN_FULL_WAIT, &watch);
    task_init(&task, NULL);
    CHECK_EQ(kit_submit_turn(pool, &task), WSO_ETHREAD);
    CHECK_EQ(kit_submit_blocking(pool, &task), WSO_ETHREAD);
    CHECK_EQ(atomic_load(&task.dones) + atomic_load(&task.turns), 0);
    CHECK_EQ(kit_stats(pool).accepted + kit_stats(pool).started + kit_stats(pool).threads, 0);
    /* The next attempt may succeed. */
    atomic_store(&watch.allowed, 1);
    CHECK_EQ(kit_submit(pool, &task), WSO_OK);
    kit_finish(pool);
    CHECK(done(&task));
}

TEST(with_another_thread_the_job_waits_for_it)
{
    struct task tasks[3];
    atomic_bool open = false;
    struct watch watch = {.refusal = WSO_ETHREAD, .allowed = 1};
    struct wso_pool *pool = kit_pool(3, 0, WSO_WHEN_FULL_WAIT, &watch);
    for (int i = 0; i < 3; i++) {
        task_init(&tasks[i], &open);
        CHECK_EQ(kit_submit(pool, &tasks[i]), WSO_OK);
        WAIT_UNTIL(kit_stats(pool).running == 1);
    }
    CHECK_EQ(atomic_load(&watch.prepares), 3);
    CHECK_EQ(kit_stats(pool).started, 1);
    CHECK_EQ(kit_stats(pool).queued, 2);
    atomic_store(&open, true);
    kit_finish(pool);
    CHECK(done(&tasks[1]) && done(&tasks[2]));
}

TEST(an_owner_that_fails_to_prepare_refuses_the_job_although_a_thread_runs)
{
    struct task tasks[2];
    atomic_bool open = false;
    struct watch watch = {.refusal = WSO_ERAISED, .allowed = 1};
    struct wso_pool *pool = kit_pool(2, 0, WSO_WHEN_FULL_WAIT, &watch);
    task_init(&tasks[0], &open);
    task_init(&tasks[1], NULL);
    CHECK_EQ(kit_submit(pool, &tasks[0]), WSO_OK);
    WAIT_UNTIL(kit_stats(pool).running == 1);
    CHECK_EQ(kit_submit_turn(pool, &tasks[1]), WSO_ERAISED);
    CHECK_EQ(atomic_load(&tasks[1].dones) + atomic_load(&tasks[1].turns), 0);
    CHECK_EQ(kit_stats(pool).accepted, 1);
    CHECK_EQ(kit_stats(pool).queued, 0);
    atomic_store(&open, true);
    kit_finish(pool);
}

/* 1. Ann's submit reserves the pool's only thread and prepares it. 2. Bob's submit sees that a
 * thread will come, and queues. 3. The thread cannot be made. Both must learn that. */
TEST(jobs_that_counted_on_a_thread_that_was_not_made_end)
{
    struct task ann, bob, waiting;
    struct caller caller;
    atomic_bool prepare = false;
    struct watch watch = {.refusal = WSO_ETHREAD, .hold_prepare = &prepare};
    struct wso_pool *pool = kit_pool(1, 1, WSO_WHEN_FULL_WAIT, &watch);
    task_init(&ann, NULL);
    task_init(&bob, NULL);
    task_init(&waiting, NULL);
    caller_start(&caller, kit_submit, pool, &ann);
    WAIT_UNTIL(atomic_load(&watch.prepares) == 1);
    CHECK_EQ(kit_submit(pool, &bob), WSO_OK);
    CHECK_EQ(wso_pool_submit(pool, &waiting.job, WSO_ADMIT_ALWAYS, &waiting.turn), WSO_OK);
    atomic_store(&prepare, true);
    CHECK_EQ(caller_join(&caller), WSO_ETHREAD);
    CHECK_EQ(atomic_load(&ann.dones), 0);
    CHECK(done(&bob) && done(&waiting));
    CHECK_EQ(atomic_load(&bob.status), WSO_ETHREAD);
    CHECK_EQ(atomic_load(&bob.runs), 0);
    CHECK_EQ(kit_stats(pool).accepted, 2);
    CHECK_EQ(kit_stats(pool).cancelled, 2);
    kit_finish(pool);
}

/* As above, with more jobs than the queue holds: those that wait for admission end as well. */
TEST(waiting_jobs_that_counted_on_a_thread_that_was_not_made_end)
{
    struct task ann, others[5];
    struct caller caller;
    atomic_bool prepare = false;
    struct watch watch = {.refusal = WSO_ENOMEM, .hold_prepare = &prepare};
    struct wso_pool *pool = kit_pool(1, 1, WSO_WHEN_FULL_WAIT, &watch);
    task_init(&ann, NULL);
    caller_start(&caller, kit_submit, pool, &ann);
    WAIT_UNTIL(atomic_load(&watch.prepares) == 1);
    for (int i = 0; i < 5; i++) {
        task_init(&others[i], NULL);
        /* Bounded by one thread and one place: three of them wait. */
        CHECK_EQ(kit_submit_turn(pool, &others[i]), WSO_OK);
    }
    CHECK_EQ(kit_stats(pool).waiting, 3);
    atomic_store(&prepare, true);
    CHECK_EQ(caller_join(&caller), WSO_ENOMEM);
    for (int i = 0; i < 5; i++) {
        CHECK(done(&others[i]));
        CHECK_EQ(atomic_load(&others[i].status), WSO_ENOMEM);
        CHECK_EQ(atomic_load(&others[i].turns), 1);
    }
    kit_finish(pool);
}

/* 1. Ann's submit makes the pool's first thread, but does not get to queue her job yet. 2. Bob's
 * submit counts on that thread, and his job takes it for long. 3. Ann's job is queued. It must get a
 * thread of its own: Bob's may be waiting for what Ann's will do. */
TEST(a_job_whose_thread_was_taken_gets_another)
{
    struct task ann, bob;
    struct caller caller;
    atomic_bool prepare = false, bobs = false;
    struct watch watch = {.hold_prepare = &prepare};
    struct wso_pool *pool = kit_pool(2, 0, WSO_WHEN_FULL_WAIT, &watch);
    task_init(&ann, NULL);
    task_init(&bob, &bobs);
    caller_start(&caller, kit_submit, pool, &ann);
    WAIT_UNTIL(atomic_load(&watch.prepares) == 1);
    CHECK_EQ(kit_submit(pool, &bob), WSO_OK);
    atomic_store(&prepare, true);
    CHECK_EQ(caller_join(&caller), WSO_OK);
    WAIT_UNTIL(done(&ann));
    CHECK(!done(&bob));
    atomic_store(&bobs, true);
    kit_finish(pool);
}

/* 1. Ann's and Bob's submits each reserve a thread. 2. Ann's cannot be made; Bob's is on its way, so
 * her job may wait for it. 3. Bob's cannot be made either. Whoever was accepted must be told. */
TEST(two_threads_that_cannot_be_made_lose_no_job)
{
    enum { CALLERS = 3 };
    struct task tasks[CALLERS];
    struct caller callers[CALLERS];
    for (int round = 0; round < 50; round++) {
        struct watch watch = {.refusal = WSO_ETHREAD};
        struct wso_pool *pool = kit_pool(CALLERS, 0, WSO_WHEN_FULL_WAIT, &watch);
        for (int i = 0; i < CALLERS; i++) {
            task_init(&tasks[i], NULL);
            caller_start(&callers[i], kit_submit, pool, &tasks[i]);
        }
        int statuses[CALLERS];
        for (int i = 0; i < CALLERS; i++) {
            statuses[i] = caller_join(&callers[i]);
        }
        for (int i = 0; i < CALLERS; i++) {
            CHECK(statuses[i] == WSO_OK || statuses[i] == WSO_ETHREAD);
            CHECK_EQ(atomic_load(&tasks[i].dones), statuses[i] == WSO_OK);
        }
        kit_finish(pool);
    }
}

/* 1. A thread has no keep_alive, so it ends as soon as it finds nothing. 2. Jobs come meanwhile. Each
 * of them either finds it still there or gets another. */
TEST(a_job_that_comes_while_a_thread_ends_is_not_lost)
{
    enum { CALLERS = 3, ROUNDS = 100 };
    struct task tasks[CALLERS];
    struct caller callers[CALLERS];
    struct wso_pool *pool = kit_pool_keeping(0, 2, NULL);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < CALLERS; i++) {
            task_init(&tasks[i], NULL);
            caller_start(&callers[i], kit_submit, pool, &tasks[i]);
        }
        for (int i = 0; i < CALLERS; i++) {
            CHECK_EQ(caller_join(&callers[i]), WSO_OK);
            WAIT_UNTIL(done(&tasks[i]));
        }
    }
    kit_finish(pool);
}

static size_t address_space(void)
{
    size_t pages;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL);
    CHECK_EQ(fscanf(file, "%zu", &pages), 1);
    (void)fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* An ended thread keeps its stack until it is joined. */
TEST(ended_threads_are_joined_while_the_pool_goes_on)
{
    enum { ROUNDS = 25, SETTLED = 5 };
    /* More than the C library keeps for reuse. */
    const size_t stack = 96u << 20;
    struct task task;
    struct wso_pool *pool = kit_pool_keeping(0, 1, NULL);
    wso_pool_set_stack_size(pool, stack);
    size_t settled = 0;
    for (int round = 1; round <= ROUNDS; round++) {
        task_init(&task, NULL);
        CHECK_EQ(kit_submit(pool, &task), WSO_OK);
        WAIT_UNTIL(done(&task) && kit_stats(pool).threads == 0);
        settled = round == SETTLED ? address_space() : settled;
    }
    CHECK(address_space() < settled + (ROUNDS - SETTLED) / 2 * stack);
    kit_finish(pool);
}

TEST(a_pool_that_is_freed_by_its_last_thread_leaves_no_stack)
{
    enum { ROUNDS = 25, SETTLED = 5 };
    const size_t stack = 96u << 20;
    size_t settled = 0;
    unsigned threads = check_entries("task");
    for (int round = 1; round <= ROUNDS; round++) {
        struct task task;
        atomic_bool open = false;
        struct wso_pool *pool = kit_pool(1, 0, WSO_WHEN_FULL_WAIT, NULL);
        wso_pool_set_stack_size(pool, stack);
        task_init(&task, &open);
        CHECK_EQ(kit_submit(pool, &task), WSO_OK);
        wso_pool_close(pool, WSO_ECLOSED);
        wso_pool_release(pool);
        atomic_store(&open, true);
        WAIT_UNTIL(done(&task) && check_entries("task") == threads);
        settled = round == SETTLED ? address_space() : settled;
    }
    CHECK(address_space() < settled + (ROUNDS - SETTLED) / 2 * stack);
}
