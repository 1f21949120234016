/* What the tests of the pool share: jobs that record their life, an owner that records its threads'.
 *
 * Every callback checks that no lock is held and that it comes when its contract says so; the kit
 * itself has no locks, only atomics, so that a test's threads meet nowhere but in the core.
 */
#ifndef KIT_H
#define KIT_H

#include <pthread.h>
#include <stdatomic.h>

#include "pool.h"

/* The owner of a pool in the tests. */
struct watch {
    atomic_int prepares, unprepares, begins, ends, rests, wakes;
    atomic_int allowed;         /* so many threads may be prepared yet; then `refusal` */
    int refusal;                /* WSO_OK: all are allowed */
    atomic_bool *hold_prepare;  /* prepare waits until it is true; NULL: it does not wait */
    atomic_bool *hold_begin;    /* and so a new thread */
    atomic_bool *hold_rest;     /* and so a thread that is about to sleep */
    const char *name;           /* NULL: a default one */
    atomic_uint_fast64_t rested_at;
    atomic_uint_fast64_t ended_at;
};

/* A job that records its life. */
struct task {
    struct wso_job job;
    struct wso_turn turn;
    atomic_bool *hold; /* run waits until it is true; NULL: it does not wait */
    void (*act)(struct task *task); /* called in run, after the wait; may be NULL */
    void *data;                     /* for act */
    atomic_int started, runs, dones, turns;
    atomic_int status; /* what done was told */
    atomic_int order;  /* the how-manieth of all jobs to start since kit_reset_order */
    atomic_bool may_abandon; /* run has begun and not ended */
    atomic_int pins;         /* run does not end before this is 0 */
    pthread_t ran_on, done_on;
};

extern const struct wso_pool_hooks kit_hooks;

void kit_reset_order(void);

void task_init(struct task *task, atomic_bool *hold);

/* Keep a running job from ending while it is abandoned, as the pool's contract asks of its caller.
 * False: it does not run any more, or not yet. */
bool task_abandon(struct wso_pool *pool, struct task *task);

/* The same, to be waited for again. */
bool task_reclaim(struct wso_pool *pool, struct task *task);

/* A pool whose threads stay; a NULL watch is allowed. */
struct wso_pool *kit_pool(unsigned max_threads, size_t max_queue, enum wso_policy when_full,
                          struct watch *watch);
struct wso_pool *kit_pool_keeping(uint64_t keep_alive, unsigned max_threads, struct watch *watch);

/* Submit by the pool's policy; the status. */
int kit_submit(struct wso_pool *pool, struct task *task);

/* As above, with the task's own turn. */
int kit_submit_turn(struct wso_pool *pool, struct task *task);

/* Submit, and block until admitted. */
int kit_submit_blocking(struct wso_pool *pool, struct task *task);

/* A thread inside a call of the pool; `status` is -1 until the call has returned. */
struct caller {
    int (*call)(struct wso_pool *pool, struct task *task);
    struct wso_pool *pool;
    struct task *task; /* what the call is given */
    pthread_t thread;
    atomic_int status;
};

void caller_start(struct caller *caller, int (*call)(struct wso_pool *, struct task *),
                  struct wso_pool *pool, struct task *task);

/* Wait for its return; the status. */
int caller_join(struct caller *caller);

struct wso_pool_stats kit_stats(struct wso_pool *pool);

/* Close the pool, wait for its end, check that all its counts agree, and release it. */
void kit_finish(struct wso_pool *pool);

/* The same for a pool that was closed, where nothing needs to be waited for. */
void kit_check_finished(struct wso_pool *pool);

#endif
