/* See points.h. */
#include "points.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
ssize_t __real_read(int fd, void *buffer, size_t size);
ssize_t __wrap_read(int fd, void *buffer, size_t size);
ssize_t __real_write(int fd, const void *buffer, size_t size);
ssize_t __wrap_write(int fd, const void *buffer, size_t size);
int __real_sem_wait(sem_t *semaphore);
int __wrap_sem_wait(sem_t *semaphore);
int __real_sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *deadline);
int __wrap_sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *deadline);

static atomic_int armed_kind;
static atomic_int countdown; /* the action is called by who takes it from 1 to 0 */
static atomic_int interruptions;
static atomic_bool armed_for_one;
static _Thread_local bool is_the_one;
static void (*armed_action)(void *argument);
static void *armed_argument;

void point_arm(enum point kind, int nth, void (*action)(void *argument), void *argument)
{
    armed_action = action;
    armed_argument = argument;
    atomic_store(&armed_for_one, false);
    atomic_store(&armed_kind, (int)kind);
    atomic_store(&countdown, nth);
}

void point_arm_mine(enum point kind, int nth, void (*action)(void *argument), void *argument)
{
    point_arm(kind, 0, action, argument);
    is_the_one = true;
    atomic_store(&armed_for_one, true);
    atomic_store(&countdown, nth);
}

bool point_was_reached(void)
{
    return atomic_exchange(&countdown, 0) <= 0;
}

static void reach(enum point kind)
{
    if (atomic_load(&countdown) > 0 && atomic_load(&armed_kind) == (int)kind &&
        (is_the_one || !atomic_load(&armed_for_one)) &&
        atomic_fetch_sub(&countdown, 1) == 1) {
        armed_action(armed_argument);
    }
}

void points_interrupt(int calls)
{
    atomic_store(&interruptions, calls);
}

int points_interruptions_left(void)
{
    int left = atomic_load(&interruptions);
    return left > 0 ? left : 0;
}

static bool is_interrupted(void)
{
    if (atomic_load(&interruptions) > 0 && atomic_fetch_sub(&interruptions, 1) > 0) {
        errno = EINTR;
        return true;
    }
    return false;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    reach(POINT_LOCK);
    return __real_pthread_mutex_lock(mutex);
}

ssize_t __wrap_read(int fd, void *buffer, size_t size)
{
    reach(POINT_READ);
    ssize_t got = is_interrupted() ? -1 : __real_read(fd, buffer, size);
    int kept = errno;
    reach(POINT_READ_DONE);
    errno = kept;
    return got;
}

ssize_t __wrap_write(int fd, const void *buffer, size_t size)
{
    reach(POINT_WRITE);
    return is_interrupted() ? -1 : __real_write(fd, buffer, size);
}

int __wrap_sem_wait(sem_t *semaphore)
{
    return is_interrupted() ? -1 : __real_sem_wait(semaphore);
}

int __wrap_sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *deadline)
{
    int failed = is_interrupted() ? -1 : __real_sem_clockwait(semaphore, clock, deadline);
    if (failed && errno == ETIMEDOUT) {
        reach(POINT_TIMEOUT);
        errno = ETIMEDOUT;
    }
    return failed;
}
