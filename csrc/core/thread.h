/* A named, joinable thread with a stack size and a rule for signals.
 *
 * Ownership: the creator joins each thread exactly once; there are no detached threads.
 */
#ifndef WSO_THREAD_H
#define WSO_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct wso_thread {
    pthread_t id;
};

struct wso_thread_options {
    const char *name;    /* borrowed; the kernel shows its first 15 bytes */
    size_t stack_size;   /* bytes; 0 means the system's default */
    bool block_signals;  /* service threads block all but the synchronous signals; workers keep
                          * their creator's mask, so that what they start can be killed */
};

/* Start `main(argument)` on a new thread. Any thread may call it; takes no lock.
 * WSO_ETHREAD when the system gives none. */
int wso_thread_start(struct wso_thread *thread, const struct wso_thread_options *options,
                     void *(*main)(void *argument), void *argument);

/* The calling thread no longer interrupts who wakes it (sched(7), SCHED_BATCH): it begins when a core
 * is free or at the next tick, with the same share of the processor as before. What it starts,
 * threads and processes, inherits that: SCHED_RESET_ON_FORK resets only real-time policies. A worker
 * that interrupts the event loop which woke it finds the GIL taken, and both sleep and wake twice
 * more for each call. A process that was given another policy keeps it. */
void wso_thread_let_waker_finish(void);

/* Wait for the thread to end. The caller holds no lock, and no GIL unless the thread is known to
 * be past its last use of it. */
void wso_thread_join(struct wso_thread *thread);

#endif
