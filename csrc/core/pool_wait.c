/* Who waits for a pool: a thread for the admission of its job, or anybody for the pool to have
 * finished. See pool.h.
 *
 * A thread waits on a semaphore and not on a condition, because sem_wait(3) returns with EINTR when
 * a signal handler ran, and so Ctrl-C works.
 */
#include <errno.h>
#include <semaphore.h>

#include "pool_inner.h"

bool wso_pool_finished_held(const struct wso_pool *pool)
{
    return pool->refusal != WSO_OK && pool->stats.queued == 0 && pool->stats.waiting == 0 &&
           pool->starting == 0 &&
           pool->stats.threads == (pool->to_the_last ? 0 : pool->stats.abandoned);
}

void wso_pool_tell_closers_held(struct wso_pool *pool, struct wso_list *come)
{
    WSO_ASSERT_HELD(&pool->lock);
    if (!wso_pool_finished_held(pool)) {
        return;
    }
    struct wso_link *link;
    while ((link = wso_list_pop_front(&pool->closers)) != NULL) {
        WSO_ITEM(link, struct wso_turn, link)->came = true;
        wso_list_push_back(come, link);
    }
}

bool wso_pool_retract(struct wso_pool *pool, struct wso_turn *turn)
{
    wso_lock_acquire(&pool->lock);
    bool waits = !turn->came;
    if (waits) {
        wso_link_unlink(&turn->link);
    }
    wso_lock_release(&pool->lock);
    return waits;
}

bool wso_pool_when_finished(struct wso_pool *pool, struct wso_turn *turn)
{
    wso_lock_acquire(&pool->lock);
    bool finished = wso_pool_finished_held(pool);
    if (!finished) {
        wso_list_push_back(&pool->closers, &turn->link);
    }
    wso_lock_release(&pool->lock);
    return finished;
}

static void wake_waiter(struct wso_turn *turn)
{
    struct wso_waiter *waiter = WSO_ITEM(turn, struct wso_waiter, turn);
    (void)sem_post(&waiter->came);
}

int wso_waiter_init(struct wso_waiter *waiter)
{
    waiter->turn = (struct wso_turn){.come = wake_waiter};
    return sem_init(&waiter->came, 0, 0) == 0 ? WSO_OK : WSO_ENOMEM;
}

void wso_waiter_destroy(struct wso_waiter *waiter)
{
    (void)sem_destroy(&waiter->came);
}

static void wait_for_certain(struct wso_waiter *waiter)
{
    while (sem_wait(&waiter->came) != 0) {
    }
}

int wso_pool_wait(struct wso_pool *pool)
{
    struct wso_waiter waiter;
    int status = wso_waiter_init(&waiter);
    if (status != WSO_OK) {
        return status;
    }
    if (!wso_pool_when_finished(pool, &waiter.turn) && wso_waiter_wait(&waiter) != WSO_OK) {
        if (wso_pool_retract(pool, &waiter.turn)) {
            status = WSO_EINTR;
        } else {
            wait_for_certain(&waiter);
        }
    }
    wso_waiter_destroy(&waiter);
    if (status == WSO_OK) {
        wso_pool_reap(pool);
    }
    return status;
}

int wso_waiter_wait(struct wso_waiter *waiter)
{
    return sem_wait(&waiter->came) == 0 ? WSO_OK : WSO_EINTR;
}

bool wso_pool_take_back(struct wso_pool *pool, struct wso_job *job, struct wso_waiter *waiter)
{
    wso_lock_acquire(&pool->lock);
    /* Only while its turn has not come is the job known to be still there. */
    bool waits = !waiter->turn.came;
    if (waits) {
        wso_link_unlink(&job->link);
        job->turn = NULL;
        job->state = WSO_JOB_NEW;
        pool->stats.waiting--;
        pool->stats.accepted--;
    }
    wso_lock_release(&pool->lock);
    if (!waits) {
        wait_for_certain(waiter);
    }
    return waits;
}
