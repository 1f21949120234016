/* See kit.h. */
#include "kit.h"

#include <stdlib.h>

#include "check.h"

static struct watch nobody;
static atomic_int starts;

static void wait_for(atomic_bool *hold)
{
    if (hold != NULL) {
        WAIT_UNTIL(atomic_load(hold));
    }
}

/* What a pool's thread is known by; its state shows that the hooks come in order. */
struct user {
    struct watch *watch;
    enum { PREPARED, AWAKE, RESTING } state;
    pthread_t thread;
};

static int prepare(void *owner, void **user, const char **name)
{
    CHECK_NO_LOCK();
    struct watch *watch = owner == NULL ? &nobody : owner;
    atomic_fetch_add(&watch->prepares, 1);
    wait_for(watch->hold_prepare);
    if (watch->refusal != WSO_OK && atomic_fetch_sub(&watch->allowed, 1) <= 0) {
        return watch->refusal;
    }
    struct user *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return WSO_ENOMEM;
    }
    made->watch = watch;
    *user = made;
    *name = watch->name == NULL ? "wso-test" : watch->name;
    return WSO_OK;
}

static void unprepare(void *argument)
{
    CHECK_NO_LOCK();
    struct user *user = argument;
    CHECK(user->state == PREPARED);
    atomic_fetch_add(&user->watch->unprepares, 1);
    free(user);
}

static void begin(void *argument)
{
    CHECK_NO_LOCK();
    struct user *user = argument;
    CHECK(user->state == PREPARED);
    user->state = AWAKE;
    user->thread = pthread_self();
    atomic_fetch_add(&user->watch->begins, 1);
    wait_for(user->watch->hold_begin);
}

static void end(void *argument)
{
    CHECK_NO_LOCK();
    struct user *user = argument;
    CHECK(user->state == RESTING && pthread_equal(user->thread, pthread_self()));
    atomic_store(&user->watch->ended_at, wso_now());
    atomic_fetch_add(&user->watch->ends, 1);
    free(user);
}

static void rest(void *argument)
{
    CHECK_NO_LOCK();
    struct user *user = argument;
    CHECK(user->state == AWAKE && pthread_equal(user->thread, pthread_self()));
    user->state = RESTING;
    atomic_store(&user->watch->rested_at, wso_now());
    atomic_fetch_add(&user->watch->rests, 1);
    wait_for(user->watch->hold_rest);
}

static void wake(void *argument)
{
    CHECK_NO_LOCK();
    struct user *user = argument;
    CHECK(user->state == RESTING && pthread_equal(user->thread, pthread_self()));
    user->state = AWAKE;
    atomic_fetch_add(&user->watch->wakes, 1);
}

const struct wso_pool_hooks kit_hooks = {
    .prepare = prepare,
    .unprepare = unprepare,
    .begin = begin,
    .end = end,
    .rest = rest,
    .wake = wake,
};

void kit_reset_order(void)
{
    atomic_store(&starts, 0);
}

static void task_run(struct wso_job *job)
{
    CHECK_NO_LOCK();
    struct task *task = WSO_ITEM(job, struct task, job);
    CHECK(atomic_load(&task->dones) == 0);
    CHECK(job->state == WSO_JOB_RUNNING && !wso_link_listed(&job->link));
    atomic_store(&task->order, atomic_fetch_add(&starts, 1) + 1);
    task->ran_on = pthread_self();
    atomic_store(&task->may_abandon, true);
    atomic_fetch_add(&task->started, 1);
    wait_for(task->hold);
    if (task->act != NULL) {
        task->act(task);
    }
    atomic_store(&task->may_abandon, false);
    WAIT_UNTIL(atomic_load(&task->pins) == 0);
    atomic_fetch_add(&task->runs, 1);
}

static void task_done(struct wso_job *job, int status)
{
    CHECK_NO_LOCK();
    struct task *task = WSO_ITEM(job, struct task, job);
    CHECK(!wso_link_listed(&job->link));
    CHECK_EQ(atomic_load(&task->runs), status == WSO_OK);
    task->done_on = pthread_self();
    atomic_store(&task->status, status);
    CHECK_EQ(atomic_fetch_add(&task->dones, 1), 0);
}

static void task_turn(struct wso_turn *turn)
{
    CHECK_NO_LOCK();
    CHECK(turn->came && !wso_link_listed(&turn->link));
    struct task *task = WSO_ITEM(turn, struct task, turn);
    CHECK_EQ(atomic_fetch_add(&task->turns, 1), 0);
}

void task_init(struct task *task, atomic_bool *hold)
{
    *task = (struct task){
        .job = {.run = task_run, .done = task_done},
        .turn = {.come = task_turn},
        .hold = hold,
    };
}

static bool while_it_runs(void (*call)(struct wso_pool *, struct wso_job *), struct wso_pool *pool,
                          struct task *task)
{
    atomic_fetch_add(&task->pins, 1);
    bool runs = atomic_load(&task->may_abandon);
    if (runs) {
        call(pool, &task->job);
    }
    atomic_fetch_sub(&task->pins, 1);
    return runs;
}

bool task_abandon(struct wso_pool *pool, struct task *task)
{
    return while_it_runs(wso_pool_abandon, pool, task);
}

bool task_reclaim(struct wso_pool *pool, struct task *task)
{
    return while_it_runs(wso_pool_reclaim, pool, task);
}

static struct wso_pool *new_pool(const struct wso_pool_config *config)
{
    struct wso_pool *pool;
    CHECK_EQ(wso_pool_new(config, &pool), WSO_OK);
    return pool;
}

struct wso_pool *kit_pool(unsigned max_threads, size_t max_queue, enum wso_policy when_full,
                          struct watch *watch)
{
    return new_pool(&(struct wso_pool_config){
        .max_threads = max_threads,
        .max_queue = max_queue,
        .when_full = when_full,
        .keep_alive = WSO_NEVER,
        .hooks = &kit_hooks,
        .owner = watch,
    });
}

struct wso_pool *kit_pool_keeping(uint64_t keep_alive, unsigned max_threads, struct watch *watch)
{
    return new_pool(&(struct wso_pool_config){
        .max_threads = max_threads,
        .keep_alive = keep_alive,
        .hooks = &kit_hooks,
        .owner = watch,
    });
}

int kit_submit(struct wso_pool *pool, struct task *task)
{
    return wso_pool_submit(pool, &task->job, WSO_ADMIT_BY_POLICY, NULL);
}

int kit_submit_turn(struct wso_pool *pool, struct task *task)
{
    return wso_pool_submit(pool, &task->job, WSO_ADMIT_BY_POLICY, &task->turn);
}

int kit_submit_blocking(struct wso_pool *pool, struct task *task)
{
    struct wso_waiter waiter;
    int status = wso_waiter_init(&waiter);
    if (status != WSO_OK) {
        return status;
    }
    status = wso_pool_submit(pool, &task->job, WSO_ADMIT_BY_POLICY, &waiter.turn);
    if (status == WSO_OK) {
        status = wso_waiter_wait(&waiter);
        if (status == WSO_EINTR && !wso_pool_take_back(pool, &task->job, &waiter)) {
            status = WSO_OK;
        }
    }
    wso_waiter_destroy(&waiter);
    return status;
}

static void *call(void *argument)
{
    struct caller *caller = argument;
    atomic_store(&caller->status, caller->call(caller->pool, caller->task));
    return NULL;
}

void caller_start(struct caller *caller, int (*function)(struct wso_pool *, struct task *),
                  struct wso_pool *pool, struct task *task)
{
    *caller = (struct caller){.call = function, .pool = pool, .task = task, .status = -1};
    CHECK_EQ(pthread_create(&caller->thread, NULL, call, caller), 0);
}

int caller_join(struct caller *caller)
{
    CHECK_EQ(pthread_join(caller->thread, NULL), 0);
    return atomic_load(&caller->status);
}

struct wso_pool_stats kit_stats(struct wso_pool *pool)
{
    struct wso_pool_stats stats;
    wso_pool_stats(pool, &stats);
    return stats;
}

void kit_check_finished(struct wso_pool *pool)
{
    struct wso_pool_stats stats = kit_stats(pool);
    CHECK_EQ(stats.threads, 0);
    CHECK_EQ(stats.idle, 0);
    CHECK_EQ(stats.queued, 0);
    CHECK_EQ(stats.waiting, 0);
    CHECK_EQ(stats.running, 0);
    CHECK_EQ(stats.abandoned, 0);
    CHECK_EQ(stats.accepted, stats.completed + stats.cancelled + stats.dropped);
    CHECK_EQ(atomic_load(&wso_pool_waited(pool)->count), stats.completed);
    CHECK_EQ(atomic_load(&wso_pool_ran(pool)->count), stats.completed);
    wso_pool_release(pool);
}

void kit_finish(struct wso_pool *pool)
{
    wso_pool_close(pool, WSO_ECLOSED);
    CHECK_EQ(wso_pool_wait(pool), WSO_OK);
    kit_check_finished(pool);
}
