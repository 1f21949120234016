/* The guard's thread and its clock. See guard.h for the contract. */
#include "guard_inner.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define STACK_SIZE (256 * 1024)

uint64_t wso_guard_now(struct wso_guard *guard)
{
    return wso_now() - atomic_load(&guard->slept);
}

/* The next ward that this round has not come by, with a share; NULL if there is none. */
static struct wso_ward *next_ward(struct wso_guard *guard, uint64_t round)
{
    struct wso_ward *ward = NULL;
    wso_lock_acquire(&guard->lock);
    struct wso_link *link = wso_list_first(&guard->wards);
    if (link != NULL && WSO_ITEM(link, struct wso_ward, link)->round != round) {
        ward = wso_ward_share(WSO_ITEM(link, struct wso_ward, link));
        ward->round = round;
        wso_link_unlink(link);
        wso_list_push_back(&guard->wards, link);
    }
    wso_lock_release(&guard->lock);
    return ward;
}

/* Sleep until then, the bell, or a wire of a late loop. */
static void wait_for_work(struct wso_guard *guard, uint64_t until)
{
    int timeout = -1;
    uint64_t begun = wso_now();
    uint64_t now = wso_guard_now(guard);
    if (until != WSO_NEVER) {
        timeout = until > now ? (int)((until - now) / 1000000 + 1) : 0;
    }
    struct epoll_event event;
    (void)epoll_wait(guard->poll_fd, &event, 1, timeout);
    wso_bell_hush(&guard->bell);
    /* What it slept longer than it asked for, it was not allowed to run: that counts against nobody. */
    uint64_t asked = (uint64_t)timeout * 1000000;
    uint64_t slept = wso_now() - begun;
    if (timeout >= 0 && slept > asked) {
        atomic_fetch_add(&guard->slept, slept - asked);
    }
}

static void *guard_main(void *argument)
{
    struct wso_guard *guard = argument;
    uint64_t round = 0;
    while (!atomic_load(&guard->stopping)) {
        uint64_t until = WSO_NEVER;
        struct wso_ward *ward;
        round++;
        while ((ward = next_ward(guard, round)) != NULL) {
            uint64_t next = wso_ward_round(ward, wso_guard_now(guard));
            until = next < until ? next : until;
            wso_ward_release(ward);
        }
        wait_for_work(guard, until);
    }
    return NULL;
}

/* The bell wakes the thread. */
static int poll_bell(struct wso_guard *guard)
{
    struct epoll_event event = {.events = EPOLLIN};
    guard->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (guard->poll_fd < 0) {
        return WSO_EDESCRIPTOR;
    }
    if (epoll_ctl(guard->poll_fd, EPOLL_CTL_ADD, wso_bell_fd(&guard->bell), &event) != 0) {
        int kept = errno;
        (void)close(guard->poll_fd);
        errno = kept;
        return WSO_EDESCRIPTOR;
    }
    return WSO_OK;
}

int wso_guard_new(struct wso_guard **guard)
{
    const struct wso_thread_options options = {
        .name = "wso-guard", .stack_size = STACK_SIZE, .block_signals = true};
    *guard = NULL;
    struct wso_guard *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return WSO_ENOMEM;
    }
    atomic_init(&made->shares, 1);
    wso_list_init(&made->wards);
    int status = wso_lock_init(&made->lock);
    if (status != WSO_OK) {
        goto fail_memory;
    }
    status = wso_bell_open(&made->bell);
    if (status != WSO_OK) {
        goto fail_lock;
    }
    status = poll_bell(made);
    if (status != WSO_OK) {
        goto fail_bell;
    }
    status = wso_thread_start(&made->thread, &options, guard_main, made);
    if (status == WSO_OK) {
        *guard = made;
        return WSO_OK;
    }
    (void)close(made->poll_fd);
fail_bell:
    wso_bell_destroy(&made->bell);
fail_lock:
    wso_lock_destroy(&made->lock);
fail_memory:
    free(made);
    return status;
}

void wso_guard_stop(struct wso_guard *guard)
{
    if (!atomic_exchange(&guard->stopping, true)) {
        wso_bell_ring(&guard->bell);
        wso_thread_join(&guard->thread);
    }
}

void wso_guard_release(struct wso_guard *guard)
{
    if (atomic_fetch_sub(&guard->shares, 1) != 1) {
        return;
    }
    wso_bell_destroy(&guard->bell);
    (void)close(guard->poll_fd);
    wso_lock_destroy(&guard->lock);
    free(guard);
}
