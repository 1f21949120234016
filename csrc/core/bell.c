/* The bell: see bell.h for the contract. */
#include "bell.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

int wso_bell_open(struct wso_bell *bell)
{
    int status = wso_lock_init(&bell->lock);
    if (status != WSO_OK) {
        return status;
    }
    atomic_init(&bell->ringing, false);
    atomic_init(&bell->rings, 0);
    bell->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bell->fd < 0) {
        int kept = errno;
        wso_lock_destroy(&bell->lock);
        errno = kept;
        return WSO_EDESCRIPTOR;
    }
    return WSO_OK;
}

int wso_bell_fd(struct wso_bell *bell)
{
    wso_lock_acquire(&bell->lock);
    int fd = bell->fd;
    wso_lock_release(&bell->lock);
    return fd;
}

void wso_bell_ring(struct wso_bell *bell)
{
    /* The exchange is also the release of the work that the caller added: a hush that comes later
     * in this word's order reads from it. */
    if (atomic_exchange(&bell->ringing, true)) {
        return;
    }
    wso_lock_acquire(&bell->lock);
    if (bell->fd >= 0) {
        const uint64_t one = 1;
        ssize_t written;
        /* First, because the loop that it wakes may look at the count. */
        atomic_fetch_add_explicit(&bell->rings, 1, memory_order_relaxed);
        do {
            written = write(bell->fd, &one, sizeof one);
        } while (written < 0 && errno == EINTR);
        /* EAGAIN would mean a counter near 2^64, which is readable all the same. */
    }
    wso_lock_release(&bell->lock);
}

void wso_bell_hush(struct wso_bell *bell)
{
    uint64_t count;
    if (bell->fd >= 0) {
        ssize_t got;
        do {
            got = read(bell->fd, &count, sizeof count);
        } while (got < 0 && errno == EINTR);
        /* EAGAIN: the loop looked without being rung. */
    }
    /* Only after the read: a ring between an earlier store and the read would be swallowed by
     * the read while the word still says "ringing", and no later ring would write. */
    (void)atomic_exchange(&bell->ringing, false);
}

void wso_bell_close(struct wso_bell *bell)
{
    wso_lock_acquire(&bell->lock);
    int fd = bell->fd;
    bell->fd = -1;
    if (fd >= 0) {
        (void)close(fd);
    }
    wso_lock_release(&bell->lock);
}

void wso_bell_destroy(struct wso_bell *bell)
{
    wso_bell_close(bell);
    wso_lock_destroy(&bell->lock);
}
