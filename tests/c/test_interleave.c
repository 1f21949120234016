/* The pool, interrupted at each of its locks by each of its functions.
 *
 * A scenario runs again and again. In the nth run, whichever thread is about to take a lock for the
 * nth time first does something else to the pool, as if another thread had done it just then. In
 * the end each accepted job must have had exactly one done, and all counts must agree.
 */
#include "check.h"
#include "kit.h"
#include "points.h"

enum { TASKS = 5 };

/* One run. Everything is static because the action may outlive the step that it interrupts. */
static struct wso_pool *pool;
static struct task tasks[TASKS], extra, closer;
static int statuses[TASKS], extra_status;
static bool closer_waits;

static void cancel_queued(void)
{
    for (int i = 1; i < TASKS; i += 2) {
        if (atomic_load(&tasks[i].dones) == 0) {
            (void)wso_pool_cancel(pool, &tasks[i].job, WSO_ECANCELLED);
        }
    }
}

static void cancel_all(void)
{
    wso_pool_cancel_all(pool, WSO_ECANCELLED);
}

static void close_pool(void)
{
    wso_pool_close(pool, WSO_ECLOSED);
}

static void abandon_running(void)
{
    for (int i = 0; i < TASKS; i++) {
        (void)task_abandon(pool, &tasks[i]);
    }
}

static void leave(void)
{
    wso_pool_leave(pool, false);
}

static void submit_another(void)
{
    extra_status = kit_submit_turn(pool, &extra);
}

static void submit_always(void)
{
    extra_status = wso_pool_submit(pool, &extra.job, WSO_ADMIT_ALWAYS, &extra.turn);
}

static void wait_with_a_turn(void)
{
    closer_waits = !wso_pool_when_finished(pool, &closer.turn);
}

static void reap(void)
{
    wso_pool_reap(pool);
}

static void (*const actions[])(void) = {
    cancel_queued, cancel_all,    close_pool,       abandon_running, leave,
    submit_another, submit_always, wait_with_a_turn, reap,
};

static void act(void *argument)
{
    actions[*(int *)argument]();
}

static void check_task(struct task *task, int status)
{
    bool accepted = status == WSO_OK;
    WAIT_UNTIL(atomic_load(&task->dones) == accepted);
    CHECK(atomic_load(&task->turns) == accepted);
    CHECK(status == WSO_OK || status == WSO_ECLOSED || status == WSO_EFULL);
}

static void run_scenario(unsigned threads, uint64_t keep_alive, enum wso_policy when_full)
{
    const struct wso_pool_config config = {
        .max_threads = threads,
        .max_queue = 1,
        .when_full = when_full,
        .keep_alive = keep_alive,
        .hooks = &kit_hooks,
    };
    CHECK_EQ(wso_pool_new(&config, &pool), WSO_OK);
    for (int i = 0; i < TASKS; i++) {
        statuses[i] = kit_submit_turn(pool, &tasks[i]);
    }
    if (statuses[3] == WSO_OK && atomic_load(&tasks[3].dones) == 0) {
        (void)wso_pool_cancel(pool, &tasks[3].job, WSO_ECANCELLED);
    }
    wso_pool_close(pool, WSO_ECLOSED);
    CHECK_EQ(wso_pool_wait(pool), WSO_OK);
}

/* False when the scenario had fewer than n locks. */
static bool run_interrupted(int action, int nth, unsigned threads, uint64_t keep_alive,
                            enum wso_policy when_full)
{
    for (int i = 0; i < TASKS; i++) {
        task_init(&tasks[i], NULL);
        tasks[i].job.droppable = i % 2;
        tasks[i].job.kept = i > 2;
        statuses[i] = WSO_ECLOSED;
    }
    task_init(&extra, NULL);
    task_init(&closer, NULL);
    extra_status = WSO_ECLOSED;
    closer_waits = false;
    point_arm(POINT_LOCK, nth, act, &action);
    run_scenario(threads, keep_alive, when_full);
    bool reached = point_was_reached();
    for (int i = 0; i < TASKS; i++) {
        check_task(&tasks[i], statuses[i]);
    }
    check_task(&extra, extra_status);
    WAIT_UNTIL(atomic_load(&closer.turns) == closer_waits);
    WAIT_UNTIL(kit_stats(pool).threads == 0);
    kit_check_finished(pool);
    return reached;
}

static void run_all(unsigned threads, uint64_t keep_alive)
{
    for (enum wso_policy policy = WSO_WHEN_FULL_WAIT; policy <= WSO_WHEN_FULL_DROP_OLDEST; policy++) {
        for (int action = 0; action < (int)(sizeof actions / sizeof *actions); action++) {
            for (int nth = 1; run_interrupted(action, nth, threads, keep_alive, policy); nth++) {
            }
        }
    }
}

TEST(exactly_one_done_whatever_comes_between_with_one_thread)
{
    run_all(1, WSO_NEVER);
}

TEST(exactly_one_done_whatever_comes_between_with_two_threads)
{
    run_all(2, WSO_NEVER);
}

TEST(exactly_one_done_whatever_comes_between_without_keep_alive)
{
    run_all(2, 0);
}

/* 1. A submit has made a thread for its job, and is about to queue it. 2. The thread finds nothing,
 * and its keep_alive is nothing, so it ends. 3. The job is queued all the same: it needs another. */
static void wait_for_no_thread(void *argument)
{
    (void)argument;
    WAIT_UNTIL(kit_stats(pool).threads == 0);
}

TEST(a_thread_that_ends_before_its_job_is_queued_loses_no_job)
{
    for (int nth = 1; nth <= 5; nth++) {
        pool = kit_pool_keeping(0, 1, NULL);
        task_init(&extra, NULL);
        point_arm_mine(POINT_LOCK, nth, wait_for_no_thread, NULL);
        CHECK_EQ(kit_submit(pool, &extra), WSO_OK);
        WAIT_UNTIL(atomic_load(&extra.dones) == 1);
        (void)point_was_reached();
        kit_finish(pool);
    }
}

/* 1. A thread has been idle for too long. 2. Before it knows, a submit wakes it. 3. It must take the
 * job, and its next sleep must not end at once. */
static void submit_to_sleeper(void *argument)
{
    (void)argument;
    CHECK_EQ(kit_submit(pool, &extra), WSO_OK);
}

TEST(a_thread_that_is_woken_when_its_time_is_up_takes_the_job)
{
    struct watch watch = {0};
    struct task first;
    pool = kit_pool_keeping(check_ms(2), 1, &watch);
    task_init(&first, NULL);
    task_init(&extra, NULL);
    point_arm(POINT_TIMEOUT, 1, submit_to_sleeper, NULL);
    CHECK_EQ(kit_submit(pool, &first), WSO_OK);
    WAIT_UNTIL(atomic_load(&extra.dones) == 1);
    CHECK(pthread_equal(first.ran_on, extra.ran_on));
    WAIT_UNTIL(kit_stats(pool).threads == 0);
    CHECK(atomic_load(&watch.ended_at) - atomic_load(&watch.rested_at) >= check_ms(2));
    CHECK_EQ(atomic_load(&watch.begins), 1);
    kit_finish(pool);
}

/* 1. One thread is about to sleep, a second one sleeps. 2. Two jobs come: no thread is started or
 * woken, because the first is about to look. 3. The second has slept for too long. It must stay: the
 * job that the first will take may wait for the other. */
TEST(an_idle_thread_does_not_end_while_a_job_is_queued)
{
    struct task jobs[4];
    atomic_bool rest = true, first = false, second = false, last_ran = false;
    struct watch watch = {.hold_rest = &rest};
    pool = kit_pool_keeping(check_ms(40), 2, &watch);
    task_init(&jobs[0], &first);
    task_init(&jobs[1], &second);
    task_init(&jobs[2], &last_ran);
    task_init(&jobs[3], NULL);
    CHECK_EQ(kit_submit(pool, &jobs[0]), WSO_OK);
    CHECK_EQ(kit_submit(pool, &jobs[1]), WSO_OK);
    WAIT_UNTIL(kit_stats(pool).running == 2);
    atomic_store(&second, true);
    WAIT_UNTIL(kit_stats(pool).idle == 1);
    int rests = atomic_load(&watch.rests);
    atomic_store(&rest, false);
    atomic_store(&first, true);
    WAIT_UNTIL(atomic_load(&watch.rests) == rests + 1);
    CHECK_EQ(kit_submit(pool, &jobs[2]), WSO_OK);
    CHECK_EQ(kit_submit(pool, &jobs[3]), WSO_OK);
    WAIT_UNTIL(kit_stats(pool).idle == 0);
    atomic_store(&rest, true);
    WAIT_UNTIL(atomic_load(&jobs[3].dones) == 1);
    atomic_store(&last_ran, true);
    kit_finish(pool);
}

/* Signals that reach a worker do not wake it. */
TEST(a_signal_does_not_end_a_workers_sleep)
{
    for (int i = 0; i < 2; i++) {
        pool = kit_pool_keeping(i == 0 ? WSO_NEVER : check_ms(1000), 1, NULL);
        task_init(&extra, NULL);
        points_interrupt(3);
        CHECK_EQ(kit_submit(pool, &extra), WSO_OK);
        WAIT_UNTIL(atomic_load(&extra.dones) == 1);
        /* A thread that ended at the first would not sleep again. */
        WAIT_UNTIL(points_interruptions_left() == 0);
        kit_finish(pool);
    }
}

/* 1. A job is admitted, and its turn comes. 2. Signals interrupt the wait for that, again and again.
 * 3. The turn has come, so the caller must wait for the call that tells it, however long. */
TEST(signals_do_not_take_back_an_admission)
{
    atomic_bool begin = false;
    struct watch watch = {.hold_begin = &begin};
    pool = kit_pool(1, 1, WSO_WHEN_FULL_WAIT, &watch);
    task_init(&extra, NULL);
    /* The worker does not begin, so that the calls that fail are ours. */
    points_interrupt(3);
    CHECK_EQ(kit_submit_blocking(pool, &extra), WSO_OK);
    points_interrupt(0);
    atomic_store(&begin, true);
    WAIT_UNTIL(atomic_load(&extra.dones) == 1);
    kit_finish(pool);
}

/* A caller that does not want its job back waits on. */
TEST(after_a_signal_a_turn_still_stands)
{
    atomic_bool begin = false;
    struct watch watch = {.hold_begin = &begin};
    struct wso_waiter waiter;
    pool = kit_pool(1, 1, WSO_WHEN_FULL_WAIT, &watch);
    task_init(&extra, NULL);
    CHECK_EQ(wso_waiter_init(&waiter), WSO_OK);
    CHECK_EQ(wso_pool_submit(pool, &extra.job, WSO_ADMIT_BY_POLICY, &waiter.turn), WSO_OK);
    points_interrupt(2);
    CHECK_EQ(wso_waiter_wait(&waiter), WSO_EINTR);
    CHECK_EQ(wso_waiter_wait(&waiter), WSO_EINTR);
    CHECK_EQ(wso_waiter_wait(&waiter), WSO_OK);
    wso_waiter_destroy(&waiter);
    atomic_store(&begin, true);
    kit_finish(pool);
}

static atomic_bool gate;

static void finish_meanwhile(void *argument)
{
    (void)argument;
    atomic_store(&gate, true);
    WAIT_UNTIL(kit_stats(pool).threads == 0);
}

/* 1. A signal interrupts the wait for the pool's end. 2. The pool finishes, or not, before the waiter
 * takes its turn back. */
TEST(an_interrupted_wait_for_the_end_is_one_unless_the_end_came_meanwhile)
{
    for (int finishes = 0; finishes < 2; finishes++) {
        atomic_store(&gate, false);
        pool = kit_pool(1, 1, WSO_WHEN_FULL_WAIT, NULL);
        task_init(&extra, &gate);
        CHECK_EQ(kit_submit(pool, &extra), WSO_OK);
        WAIT_UNTIL(kit_stats(pool).running == 1);
        wso_pool_close(pool, WSO_ECLOSED);
        if (finishes) {
            point_arm_mine(POINT_LOCK, 2, finish_meanwhile, NULL);
        }
        points_interrupt(1);
        CHECK_EQ(wso_pool_wait(pool), finishes ? WSO_OK : WSO_EINTR);
        CHECK(!finishes || point_was_reached());
        atomic_store(&gate, true);
        if (!finishes) {
            CHECK_EQ(wso_pool_wait(pool), WSO_OK);
        }
        kit_check_finished(pool);
    }
}
