/* See faults.h. */
#include "faults.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/types.h>

/* For each function that may fail: its original, its stand-in, and what a failure answers. */
#define STAND_IN(kind, type, name, parameters, arguments, failure)                                 \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        return fails(kind) ? failure : __real_##name arguments;                                    \
    }

static atomic_int armed_kind = FAULT_KINDS;
static atomic_int countdown;
static atomic_bool lasts;
static atomic_int failed;
static atomic_long allocated;
static atomic_long mapped;

void fault_arm(enum fault kind, int nth, bool lasting)
{
    atomic_store(&countdown, nth);
    atomic_store(&lasts, lasting);
    atomic_store(&failed, 0);
    atomic_store(&armed_kind, (int)kind);
}

int fault_disarm(void)
{
    atomic_store(&armed_kind, FAULT_KINDS);
    return atomic_load(&failed);
}

static bool fails(enum fault kind)
{
    if (atomic_load(&armed_kind) != (int)kind) {
        return false;
    }
    int left = atomic_fetch_sub(&countdown, 1);
    bool fail = left == 1 || (left < 1 && atomic_load(&lasts));
    if (fail) {
        atomic_fetch_add(&failed, 1);
        errno = kind == FAULT_DESCRIPTOR ? EMFILE : ENOMEM;
    }
    return fail;
}

/* What is counted besides. */
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void __real_free(void *memory);
void __wrap_free(void *memory);
void *__real_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *memory, size_t size);
int __wrap_munmap(void *memory, size_t size);

void *__wrap_malloc(size_t size)
{
    void *memory = fails(FAULT_ALLOCATION) ? NULL : __real_malloc(size);
    atomic_fetch_add(&allocated, memory != NULL);
    return memory;
}

void *__wrap_calloc(size_t count, size_t size)
{
    void *memory = fails(FAULT_ALLOCATION) ? NULL : __real_calloc(count, size);
    atomic_fetch_add(&allocated, memory != NULL);
    return memory;
}

void __wrap_free(void *memory)
{
    atomic_fetch_sub(&allocated, memory != NULL);
    __real_free(memory);
}

long fault_allocated(void)
{
    return atomic_load(&allocated);
}

void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    void *memory = fails(FAULT_MAPPING)
                       ? MAP_FAILED
                       : __real_mmap(address, size, protection, flags, fd, offset);
    atomic_fetch_add(&mapped, memory != MAP_FAILED);
    return memory;
}

int __wrap_munmap(void *memory, size_t size)
{
    int status = fails(FAULT_UNMAPPING) ? -1 : __real_munmap(memory, size);
    atomic_fetch_sub(&mapped, status == 0);
    return status;
}

long fault_mapped(void)
{
    return atomic_load(&mapped);
}

STAND_IN(FAULT_DESCRIPTOR, int, eventfd, (unsigned count, int flags), (count, flags), -1)
STAND_IN(FAULT_SEMAPHORE, int, sem_init, (sem_t * semaphore, int shared, unsigned value),
         (semaphore, shared, value), -1)
STAND_IN(FAULT_THREAD, int, pthread_create,
         (pthread_t * thread, const pthread_attr_t *attributes, void *(*function)(void *),
          void *argument),
         (thread, attributes, function, argument), EAGAIN)
STAND_IN(FAULT_MUTEX, int, pthread_mutex_init,
         (pthread_mutex_t * mutex, const pthread_mutexattr_t *attributes), (mutex, attributes),
         ENOMEM)
STAND_IN(FAULT_CONDITION, int, pthread_cond_init,
         (pthread_cond_t * cond, const pthread_condattr_t *attributes), (cond, attributes), ENOMEM)
STAND_IN(FAULT_ATTRIBUTES, int, pthread_condattr_init, (pthread_condattr_t * attributes),
         (attributes), ENOMEM)
STAND_IN(FAULT_ATTRIBUTES, int, pthread_condattr_setclock,
         (pthread_condattr_t * attributes, clockid_t clock), (attributes, clock), EINVAL)
STAND_IN(FAULT_ATTRIBUTES, int, pthread_attr_init, (pthread_attr_t * attributes), (attributes),
         ENOMEM)
STAND_IN(FAULT_ATTRIBUTES, int, pthread_attr_setstacksize,
         (pthread_attr_t * attributes, size_t size), (attributes, size), EINVAL)
