/* pool.h: a thread that blocks until its job is admitted or the pool has finished, and the signals
 * that interrupt it. */
#include <errno.h>
#include <signal.h>

#include "check.h"
#include "kit.h"

static int wait_for_end(struct wso_pool *pool, struct task *task)
{
    (void)task;
    return wso_pool_wait(pool);
}

static atomic_bool open_all;
static struct task filling[2];

/* One thread, one place in the queue, both taken. */
static struct wso_pool *full_pool(void)
{
    struct wso_pool *pool = kit_pool(1, 1, WSO_WHEN_FULL_WAIT, NULL);
    atomic_store(&open_all, false);
    kit_reset_order();
    for (int i = 0; i < 2; i++) {
        task_init(&filling[i], &open_all);
        CHECK_EQ(kit_submit(pool, &filling[i]), WSO_OK);
    }
    return pool;
}

/* The handler holds its thread inside the interrupted call until the test lets it go. */
static atomic_int handled;
static atomic_bool let_go;

static void handler(int signal)
{
    (void)signal;
    int kept = errno;
    atomic_fetch_add(&handled, 1);
    WAIT_UNTIL(atomic_load(&let_go));
    errno = kept;
}

static void handle_signals(bool return_at_once)
{
    atomic_store(&handled, 0);
    atomic_store(&let_go, return_at_once);
    /* Without SA_RESTART, as Python installs its handlers. */
    CHECK_EQ(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = handler}, NULL), 0);
}

/* Signal the caller until its call has returned: one signal might come before it sleeps. */
static void interrupt(struct caller *caller)
{
    while (atomic_load(&caller->status) == -1) {
        CHECK_EQ(pthread_kill(caller->thread, SIGUSR1), 0);
        check_nap();
    }
}

TEST(a_blocking_submit_returns_at_once_while_there_is_room)
{
    struct task task;
    struct wso_pool *pool = kit_pool(1, 1, WSO_WHEN_FULL_WAIT, NULL);
    task_init(&task, NULL);
    CHECK_EQ(kit_submit_blocking(pool, &task), WSO_OK);
    kit_finish(pool);
    CHECK_EQ(atomic_load(&task.runs), 1);
}

TEST(a_blocking_submit_to_a_closed_pool_is_refused)
{
    struct task task;
    struct wso_pool *pool = kit_pool(1, 1, WSO_WHEN_FULL_WAIT, NULL);
    wso_pool_close(pool, WSO_EBROKEN);
    task_init(&task, NULL);
    CHECK_EQ(kit_submit_blocking(pool, &task), WSO_EBROKEN);
    kit_finish(pool);
}

TEST(blocking_submits_are_admitted_in_the_order_in_which_they_came)
{
    enum { CALLERS = 4 };
    struct task tasks[CALLERS];
    struct caller callers[CALLERS];
    struct wso_pool *pool = full_pool();
    for (unsigned i = 0; i < CALLERS; i++) {
        task_init(&tasks[i], NULL);
        caller_start(&callers[i], kit_submit_blocking, pool, &tasks[i]);
        WAIT_UNTIL(kit_stats(pool).waiting == i + 1);
    }
    atomic_store(&open_all, true);
    for (int i = 0; i < CALLERS; i++) {
        CHECK_EQ(caller_join(&callers[i]), WSO_OK);
    }
    kit_finish(pool);
    for (int i = 0; i < CALLERS; i++) {
        CHECK_EQ(atomic_load(&tasks[i].order), i + 3);
    }
}

TEST(a_blocking_submit_ends_when_its_job_is_cancelled)
{
    struct task task;
    struct caller caller;
    struct wso_pool *pool = full_pool();
    task_init(&task, NULL);
    caller_start(&caller, kit_submit_blocking, pool, &task);
    WAIT_UNTIL(kit_stats(pool).waiting == 1);
    CHECK(wso_pool_cancel(pool, &task.job, WSO_ECANCELLED));
    CHECK_EQ(caller_join(&caller), WSO_OK);
    CHECK_EQ(atomic_load(&task.status), WSO_ECANCELLED);
    CHECK_EQ(atomic_load(&task.dones), 1);
    atomic_store(&open_all, true);
    kit_finish(pool);
}

TEST(a_signal_interrupts_a_blocking_submit_and_the_job_was_not_accepted)
{
    struct task task;
    struct caller caller;
    struct wso_pool *pool = full_pool();
    handle_signals(true);
    task_init(&task, NULL);
    caller_start(&caller, kit_submit_blocking, pool, &task);
    WAIT_UNTIL(kit_stats(pool).waiting == 1);
    interrupt(&caller);
    CHECK_EQ(caller_join(&caller), WSO_EINTR);
    CHECK_EQ(kit_stats(pool).waiting, 0);
    CHECK_EQ(kit_stats(pool).accepted, 2);
    CHECK_EQ(kit_stats(pool).cancelled, 0);
    CHECK(!wso_link_listed(&task.job.link));
    CHECK(!wso_pool_cancel(pool, &task.job, WSO_ECANCELLED));
    CHECK_EQ(atomic_load(&task.dones), 0);
    atomic_store(&open_all, true);
    /* The caller has it, and may hand it in again. */
    CHECK_EQ(kit_submit_blocking(pool, &task), WSO_OK);
    kit_finish(pool);
    CHECK_EQ(atomic_load(&task.runs), 1);
}

/* 1. A thread blocks in submit. 2. A signal comes; its handler is running on that thread.
 * 3. A place gets free, and the job is admitted. 4. The handler returns, and the wait says EINTR.
 * The job was accepted all the same, and the caller must learn that. */
TEST(a_blocking_submit_interrupted_and_admitted_meanwhile_is_accepted)
{
    struct task task;
    struct caller caller;
    struct wso_pool *pool = full_pool();
    handle_signals(false);
    task_init(&task, NULL);
    caller_start(&caller, kit_submit_blocking, pool, &task);
    WAIT_UNTIL(kit_stats(pool).waiting == 1);
    CHECK_EQ(pthread_kill(caller.thread, SIGUSR1), 0);
    WAIT_UNTIL(atomic_load(&handled) == 1);
    atomic_store(&open_all, true);
    WAIT_UNTIL(atomic_load(&task.dones) == 1);
    atomic_store(&let_go, true);
    CHECK_EQ(caller_join(&caller), WSO_OK);
    CHECK_EQ(kit_stats(pool).accepted, 3);
    kit_finish(pool);
}

TEST(wait_returns_when_the_last_thread_has_ended)
{
    struct caller caller;
    struct wso_pool *pool = full_pool();
    wso_pool_close(pool, WSO_ECLOSED);
    caller_start(&caller, wait_for_end, pool, NULL);
    WAIT_UNTIL(kit_stats(pool).running == 1);
    CHECK_EQ(atomic_load(&caller.status), -1);
    atomic_store(&open_all, true);
    CHECK_EQ(caller_join(&caller), WSO_OK);
    CHECK_EQ(atomic_load(&filling[1].dones), 1);
    CHECK_EQ(kit_stats(pool).threads, 0);
    /* Finished stays finished. */
    CHECK_EQ(wso_pool_wait(pool), WSO_OK);
    kit_check_finished(pool);
}

TEST(a_signal_interrupts_a_wait_for_the_end)
{
    struct caller caller;
    struct wso_pool *pool = full_pool();
    handle_signals(true);
    wso_pool_close(pool, WSO_ECLOSED);
    caller_start(&caller, wait_for_end, pool, NULL);
    interrupt(&caller);
    CHECK_EQ(caller_join(&caller), WSO_EINTR);
    atomic_store(&open_all, true);
    kit_finish(pool);
}

/* As the story above: the pool finishes while the handler runs. */
TEST(a_wait_interrupted_and_finished_meanwhile_is_finished)
{
    struct caller callers[2];
    struct wso_pool *pool = full_pool();
    handle_signals(false);
    wso_pool_close(pool, WSO_ECLOSED);
    caller_start(&callers[0], wait_for_end, pool, NULL);
    caller_start(&callers[1], wait_for_end, pool, NULL);
    WAIT_UNTIL(kit_stats(pool).running == 1);
    CHECK_EQ(pthread_kill(callers[0].thread, SIGUSR1), 0);
    WAIT_UNTIL(atomic_load(&handled) == 1);
    atomic_store(&open_all, true);
    CHECK_EQ(caller_join(&callers[1]), WSO_OK);
    atomic_store(&let_go, true);
    CHECK_EQ(caller_join(&callers[0]), WSO_OK);
    kit_check_finished(pool);
}
