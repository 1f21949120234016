/* The pool's queue: admission, cancelling, closing. See pool.h for the contract, workers.c for the
 * threads. `_held` functions need the pool's lock; jobs and turns that end are gathered on a local
 * list under the lock and called after it is released. */
#include "pool.h"

#include <stdlib.h>

#include "clock.h"
#include "pool_inner.h"

bool wso_pool_full_held(const struct wso_pool *pool)
{
    const struct wso_pool_config *config = &pool->config;
    return config->max_queue != 0 &&
           pool->stats.queued + pool->stats.running >= config->max_threads + config->max_queue;
}

void wso_pool_enqueue_held(struct wso_pool *pool, struct wso_job *job)
{
    WSO_ASSERT_HELD(&pool->lock);
    job->state = WSO_JOB_QUEUED;
    wso_list_push_back(&pool->queue, &job->link);
    pool->stats.queued++;
}

/* The job no longer waits for admission: tell who waits for that. */
static void turn_comes_held(struct wso_job *job, struct wso_list *come)
{
    if (job->turn != NULL) {
        job->turn->came = true;
        wso_list_push_back(come, &job->turn->link);
        job->turn = NULL;
    }
}

void wso_pool_admit_held(struct wso_pool *pool, struct wso_list *come)
{
    WSO_ASSERT_HELD(&pool->lock);
    while (!wso_list_empty(&pool->waiting) && !wso_pool_full_held(pool)) {
        struct wso_job *job = WSO_ITEM(wso_list_pop_front(&pool->waiting), struct wso_job, link);
        pool->stats.waiting--;
        turn_comes_held(job, come);
        wso_pool_enqueue_held(pool, job);
    }
}

/* Take one job that no worker took yet off its list. */
static void unlink_held(struct wso_pool *pool, struct wso_job *job, struct wso_list *come)
{
    WSO_ASSERT_HELD(&pool->lock);
    wso_link_unlink(&job->link);
    if (job->state == WSO_JOB_WAITING) {
        pool->stats.waiting--;
    } else {
        pool->stats.queued--;
    }
    turn_comes_held(job, come);
    job->state = WSO_JOB_NEW;
}

/* Move the jobs of one list that may go to `jobs`. */
static void take_from_held(struct wso_pool *pool, struct wso_list *from, bool kept_too,
                           struct wso_list *jobs, struct wso_list *come)
{
    WSO_ASSERT_HELD(&pool->lock);
    struct wso_link *link = from->head.next;
    while (link != &from->head) {
        struct wso_job *job = WSO_ITEM(link, struct wso_job, link);
        link = link->next;
        if (kept_too || !job->kept) {
            unlink_held(pool, job, come);
            wso_list_push_back(jobs, &job->link);
            pool->stats.cancelled++;
        }
    }
}

void wso_pool_take_untaken_held(struct wso_pool *pool, struct wso_list *jobs, struct wso_list *come)
{
    WSO_ASSERT_HELD(&pool->lock);
    take_from_held(pool, &pool->queue, true, jobs, come);
    take_from_held(pool, &pool->waiting, true, jobs, come);
}

void wso_jobs_end(struct wso_list *jobs, int status)
{
    struct wso_link *link;
    while ((link = wso_list_pop_front(jobs)) != NULL) {
        struct wso_job *job = WSO_ITEM(link, struct wso_job, link);
        job->done(job, status);
    }
}

void wso_turns_come(struct wso_list *come)
{
    struct wso_link *link;
    while ((link = wso_list_pop_front(come)) != NULL) {
        struct wso_turn *turn = WSO_ITEM(link, struct wso_turn, link);
        turn->come(turn);
    }
}

int wso_pool_new(const struct wso_pool_config *config, struct wso_pool **pool)
{
    *pool = NULL;
    struct wso_pool *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return WSO_ENOMEM;
    }
    int status = wso_lock_init(&made->lock);
    if (status != WSO_OK) {
        free(made);
        return status;
    }
    made->config = *config;
    if (config->max_queue > SIZE_MAX - config->max_threads) {
        /* Their sum is the bound. */
        made->config.max_queue = SIZE_MAX - config->max_threads;
    }
    atomic_init(&made->stack_size, 0);
    atomic_init(&made->shares, 1);
    wso_list_init(&made->queue);
    wso_list_init(&made->waiting);
    wso_list_init(&made->idle);
    wso_list_init(&made->workers);
    wso_list_init(&made->ended);
    wso_list_init(&made->closers);
    wso_histogram_init(&made->waited);
    wso_histogram_init(&made->ran);
    *pool = made;
    return WSO_OK;
}

struct wso_pool *wso_pool_share(struct wso_pool *pool)
{
    atomic_fetch_add_explicit(&pool->shares, 1, memory_order_relaxed);
    return pool;
}

void wso_pool_release(struct wso_pool *pool)
{
    if (atomic_fetch_sub_explicit(&pool->shares, 1, memory_order_acq_rel) != 1) {
        return;
    }
    wso_pool_reap(pool);
    wso_lock_destroy(&pool->lock);
    free(pool);
}

void wso_pool_set_stack_size(struct wso_pool *pool, size_t bytes)
{
    atomic_store_explicit(&pool->stack_size, bytes, memory_order_relaxed);
}

void wso_pool_disown(struct wso_pool *pool)
{
    wso_lock_acquire(&pool->lock);
    pool->config.owner = NULL;
    wso_lock_release(&pool->lock);
}

/* The oldest queued job that may be dropped, off the queue; NULL if there is none. */
static struct wso_job *drop_oldest_held(struct wso_pool *pool, struct wso_list *come)
{
    WSO_ASSERT_HELD(&pool->lock);
    for (struct wso_link *link = pool->queue.head.next; link != &pool->queue.head;
         link = link->next) {
        struct wso_job *job = WSO_ITEM(link, struct wso_job, link);
        if (job->droppable) {
            unlink_held(pool, job, come);
            pool->stats.dropped++;
            return job;
        }
    }
    return NULL;
}

/* Accept a job that finds the pool full, or refuse it. */
static int admit_when_full_held(struct wso_pool *pool, struct wso_job *job,
                                enum wso_admission admission, struct wso_turn *turn,
                                struct wso_list *dropped)
{
    WSO_ASSERT_HELD(&pool->lock);
    struct wso_job *victim;
    struct wso_list none;
    if (admission == WSO_ADMIT_ALWAYS) {
        wso_pool_enqueue_held(pool, job);
        const struct wso_pool_config *config = &pool->config;
        uint64_t over =
            pool->stats.queued + pool->stats.running - config->max_threads - config->max_queue;
        pool->stats.over++;
        pool->stats.over_max = over > pool->stats.over_max ? over : pool->stats.over_max;
        return WSO_OK;
    }
    switch (pool->config.when_full) {
    case WSO_WHEN_FULL_WAIT:
        job->state = WSO_JOB_WAITING;
        job->turn = turn;
        wso_list_push_back(&pool->waiting, &job->link);
        pool->stats.waiting++;
        return WSO_OK;
    case WSO_WHEN_FULL_DROP_OLDEST:
        /* A job on the queue has no turn: it was admitted. */
        wso_list_init(&none);
        victim = drop_oldest_held(pool, &none);
        if (victim == NULL) {
            return WSO_EFULL;
        }
        wso_list_push_back(dropped, &victim->link);
        wso_pool_enqueue_held(pool, job);
        return WSO_OK;
    default:
        return WSO_EFULL;
    }
}

/* See to it that a thread will take one more job. The lock is released while one is made. */
static int bring_thread_held(struct wso_pool *pool)
{
    WSO_ASSERT_HELD(&pool->lock);
    int status = pool->refusal;
    bool made = true;
    /* Again, because the thread may be gone before the job comes: inside the job of another, or
     * idle for too long. */
    while (status == WSO_OK && made && wso_pool_reserve_worker_held(pool, pool->stats.queued + 1)) {
        wso_lock_release(&pool->lock);
        status = wso_pool_start_worker(pool);
        wso_lock_acquire(&pool->lock);
        made = status == WSO_OK;
        if (made || (pool->threads > 0 && status != WSO_ERAISED)) {
            status = pool->refusal;
        }
    }
    return status;
}

int wso_pool_submit(struct wso_pool *pool, struct wso_job *job, enum wso_admission admission,
                    struct wso_turn *turn)
{
    struct wso_list dropped, come;
    wso_list_init(&dropped);
    wso_list_init(&come);
    job->submitted_at = wso_now();
    job->turn = NULL;
    job->worker = NULL;

    wso_lock_acquire(&pool->lock);
    /* The thread comes before the job: if it cannot be made, the job was never accepted. */
    int status = bring_thread_held(pool);
    if (status == WSO_OK) {
        /* While others wait the pool is full: they come in as soon as it is not. */
        if (wso_pool_full_held(pool)) {
            status = admit_when_full_held(pool, job, admission, turn, &dropped);
        } else {
            wso_pool_enqueue_held(pool, job);
        }
    }
    if (status == WSO_OK) {
        pool->stats.accepted++;
        if (turn != NULL && job->state != WSO_JOB_WAITING) {
            turn->came = true;
            wso_list_push_back(&come, &turn->link);
        }
        wso_pool_wake_held(pool);
    }
    wso_lock_release(&pool->lock);
    /* From here on the job may have ended: it is not ours any more. */
    wso_turns_come(&come);
    wso_jobs_end(&dropped, WSO_EDROPPED);
    return status;
}

bool wso_pool_cancel(struct wso_pool *pool, struct wso_job *job, int status)
{
    struct wso_list come;
    wso_list_init(&come);
    wso_lock_acquire(&pool->lock);
    bool untaken = job->state == WSO_JOB_WAITING || job->state == WSO_JOB_QUEUED;
    if (untaken) {
        unlink_held(pool, job, &come);
        pool->stats.cancelled++;
        wso_pool_admit_held(pool, &come);
        wso_pool_tell_closers_held(pool, &come);
    }
    wso_lock_release(&pool->lock);
    if (untaken) {
        job->done(job, status);
    }
    wso_turns_come(&come);
    return untaken;
}

void wso_pool_abandon(struct wso_pool *pool, struct wso_job *job)
{
    struct wso_list come;
    wso_list_init(&come);
    wso_lock_acquire(&pool->lock);
    if (job->state == WSO_JOB_RUNNING && !job->worker->abandoned) {
        job->worker->abandoned = true;
        pool->stats.abandoned++;
        wso_pool_tell_closers_held(pool, &come);
    }
    wso_lock_release(&pool->lock);
    wso_turns_come(&come);
}

void wso_pool_reclaim(struct wso_pool *pool, struct wso_job *job)
{
    wso_lock_acquire(&pool->lock);
    if (job->worker->abandoned && !pool->leaving) {
        job->worker->abandoned = false;
        pool->stats.abandoned--;
    }
    wso_lock_release(&pool->lock);
}

void wso_pool_cancel_all(struct wso_pool *pool, int status)
{
    struct wso_list jobs, come;
    wso_list_init(&jobs);
    wso_list_init(&come);
    wso_lock_acquire(&pool->lock);
    wso_pool_take_untaken_held(pool, &jobs, &come);
    wso_pool_tell_closers_held(pool, &come);
    wso_lock_release(&pool->lock);
    wso_turns_come(&come);
    wso_jobs_end(&jobs, status);
}

void wso_pool_close(struct wso_pool *pool, int status)
{
    struct wso_list come;
    wso_list_init(&come);
    wso_lock_acquire(&pool->lock);
    if (pool->refusal == WSO_OK) {
        pool->refusal = status;
    }
    wso_pool_wake_all_held(pool);
    wso_pool_tell_closers_held(pool, &come);
    wso_lock_release(&pool->lock);
    wso_turns_come(&come);
}

/* Let closing not wait for what runs and was not promised to be waited for. */
static void abandon_unkept_held(struct wso_pool *pool)
{
    WSO_ASSERT_HELD(&pool->lock);
    for (struct wso_link *link = pool->workers.head.next; link != &pool->workers.head;
         link = link->next) {
        struct wso_worker *worker = WSO_ITEM(link, struct wso_worker, link);
        if (worker->busy && !worker->kept && !worker->abandoned) {
            worker->abandoned = true;
            pool->stats.abandoned++;
        }
    }
}

void wso_pool_leave(struct wso_pool *pool, bool to_the_last)
{
    struct wso_list jobs, come;
    wso_list_init(&jobs);
    wso_list_init(&come);
    wso_pool_close(pool, WSO_ECLOSED);
    wso_lock_acquire(&pool->lock);
    pool->leaving = true;
    pool->to_the_last = to_the_last;
    take_from_held(pool, &pool->queue, false, &jobs, &come);
    take_from_held(pool, &pool->waiting, false, &jobs, &come);
    if (!to_the_last) {
        abandon_unkept_held(pool);
    }
    wso_pool_admit_held(pool, &come);
    bool start = wso_pool_reserve_worker_held(pool, pool->stats.queued);
    wso_pool_tell_closers_held(pool, &come);
    wso_lock_release(&pool->lock);
    wso_turns_come(&come);
    wso_jobs_end(&jobs, WSO_ECANCELLED);
    if (start) {
        /* One is enough: it takes job after job. */
        (void)wso_pool_start_worker(pool);
    }
}

void wso_pool_stats(struct wso_pool *pool, struct wso_pool_stats *stats)
{
    wso_lock_acquire(&pool->lock);
    *stats = pool->stats;
    wso_lock_release(&pool->lock);
}

const struct wso_histogram *wso_pool_waited(const struct wso_pool *pool)
{
    return &pool->waited;
}

const struct wso_histogram *wso_pool_ran(const struct wso_pool *pool)
{
    return &pool->ran;
}
