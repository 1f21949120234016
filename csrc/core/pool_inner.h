/* What the files of the pool share and nobody else may see: pool.c has the queue and admission,
 * workers.c the threads, pool_wait.c who waits for either.
 */
#ifndef WSO_POOL_INNER_H
#define WSO_POOL_INNER_H

#include "list.h"
#include "lock.h"
#include "pool.h"
#include "thread.h"

struct wso_worker {
    struct wso_link link;      /* in the pool's workers, later in its ended */
    struct wso_link idle_link; /* in the pool's idle */
    struct wso_pool *pool;     /* shared */
    struct wso_thread thread;
    sem_t wakes; /* posted once each time `woken` is set */
    void *user; /* the owner's, handed to the hooks */

    /* Guarded by the pool's lock. */
    bool woken;     /* taken off the idle list by a submit that wants it to look */
    bool busy;      /* runs a job; the rest is about that job, which `done` may have freed */
    bool kept;      /* is waited for at the end of the process */
    bool abandoned; /* nobody waits for it any more */
};

struct wso_pool {
    struct wso_lock lock;
    struct wso_pool_config config; /* constant, except owner */
    atomic_size_t stack_size;
    atomic_uint shares;

    /* All below is guarded by the lock. */
    struct wso_list queue;
    struct wso_list waiting;
    struct wso_list idle; /* a stack: the last to go idle is first */
    struct wso_list workers;
    struct wso_list ended; /* threads to be joined */
    struct wso_list closers;
    unsigned threads; /* that still take jobs */
    size_t starting; /* threads before or in the owner's `begin` */
    /* Threads that will look at the queue without further ado: begun, just woken, or between two
     * jobs. */
    size_t ready;
    int refusal; /* what submit answers; WSO_OK while open */
    bool leaving;
    bool to_the_last; /* closing waits for abandoned jobs too */
    struct wso_pool_stats stats;

    struct wso_histogram waited;
    struct wso_histogram ran;
};

/* pool.c */
bool wso_pool_full_held(const struct wso_pool *pool);
void wso_pool_enqueue_held(struct wso_pool *pool, struct wso_job *job);
/* Let waiting jobs in while there is room; the turns that came go to `come`. */
void wso_pool_admit_held(struct wso_pool *pool, struct wso_list *come);
/* Take all jobs that no worker took off the pool. */
void wso_pool_take_untaken_held(struct wso_pool *pool, struct wso_list *jobs,
                                struct wso_list *come);
/* Without the lock: call `done` of each, `come` of each. */
void wso_jobs_end(struct wso_list *jobs, int status);
void wso_turns_come(struct wso_list *come);

/* workers.c */
/* Is one more thread needed for one more job, and allowed? Reserves it if so. */
bool wso_pool_reserve_worker_held(struct wso_pool *pool, size_t queued);
/* Make the reserved thread, without the lock. If that fails and no other thread will look at the
 * queue, all that no worker took ends with the same status. */
int wso_pool_start_worker(struct wso_pool *pool);
/* Wake an idle thread if jobs are queued and no thread is about to look. */
void wso_pool_wake_held(struct wso_pool *pool);
void wso_pool_wake_all_held(struct wso_pool *pool);

/* pool_wait.c */
bool wso_pool_finished_held(const struct wso_pool *pool);
/* If the pool has finished, move those who wait for that to `come`. */
void wso_pool_tell_closers_held(struct wso_pool *pool, struct wso_list *come);

#endif
