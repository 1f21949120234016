/* A bell: one eventfd (eventfd(2)) by which any thread wakes one event loop.
 *
 * Rings are coalesced: while the bell is ringing, further rings cost one atomic exchange and no
 * system call. The loop's side must hush *first* and look at its work *after*; whoever adds work
 * must add it first and ring after. Then no ring is lost (docs/internals/bell.md).
 *
 * The lock is held over write(2) and close(2) so that "closed" means that no thread still uses the
 * descriptor; an eventfd in non-blocking mode makes neither of them wait. Hushing takes no lock:
 * the loop, which the write wakes, would wait for the writer to come back from it.
 */
#ifndef WSO_BELL_H
#define WSO_BELL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lock.h"

struct wso_bell {
    struct wso_lock lock;
    int fd;                     /* -1 once closed; guarded by the lock */
    atomic_bool ringing;        /* rung and not yet hushed */
    atomic_uint_fast64_t rings; /* writes to the eventfd so far */
};

/* WSO_EDESCRIPTOR (errno is set) or WSO_ENOMEM; the bell is then not to be used. */
int wso_bell_open(struct wso_bell *bell);

/* The descriptor to poll for reading; -1 once closed. */
int wso_bell_fd(struct wso_bell *bell);

/* Wake the loop. Any thread; does nothing on a closed bell. */
void wso_bell_ring(struct wso_bell *bell);

/* Silence the bell. The loop's thread, before it looks at its work; never at the same time as
 * close, which is its side's too. */
void wso_bell_hush(struct wso_bell *bell);

/* Close the descriptor; when it returns, no thread uses it any more. May be called twice. */
void wso_bell_close(struct wso_bell *bell);

/* Release what wso_bell_open made. No other thread may know the bell any more. */
void wso_bell_destroy(struct wso_bell *bell);

#endif
