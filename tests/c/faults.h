/* Makes the nth call of one function of the system fail, sends in parts, and counts allocations
 * and mappings.
 *
 * The linker sends the calls of the core and of the tests through faults.c.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include <stdbool.h>

enum fault {
    FAULT_ALLOCATION,
    FAULT_THREAD,
    FAULT_DESCRIPTOR,
    FAULT_SEMAPHORE,
    FAULT_MUTEX,
    FAULT_CONDITION,
    FAULT_ATTRIBUTES, /* of threads and conditions */
    FAULT_MAPPING,
    FAULT_UNMAPPING,
    FAULT_POLL,    /* epoll_ctl(2), but not to take something out, for which no memory is needed */
    FAULT_WAIT,    /* epoll_wait(2) */
    FAULT_RANDOM,  /* getrandom(2) */
    FAULT_RECEIVE, /* recv(2); the tests' peers have recvfrom(2) */
    FAULT_SEND,    /* sendmsg(2); the tests' peers have send(2) */
    FAULT_GOODBYE, /* shutdown(2), ioctl(2), connect(2) */
    FAULT_KINDS,
};

/* The nth call of this kind from now on fails, and all after it if `lasting`. */
void fault_arm(enum fault kind, int nth, bool lasting);

/* Calls of this thread do not fail meanwhile, nor are they counted: they are the test's own. */
void fault_spare(bool spare);

/* What the failing calls leave in errno; 0: what is usual for their kind. */
void fault_errno(int error);

/* Disarm; how many calls failed. */
int fault_disarm(void);

/* Allocations that were not freed yet. */
long fault_allocated(void);

/* Mappings of the core that were not unmapped yet. */
long fault_mapped(void);

/* From now on each sendmsg(2) takes at most this many bytes, and after `calls` of them the socket is
 * full until this is called again. A negative number is no limit. */
void fault_limit_sends(long each, int calls);

/* Run a scenario with the first call of this kind failing, then the second, until no call is left to
 * fail; and again with all calls from the nth on failing. Afterwards there is no memory, no mapping and
 * no descriptor more than before. A scenario may disarm, when the fault is over. Nothing is interrupted
 * (EINTR) for ever. */
void fault_each(enum fault kind, int error, void (*scenario)(void));

#endif
