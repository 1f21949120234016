/* The pool's threads: when one is started, woken or ended, and how it takes a job. See pool.h.
 *
 * A thread is counted as `starting` until its owner's `begin` has returned, which may take its time,
 * and then, as after a wake-up or a job, as `ready` until it has looked at the queue. While one is
 * ready no other is woken: it wakes the next itself when it takes a job and leaves others behind.
 * So a burst of short jobs wakes one or two threads and not all of them, of which most would find
 * nothing. A thread is started only if more jobs are queued than threads are starting, ready or
 * idle.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>

#include "clock.h"
#include "pool_inner.h"

bool wso_pool_reserve_worker_held(struct wso_pool *pool, size_t queued)
{
    WSO_ASSERT_HELD(&pool->lock);
    unsigned capacity = pool->config.max_threads;
    if (pool->leaving) {
        /* Threads inside abandoned jobs may never come back. */
        capacity += (unsigned)pool->stats.abandoned;
    }
    size_t coming = pool->starting + pool->ready + pool->stats.idle;
    if (queued <= coming || pool->threads >= capacity) {
        return false;
    }
    pool->threads++;
    pool->starting++;
    return true;
}

static void wake_first_held(struct wso_pool *pool)
{
    WSO_ASSERT_HELD(&pool->lock);
    struct wso_worker *worker =
        WSO_ITEM(wso_list_pop_front(&pool->idle), struct wso_worker, idle_link);
    pool->stats.idle--;
    pool->ready++;
    worker->woken = true;
    /* Under the lock, because the worker may end and be freed as soon as it is released. */
    (void)sem_post(&worker->wakes);
}

void wso_pool_wake_held(struct wso_pool *pool)
{
    WSO_ASSERT_HELD(&pool->lock);
    if (pool->stats.queued > 0 && pool->ready == 0 && !wso_list_empty(&pool->idle)) {
        wake_first_held(pool);
    }
}

void wso_pool_wake_all_held(struct wso_pool *pool)
{
    WSO_ASSERT_HELD(&pool->lock);
    while (!wso_list_empty(&pool->idle)) {
        wake_first_held(pool);
    }
}

/* Sleep until posted; false when the deadline passed first. */
static bool sleep_until(sem_t *posted, uint64_t deadline)
{
    struct timespec at = wso_deadline_timespec(deadline);
    int failed;
    do {
        failed = deadline == WSO_NEVER ? sem_wait(posted)
                                       : sem_clockwait(posted, CLOCK_MONOTONIC, &at);
    } while (failed && errno == EINTR);
    return !failed;
}

/* Sleep until a submit wants this thread to look; false when it was idle for too long. A semaphore
 * and not a condition, from which a thread returns with the lock marked as contended: whoever
 * releases it then makes a system call for nobody. */
static bool idle_held(struct wso_worker *worker)
{
    struct wso_pool *pool = worker->pool;
    WSO_ASSERT_HELD(&pool->lock);
    uint64_t keep_alive = pool->config.keep_alive;
    uint64_t deadline = keep_alive == WSO_NEVER ? WSO_NEVER : wso_deadline_after(keep_alive);
    worker->woken = false;
    wso_list_push_front(&pool->idle, &worker->idle_link);
    pool->stats.idle++;
    wso_lock_release(&pool->lock);
    bool posted = sleep_until(&worker->wakes, deadline);
    wso_lock_acquire(&pool->lock);
    if (worker->woken) {
        if (!posted) {
            /* Woken in the moment after the deadline: the post is there already. */
            (void)sleep_until(&worker->wakes, WSO_NEVER);
        }
        return true;
    }
    wso_link_unlink(&worker->idle_link);
    pool->stats.idle--;
    if (wso_list_empty(&pool->queue)) {
        return false;
    }
    /* That a thread was idle may be why no other was started for the job. */
    pool->ready++;
    return true;
}

/* Take the first job and run it; the lock is released meanwhile. */
static void run_next_held(struct wso_worker *worker)
{
    WSO_ASSERT_HELD(&worker->pool->lock);
    struct wso_pool *pool = worker->pool;
    struct wso_job *job = WSO_ITEM(wso_list_pop_front(&pool->queue), struct wso_job, link);
    pool->stats.queued--;
    pool->stats.running++;
    pool->ready--;
    job->state = WSO_JOB_RUNNING;
    job->worker = worker;
    worker->busy = true;
    worker->kept = job->kept;
    wso_pool_wake_held(pool);
    wso_lock_release(&pool->lock);

    uint64_t started = wso_now();
    wso_histogram_record(&pool->waited, started - job->submitted_at);
    job->run(job);
    wso_histogram_record(&pool->ran, wso_now() - started);
    job->done(job, WSO_OK);

    struct wso_list come;
    wso_list_init(&come);
    wso_lock_acquire(&pool->lock);
    pool->stats.running--;
    pool->stats.completed++;
    pool->stats.abandoned -= worker->abandoned;
    worker->busy = worker->abandoned = false;
    pool->ready++;
    wso_pool_admit_held(pool, &come);
    if (!wso_list_empty(&come)) {
        wso_lock_release(&pool->lock);
        wso_turns_come(&come);
        wso_lock_acquire(&pool->lock);
    }
}

/* Take jobs until the pool is closed and empty, or the thread was idle for too long. */
static void serve_held(struct wso_worker *worker)
{
    WSO_ASSERT_HELD(&worker->pool->lock);
    struct wso_pool *pool = worker->pool;
    const struct wso_pool_hooks *hooks = pool->config.hooks;
    bool rested = false;
    for (;;) {
        if (!wso_list_empty(&pool->queue)) {
            if (!rested) {
                run_next_held(worker);
                continue;
            }
            /* The job stays queued, and can be cancelled, until this thread is fit to run it. */
            wso_lock_release(&pool->lock);
            hooks->wake(worker->user);
            wso_lock_acquire(&pool->lock);
            rested = false;
        } else if (!rested) {
            wso_lock_release(&pool->lock);
            hooks->rest(worker->user);
            wso_lock_acquire(&pool->lock);
            rested = true;
        } else {
            pool->ready--;
            if (pool->refusal != WSO_OK || !idle_held(worker)) {
                break;
            }
        }
    }
    pool->threads--;
}

static void *worker_main(void *argument)
{
    struct wso_worker *worker = argument;
    struct wso_pool *pool = worker->pool;
    wso_thread_let_waker_finish();
    pool->config.hooks->begin(worker->user);
    wso_lock_acquire(&pool->lock);
    pool->starting--;
    pool->ready++;
    serve_held(worker);
    wso_lock_release(&pool->lock);
    pool->config.hooks->end(worker->user);
    /* So that of all threads that ended before, hardly one is left to be joined. */
    wso_pool_reap(pool);

    struct wso_list come;
    wso_list_init(&come);
    wso_lock_acquire(&pool->lock);
    pool->stats.threads--;
    wso_link_unlink(&worker->link);
    wso_list_push_back(&pool->ended, &worker->link);
    wso_pool_tell_closers_held(pool, &come);
    wso_lock_release(&pool->lock);
    wso_turns_come(&come);
    wso_pool_release(pool);
    return NULL;
}

/* A worker and its thread; on an error nothing is left of either. */
static int make_worker(struct wso_pool *pool)
{
    const struct wso_pool_hooks *hooks = pool->config.hooks;
    struct wso_worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL) {
        return WSO_ENOMEM;
    }
    worker->pool = pool;
    struct wso_thread_options options = {
        .stack_size = atomic_load_explicit(&pool->stack_size, memory_order_relaxed),
    };
    int status = WSO_ENOMEM;
    if (sem_init(&worker->wakes, 0, 0) != 0) {
        goto fail_memory;
    }
    status = hooks->prepare(pool->config.owner, &worker->user, &options.name);
    if (status != WSO_OK) {
        goto fail_semaphore;
    }
    (void)wso_pool_share(pool);
    wso_lock_acquire(&pool->lock);
    wso_list_push_back(&pool->workers, &worker->link);
    pool->stats.threads++;
    pool->stats.started++;
    /* Under the lock, so that the thread cannot end before `thread` is written. */
    status = wso_thread_start(&worker->thread, &options, worker_main, worker);
    if (status != WSO_OK) {
        wso_link_unlink(&worker->link);
        pool->stats.threads--;
        pool->stats.started--;
    }
    wso_lock_release(&pool->lock);
    if (status == WSO_OK) {
        return WSO_OK;
    }
    hooks->unprepare(worker->user);
    wso_pool_release(pool);
fail_semaphore:
    (void)sem_destroy(&worker->wakes);
fail_memory:
    free(worker);
    return status;
}

int wso_pool_start_worker(struct wso_pool *pool)
{
    int status = make_worker(pool);
    if (status == WSO_OK) {
        return WSO_OK;
    }
    struct wso_list jobs, come;
    wso_list_init(&jobs);
    wso_list_init(&come);
    wso_lock_acquire(&pool->lock);
    pool->threads--;
    pool->starting--;
    /* Otherwise the jobs wait for another thread. */
    if (pool->threads == (pool->leaving ? pool->stats.abandoned : 0)) {
        /* Others may have queued jobs because they saw the reserved thread. */
        wso_pool_take_untaken_held(pool, &jobs, &come);
    }
    wso_pool_tell_closers_held(pool, &come);
    wso_lock_release(&pool->lock);
    wso_turns_come(&come);
    wso_jobs_end(&jobs, status);
    return status;
}

void wso_pool_reap(struct wso_pool *pool)
{
    struct wso_list ended;
    wso_list_init(&ended);
    wso_lock_acquire(&pool->lock);
    wso_list_take_all(&ended, &pool->ended);
    wso_lock_release(&pool->lock);
    struct wso_link *link;
    while ((link = wso_list_pop_front(&ended)) != NULL) {
        struct wso_worker *worker = WSO_ITEM(link, struct wso_worker, link);
        if (pthread_equal(worker->thread.id, pthread_self())) {
            /* The pool's last thread frees the pool, and cannot join itself. */
            (void)pthread_detach(worker->thread.id);
        } else {
            wso_thread_join(&worker->thread);
        }
        (void)sem_destroy(&worker->wakes);
        free(worker);
    }
}
