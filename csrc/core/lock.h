/* A mutex and a condition variable on the monotonic clock.
 *
 * In debug builds (WSO_DEBUG) a lock knows its owner: the `_held` functions assert it, and locking
 * twice or unlocking another's lock ends the test at once. So does taking a second lock: a thread
 * holds one of ours at a time.
 */
#ifndef WSO_LOCK_H
#define WSO_LOCK_H

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "clock.h"
#include "error.h"

struct wso_lock {
    pthread_mutex_t mutex;
#ifdef WSO_DEBUG
    /* The holder. Only the holder writes its own name here, so a relaxed look by anybody else
     * can never show that one's own name. */
    _Atomic(uintptr_t) owner;
#endif
};

struct wso_cond {
    pthread_cond_t cond;
};

#ifdef WSO_DEBUG
/* How many locks this thread holds. Weak, so that all files share the one that a header defines. */
__attribute__((weak)) _Thread_local unsigned wso_locks_held;

static inline bool wso_lock_is_mine(struct wso_lock *lock)
{
    return atomic_load_explicit(&lock->owner, memory_order_relaxed) == (uintptr_t)pthread_self();
}
#define WSO_ASSERT_HELD(lock) assert(wso_lock_is_mine(lock))
#else
#define WSO_ASSERT_HELD(lock) ((void)(lock))
#endif

static inline int wso_lock_init(struct wso_lock *lock)
{
#ifdef WSO_DEBUG
    atomic_init(&lock->owner, 0);
#endif
    return pthread_mutex_init(&lock->mutex, NULL) == 0 ? WSO_OK : WSO_ENOMEM;
}

static inline void wso_lock_destroy(struct wso_lock *lock)
{
    (void)pthread_mutex_destroy(&lock->mutex);
}

static inline void wso_lock_acquire(struct wso_lock *lock)
{
#ifdef WSO_DEBUG
    assert(!wso_lock_is_mine(lock) && wso_locks_held == 0);
#endif
    /* A default mutex that was initialised and is not ours already cannot fail. */
    (void)pthread_mutex_lock(&lock->mutex);
#ifdef WSO_DEBUG
    wso_locks_held++;
    atomic_store_explicit(&lock->owner, (uintptr_t)pthread_self(), memory_order_relaxed);
#endif
}

/* Take the lock if nobody has it; never waits. */
static inline bool wso_lock_try(struct wso_lock *lock)
{
#ifdef WSO_DEBUG
    assert(!wso_lock_is_mine(lock) && wso_locks_held == 0);
#endif
    if (pthread_mutex_trylock(&lock->mutex) != 0) {
        return false;
    }
#ifdef WSO_DEBUG
    wso_locks_held++;
    atomic_store_explicit(&lock->owner, (uintptr_t)pthread_self(), memory_order_relaxed);
#endif
    return true;
}

static inline void wso_lock_release(struct wso_lock *lock)
{
    WSO_ASSERT_HELD(lock);
#ifdef WSO_DEBUG
    wso_locks_held--;
    atomic_store_explicit(&lock->owner, 0, memory_order_relaxed);
#endif
    (void)pthread_mutex_unlock(&lock->mutex);
}

static inline int wso_cond_init(struct wso_cond *cond)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0) {
        return WSO_ENOMEM;
    }
    int failed = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    failed = failed || pthread_cond_init(&cond->cond, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    return failed ? WSO_ENOMEM : WSO_OK;
}

static inline void wso_cond_destroy(struct wso_cond *cond)
{
    (void)pthread_cond_destroy(&cond->cond);
}

/* Wait until signalled or until the deadline; may also return for no reason. */
static inline void wso_cond_wait(struct wso_cond *cond, struct wso_lock *lock, uint64_t deadline)
{
    WSO_ASSERT_HELD(lock);
#ifdef WSO_DEBUG
    atomic_store_explicit(&lock->owner, 0, memory_order_relaxed);
#endif
    if (deadline == WSO_NEVER) {
        (void)pthread_cond_wait(&cond->cond, &lock->mutex);
    } else {
        struct timespec at = wso_deadline_timespec(deadline);
        (void)pthread_cond_timedwait(&cond->cond, &lock->mutex, &at);
    }
#ifdef WSO_DEBUG
    atomic_store_explicit(&lock->owner, (uintptr_t)pthread_self(), memory_order_relaxed);
#endif
}

static inline void wso_cond_signal(struct wso_cond *cond)
{
    (void)pthread_cond_signal(&cond->cond);
}

#endif
