/* Threads: see thread.h. Nothing is kept here; a thread's own memory belongs to its creator. */
#include "thread.h"

#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "error.h"

/* The kernel keeps 15 bytes and a NUL of a thread's name (pthread_setname_np(3)). */
#define NAME_SIZE 16

/* Signals that a fault of the thread itself raises: blocking them would make the fault undefined
 * instead of deadly (sigprocmask(2)). */
static const int synchronous_signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};

static int set_stack_size(pthread_attr_t *attributes, size_t size)
{
    if (size == 0) {
        return WSO_OK;
    }
    if (size < (size_t)PTHREAD_STACK_MIN) {
        size = (size_t)PTHREAD_STACK_MIN;
    }
    return pthread_attr_setstacksize(attributes, size) == 0 ? WSO_OK : WSO_ETHREAD;
}

/* The new thread inherits the mask of its creator, so the mask is set around its creation: set
 * later by the thread itself, a signal could come first. */
static int create(pthread_t *id, const pthread_attr_t *attributes, bool block_signals,
                  void *(*main)(void *), void *argument)
{
    sigset_t blocked, before;
    if (block_signals) {
        (void)sigfillset(&blocked);
        for (size_t i = 0; i < sizeof synchronous_signals / sizeof *synchronous_signals; i++) {
            (void)sigdelset(&blocked, synchronous_signals[i]);
        }
        (void)pthread_sigmask(SIG_SETMASK, &blocked, &before);
    }
    int failed = pthread_create(id, attributes, main, argument);
    if (block_signals) {
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    return failed ? WSO_ETHREAD : WSO_OK;
}

int wso_thread_start(struct wso_thread *thread, const struct wso_thread_options *options,
                     void *(*main)(void *argument), void *argument)
{
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) {
        return WSO_ETHREAD;
    }
    int status = set_stack_size(&attributes, options->stack_size);
    if (status == WSO_OK) {
        status = create(&thread->id, &attributes, options->block_signals, main, argument);
    }
    (void)pthread_attr_destroy(&attributes);
    if (status != WSO_OK) {
        return status;
    }
    char name[NAME_SIZE] = {0};
    (void)strncpy(name, options->name, NAME_SIZE - 1);
    /* A name that cannot be set costs a label in a listing and nothing else. */
    (void)pthread_setname_np(thread->id, name);
    return WSO_OK;
}

void wso_thread_let_waker_finish(void)
{
    const struct sched_param no_priority = {0};
    if (sched_getscheduler(0) != SCHED_OTHER) {
        /* Somebody chose otherwise for this process. */
        return;
    }
    /* Where a sandbox forbids it, calls cost more and nothing else changes. */
    (void)sched_setscheduler(0, SCHED_BATCH, &no_priority);
}

void wso_thread_join(struct wso_thread *thread)
{
    (void)pthread_join(thread->id, NULL);
}
