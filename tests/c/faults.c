/* See faults.h. */
#include "faults.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "check.h"

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
static atomic_int error_number;
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

static _Thread_local bool spared;

void fault_spare(bool spare)
{
    spared = spare;
}

void fault_errno(int error)
{
    atomic_store(&error_number, error);
}

static bool fails(enum fault kind)
{
    if (spared || atomic_load(&armed_kind) != (int)kind) {
        return false;
    }
    int left = atomic_fetch_sub(&countdown, 1);
    bool fail = left == 1 || (left < 1 && atomic_load(&lasts));
    if (fail) {
        atomic_fetch_add(&failed, 1);
        int error = atomic_load(&error_number);
        errno = error != 0 ? error : kind == FAULT_DESCRIPTOR ? EMFILE : ENOMEM;
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
STAND_IN(FAULT_DESCRIPTOR, int, epoll_create1, (int flags), (flags), -1)
STAND_IN(FAULT_WAIT, int, epoll_wait,
         (int fd, struct epoll_event * events, int count, int timeout),
         (fd, events, count, timeout), -1)
STAND_IN(FAULT_RANDOM, ssize_t, getrandom, (void *bytes, size_t size, unsigned flags),
         (bytes, size, flags), -1)
STAND_IN(FAULT_RECEIVE, ssize_t, recv, (int fd, void *bytes, size_t size, int flags),
         (fd, bytes, size, flags), -1)
STAND_IN(FAULT_GOODBYE, int, shutdown, (int fd, int how), (fd, how), -1)
STAND_IN(FAULT_GOODBYE, int, connect,
         (int fd, const struct sockaddr *address, socklen_t size), (fd, address, size), -1)

int __real_epoll_ctl(int fd, int what, int other, struct epoll_event *event);
int __wrap_epoll_ctl(int fd, int what, int other, struct epoll_event *event);
int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);

int __wrap_epoll_ctl(int fd, int what, int other, struct epoll_event *event)
{
    return what != EPOLL_CTL_DEL && fails(FAULT_POLL) ? -1
                                                      : __real_epoll_ctl(fd, what, other, event);
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return fails(FAULT_GOODBYE) ? -1 : __real_ioctl(fd, request, argument);
}

static atomic_long send_size = -1;
static atomic_int send_calls = -1;

void fault_limit_sends(long each, int calls)
{
    atomic_store(&send_size, each);
    atomic_store(&send_calls, calls);
}

/* The first `left` bytes of the pieces. */
static ssize_t send_part(int fd, const struct msghdr *message, int flags, size_t left)
{
    struct iovec pieces[16];
    struct msghdr part = {.msg_iov = pieces};
    for (; part.msg_iovlen < message->msg_iovlen && left > 0; part.msg_iovlen++) {
        CHECK(part.msg_iovlen < 16);
        struct iovec *piece = &pieces[part.msg_iovlen];
        *piece = message->msg_iov[part.msg_iovlen];
        piece->iov_len = piece->iov_len < left ? piece->iov_len : left;
        left -= piece->iov_len;
    }
    return __real_sendmsg(fd, &part, flags);
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    if (fails(FAULT_SEND)) {
        return -1;
    }
    long most = atomic_load(&send_size);
    if (most < 0) {
        return __real_sendmsg(fd, message, flags);
    }
    if (atomic_fetch_sub(&send_calls, 1) <= 0) {
        errno = EAGAIN;
        return -1;
    }
    return send_part(fd, message, flags, (size_t)most);
}

void fault_each(enum fault kind, int error, void (*scenario)(void))
{
    for (int lasting = 0; lasting <= (error != EINTR); lasting++) {
        int failures = 1;
        for (int nth = 1; failures > 0; nth++) {
            long before = fault_allocated();
            long mappings = fault_mapped();
            unsigned descriptors = check_entries("fd");
            fault_errno(error);
            fault_arm(kind, nth, lasting == 1);
            scenario();
            failures = fault_disarm();
            fault_errno(0);
            CHECK_EQ(fault_allocated(), before);
            CHECK(fault_mapped() == mappings || kind == FAULT_UNMAPPING);
            CHECK_EQ(check_entries("fd"), descriptors);
        }
    }
}
