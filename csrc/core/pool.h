/* A pool: threads that take jobs from a queue, first come first served.
 *
 * Threads: start on demand up to `max_threads`, end after `keep_alive` of idleness, and the one that
 * went idle last is woken first, so that the others can end. Every function may be called by any
 * thread. One lock guards all of it; no hook and no job function is called with it held.
 *
 * Admission: a pool with a bound (`max_queue`) is full when queued and running jobs together reach
 * max_threads + max_queue. The policy then says what becomes of one more.
 *
 * Guarantees:
 *   - each accepted job ends in exactly one `done` (job.h);
 *   - a job that is cancelled before a worker took it never runs, and frees its place at once;
 *   - waiting jobs are admitted in the order in which they came;
 *   - after wso_pool_wait returned 0, no thread of the pool is left but those inside abandoned jobs.
 *
 * Shares: each thread holds one, so a pool outlives its owner for as long as a job of it runs.
 */
#ifndef WSO_POOL_H
#define WSO_POOL_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "histogram.h"
#include "job.h"

/* What becomes of a job that comes while the pool is full. */
enum wso_policy {
    WSO_WHEN_FULL_WAIT,        /* it is accepted and waits for its turn */
    WSO_WHEN_FULL_RAISE,       /* submit answers WSO_EFULL */
    WSO_WHEN_FULL_DROP_OLDEST, /* the oldest droppable queued job ends with WSO_EDROPPED */
};

enum wso_admission {
    WSO_ADMIT_BY_POLICY,
    WSO_ADMIT_ALWAYS, /* never waits, is never refused for fullness; counted when over the bound */
};

/* How the owner follows the pool's threads. All are called without a lock; none may be NULL. */
struct wso_pool_hooks {
    /* In submit, on its thread: prepare what the new thread will be known by. An error status
     * refuses the thread; WSO_ERAISED refuses the job with it, also where other threads run.
     * `owner` is NULL once the pool is disowned. */
    int (*prepare)(void *owner, void **user, const char **name);
    /* The thread that was prepared could not be made. */
    void (*unprepare)(void *user);
    /* On the new thread, first and last; `end` takes `user`. */
    void (*begin)(void *user);
    void (*end)(void *user);
    /* On the thread: it is about to sleep, and it is about to look for work after a sleep. */
    void (*rest)(void *user);
    void (*wake)(void *user);
};

struct wso_pool_config {
    unsigned max_threads; /* at least 1 */
    size_t max_queue;     /* 0 means without a bound */
    enum wso_policy when_full;
    uint64_t keep_alive; /* ns that a thread stays idle before it ends; WSO_NEVER keeps it */
    const struct wso_pool_hooks *hooks; /* borrowed for the pool's life */
    void *owner;                        /* borrowed until wso_pool_disown */
};

/* Somebody waits for a pool: for a job to be admitted, or for the pool to have finished. Owned by
 * who waits; `come` is called once, without a lock, on whichever thread brings it about. */
struct wso_turn {
    struct wso_link link;
    void (*come)(struct wso_turn *turn);
    bool came; /* set under the pool's lock, before `come` is called without it */
};

struct wso_pool_stats {
    unsigned threads; /* alive, also those that are ending */
    unsigned idle;
    size_t queued;
    size_t waiting;   /* accepted, not yet admitted to the bounded queue */
    size_t running;   /* abandoned ones included */
    size_t abandoned; /* run on, but nobody waits for them */
    uint64_t accepted;
    uint64_t completed; /* ran to their end */
    uint64_t cancelled; /* ended before they ran: cancelled or closed */
    uint64_t dropped;
    uint64_t over;     /* were admitted although the pool was full */
    uint64_t over_max; /* the most jobs that ever stood over the bound */
    uint64_t started;  /* threads started so far */
};

struct wso_pool;

/* A new pool with one share and no thread. WSO_ENOMEM; *pool is then NULL. */
int wso_pool_new(const struct wso_pool_config *config, struct wso_pool **pool);

struct wso_pool *wso_pool_share(struct wso_pool *pool);

/* Give a share back; the last one frees the pool. It must have been closed if it had threads. */
void wso_pool_release(struct wso_pool *pool);

/* Stack size in bytes of threads made from now on; 0 means the system's default. */
void wso_pool_set_stack_size(struct wso_pool *pool, size_t bytes);

/* The owner goes; hooks get NULL from now on. The caller keeps submit from running meanwhile. */
void wso_pool_disown(struct wso_pool *pool);

/* Hand in a job; accepted means WSO_OK, and the pool then takes it. `turn`, if given, comes as soon
 * as the job no longer waits for admission, which may be before this returns; without it the
 * caller is not told. Errors: WSO_ECLOSED, WSO_EBROKEN, WSO_EFULL; WSO_ETHREAD or WSO_ENOMEM when
 * no thread runs and none can be made. On an error the caller keeps the job. */
int wso_pool_submit(struct wso_pool *pool, struct wso_job *job, enum wso_admission admission,
                    struct wso_turn *turn);

/* If no worker took the job yet, end it with `status` and answer true. The caller vouches that the
 * job's `done` has not been called yet. */
bool wso_pool_cancel(struct wso_pool *pool, struct wso_job *job, int status);

/* Nobody waits for this running job any more: closing does not wait for it either. The caller
 * vouches that its `run` has not returned yet. May be called again. */
void wso_pool_abandon(struct wso_pool *pool, struct wso_job *job);

/* Somebody waits for it again. Vouched for likewise. */
void wso_pool_reclaim(struct wso_pool *pool, struct wso_job *job);

/* End everything that no worker took yet, with `status`. */
void wso_pool_cancel_all(struct wso_pool *pool, int status);

/* Accept nothing more; submit answers `status`. What was accepted runs, then the threads end.
 * Idempotent: the first status stays. */
void wso_pool_close(struct wso_pool *pool, int status);

/* The process ends: close, cancel what is not `kept`, abandon what is not kept and runs, and bring
 * up extra threads if abandoned jobs occupy those that kept jobs need. With `to_the_last` nothing is
 * abandoned, and the pool has finished only when its last thread is gone. */
void wso_pool_leave(struct wso_pool *pool, bool to_the_last);

/* `turn` comes when a closed pool has no job left that anybody waits for, and no thread but those
 * inside abandoned jobs. True: that is so already, and the turn will not come. */
bool wso_pool_when_finished(struct wso_pool *pool, struct wso_turn *turn);

/* Take that turn back. False: it came or is coming. */
bool wso_pool_retract(struct wso_pool *pool, struct wso_turn *turn);

/* Block until then, or until a signal handler ran: WSO_EINTR. */
int wso_pool_wait(struct wso_pool *pool);

/* Join the threads that have ended. */
void wso_pool_reap(struct wso_pool *pool);

void wso_pool_stats(struct wso_pool *pool, struct wso_pool_stats *stats);

/* How long jobs waited from submit to the start, and how long they ran. */
const struct wso_histogram *wso_pool_waited(const struct wso_pool *pool);
const struct wso_histogram *wso_pool_ran(const struct wso_pool *pool);

/* A turn that a thread blocks on. Submit with `&waiter.turn`, then await it. */
struct wso_waiter {
    struct wso_turn turn;
    sem_t came;
};

/* WSO_ENOMEM when the system has no semaphore to give. */
int wso_waiter_init(struct wso_waiter *waiter);
void wso_waiter_destroy(struct wso_waiter *waiter);

/* Block until the waiter's turn has come: WSO_OK, or WSO_EINTR when a signal handler ran first; the
 * turn then still stands, and may be waited for again. */
int wso_waiter_wait(struct wso_waiter *waiter);

/* Take back a job that was accepted with this waiter's turn, as if it had never been accepted. False:
 * the turn has come, also for the waiter, and the job may have ended. */
bool wso_pool_take_back(struct wso_pool *pool, struct wso_job *job, struct wso_waiter *waiter);

#endif
