/* A ward: one event loop with its wires. See guard.h for the contract.
 *
 * Here is what the loop's thread does, and the lists that it shares with the guard's thread.
 */
#include "guard_inner.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

struct wso_ward *wso_ward_share(struct wso_ward *ward)
{
    atomic_fetch_add(&ward->shares, 1);
    return ward;
}

void wso_ward_release(struct wso_ward *ward)
{
    if (atomic_fetch_sub(&ward->shares, 1) != 1) {
        return;
    }
    wso_pulse_destroy(&ward->pulse);
    (void)close(ward->poll_fd);
    wso_cond_destroy(&ward->idle);
    wso_lock_destroy(&ward->lock);
    wso_guard_release(ward->guard);
    free(ward);
}

static struct wso_ward *ward_of(struct wso_pulse *pulse)
{
    return WSO_ITEM(pulse, struct wso_ward, pulse);
}

static void share_ward(struct wso_pulse *pulse)
{
    (void)wso_ward_share(ward_of(pulse));
}

static void release_ward(struct wso_pulse *pulse)
{
    wso_ward_release(ward_of(pulse));
}

/* The loop takes its mail: the stall, if there was one, is over. */
static void answered(struct wso_pulse *pulse, uint64_t asked_at)
{
    struct wso_ward *ward = ward_of(pulse);
    uint64_t now = wso_guard_now(ward->guard);
    if (asked_at > 0 && now > asked_at && now - asked_at >= WSO_LATE) {
        wso_lock_acquire(&ward->lock);
        ward->stall = now - asked_at;
        wso_lock_release(&ward->lock);
    }
    if (!atomic_load(&ward->is_closed)) {
        ward->deliver(ward->owner);
    }
}

/* The fields that need the system; what was made is undone on failure. */
static int open_ward(struct wso_ward *ward)
{
    if (wso_lock_init(&ward->lock) != WSO_OK) {
        return WSO_ENOMEM;
    }
    if (wso_cond_init(&ward->idle) != WSO_OK) {
        wso_lock_destroy(&ward->lock);
        return WSO_ENOMEM;
    }
    ward->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (ward->poll_fd < 0) {
        int kept = errno;
        wso_cond_destroy(&ward->idle);
        wso_lock_destroy(&ward->lock);
        errno = kept;
        return WSO_EDESCRIPTOR;
    }
    return WSO_OK;
}

int wso_ward_new(struct wso_guard *guard, struct wso_mailbox *mailbox,
                 void (*deliver)(void *owner), void *owner, struct wso_ward **ward)
{
    *ward = NULL;
    struct wso_ward *made = calloc(1, sizeof *made);
    int status = made == NULL ? WSO_ENOMEM : open_ward(made);
    if (status != WSO_OK) {
        free(made);
        return status;
    }
    /* One for the caller and one for the guard. */
    atomic_init(&made->shares, 2);
    made->deliver = deliver;
    made->owner = owner;
    made->pulse.answered = answered;
    made->pulse.share = share_ward;
    made->pulse.release = release_ward;
    wso_pulse_init(&made->pulse, mailbox);
    wso_list_init(&made->posts);
    wso_list_init(&made->words);
    wso_list_init(&made->rescued);
    for (int i = 0; i < WHEEL_SLOTS; i++) {
        wso_list_init(&made->wheel[i]);
    }
    made->tick = wso_guard_now(guard) / WSO_PULSE;
    atomic_fetch_add(&guard->shares, 1);
    made->guard = guard;
    wso_lock_acquire(&guard->lock);
    wso_list_push_back(&guard->wards, &made->link);
    wso_lock_release(&guard->lock);
    *ward = made;
    return WSO_OK;
}

void wso_ward_close(struct wso_ward *ward)
{
    if (atomic_exchange(&ward->is_closed, true)) {
        return;
    }
    wso_lock_acquire(&ward->guard->lock);
    wso_link_unlink(&ward->link);
    wso_lock_release(&ward->guard->lock);
    /* Wires that are still there would wake the thread for ever. It fails if the poll set is not in the
     * guard's; a round that puts it there just now takes it out itself. */
    (void)epoll_ctl(ward->guard->poll_fd, EPOLL_CTL_DEL, ward->poll_fd, NULL);
    wso_ward_release(ward);
}

void wso_post_schedule_locked(struct wso_post *post, uint64_t at)
{
    WSO_ASSERT_HELD(&post->ward->lock);
    if (wso_link_listed(&post->due)) {
        wso_link_unlink(&post->due);
    }
    post->due_at = at;
    if (at != WSO_NEVER) {
        /* Rounded up: never looked at before its time, so once is enough. */
        uint64_t tick = at / WSO_PULSE + 1;
        uint64_t next = post->ward->tick + 1;
        tick = tick < next ? next : tick;
        wso_list_push_back(&post->ward->wheel[tick % WHEEL_SLOTS], &post->due);
    }
}

int wso_ward_add(struct wso_ward *ward, struct wso_wire *wire, int fd, uint64_t max_stall,
                 void *owner, struct wso_post **post)
{
    *post = NULL;
    if (atomic_load(&ward->is_closed) || atomic_load(&ward->guard->stopping)) {
        return WSO_ECLOSED;
    }
    struct wso_post *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return WSO_ENOMEM;
    }
    made->ward = ward;
    made->fd = fd;
    made->max_stall = max_stall;
    made->owner = owner;
    made->events = EPOLLIN;
    struct epoll_event event = {.events = made->events, .data.ptr = made};
    wso_lock_acquire(&ward->lock);
    if (epoll_ctl(ward->poll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        int kept = errno;
        wso_lock_release(&ward->lock);
        free(made);
        errno = kept;
        return WSO_EDESCRIPTOR;
    }
    made->wire = wso_wire_share(wire);
    wso_list_push_back(&ward->posts, &made->link);
    /* At the next tick the wire says when it wants to be looked at. */
    wso_post_schedule_locked(made, 0);
    bool first = ward->count++ == 0;
    wso_lock_release(&ward->lock);
    if (first) {
        wso_bell_ring(&ward->guard->bell);
    }
    (void)wso_ward_share(ward);
    *post = made;
    return WSO_OK;
}

void wso_ward_look(struct wso_post *post)
{
    wso_lock_acquire(&post->ward->lock);
    wso_post_schedule_locked(post, 0);
    wso_lock_release(&post->ward->lock);
}

/* Take the post out of all lists, unless the guard's thread is at it and `wait` is false. */
static int remove_post(struct wso_post *post, bool wait)
{
    struct wso_ward *ward = post->ward;
    wso_lock_acquire(&ward->lock);
    if (post->busy && !wait) {
        wso_lock_release(&ward->lock);
        return WSO_EBUSY;
    }
    while (post->busy) {
        wso_cond_wait(&ward->idle, &ward->lock, WSO_NEVER);
    }
    if (post->events != 0) {
        /* It was added, so this cannot fail; the descriptor is still open. */
        (void)epoll_ctl(ward->poll_fd, EPOLL_CTL_DEL, post->fd, NULL);
    }
    wso_link_unlink(&post->link);
    struct wso_link *links[] = {&post->due, &post->word, &post->rescued};
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        if (wso_link_listed(links[i])) {
            wso_link_unlink(links[i]);
        }
    }
    ward->count--;
    wso_lock_release(&ward->lock);
    wso_wire_release(post->wire);
    free(post);
    wso_ward_release(ward);
    return WSO_OK;
}

void wso_ward_remove(struct wso_post *post)
{
    (void)remove_post(post, true);
}

int wso_ward_remove_try(struct wso_post *post)
{
    return remove_post(post, false);
}

void wso_post_leave_locked(struct wso_post *post)
{
    WSO_ASSERT_HELD(&post->ward->lock);
    post->busy = false;
    wso_cond_signal(&post->ward->idle);
}

void wso_post_say(struct wso_post *post, const struct wso_wire_step *step)
{
    struct wso_ward *ward = post->ward;
    unsigned words = (step->did & (WSO_DID_READ | WSO_DID_BLOCK) ? (unsigned)WSO_WORD_READY : 0u) |
                     (step->did & WSO_DID_PROPOSE ? (unsigned)WSO_WORD_DEAD : 0u);
    wso_lock_acquire(&ward->lock);
    post->words |= words;
    if (words != 0 && !wso_link_listed(&post->word)) {
        wso_list_push_back(&ward->words, &post->word);
    }
    if (step->did & (WSO_DID_READ | WSO_DID_ANSWER) && atomic_load(&ward->is_late)) {
        post->rescue.answered += step->answered;
        post->rescue.pinged += step->pinged;
        post->rescue.read += step->read;
        if (!wso_link_listed(&post->rescued)) {
            wso_list_push_back(&ward->rescued, &post->rescued);
        }
    }
    wso_lock_release(&ward->lock);
    if (words != 0) {
        /* A loop that is gone has nobody to tell. */
        (void)wso_pulse_tell(&ward->pulse);
    }
}

void *wso_ward_next(struct wso_ward *ward, unsigned *words, struct wso_rescue *rescue)
{
    struct wso_post *post = NULL;
    wso_lock_acquire(&ward->lock);
    struct wso_link *link = wso_list_pop_front(&ward->words);
    if (link != NULL) {
        post = WSO_ITEM(link, struct wso_post, word);
        *words = post->words;
        post->words = 0;
    } else if ((link = wso_list_pop_front(&ward->rescued)) != NULL) {
        post = WSO_ITEM(link, struct wso_post, rescued);
        *words = WSO_WORD_RESCUE;
        *rescue = post->rescue;
        rescue->duration = ward->stall;
        post->rescue = (struct wso_rescue){0};
        wso_wire_rescued(post->wire, ward->stall);
    }
    void *owner = post == NULL ? NULL : post->owner;
    wso_lock_release(&ward->lock);
    return owner;
}

bool wso_ward_late(struct wso_ward *ward)
{
    return atomic_load(&ward->is_late) && !atomic_load(&ward->is_closed);
}
