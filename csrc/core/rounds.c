/* What the guard's thread does for one ward: the pulse, the keepalives, and the wires of a late loop.
 *
 * Posts are picked under the ward's lock, marked busy, and worked on without it, so that their owner
 * waits for one batch at most.
 */
#include "guard_inner.h"

#include <sys/epoll.h>

/* Wires between two looks at whether the loop is back. */
#define BATCH 64

struct batch {
    struct wso_post *posts[BATCH];
    int count;
};

static void pick_locked(struct batch *batch, struct wso_post *post)
{
    post->busy = true;
    batch->posts[batch->count++] = post;
}

static void leave(struct wso_ward *ward, struct batch *batch)
{
    wso_lock_acquire(&ward->lock);
    for (int i = 0; i < batch->count; i++) {
        wso_post_leave_locked(batch->posts[i]);
    }
    wso_lock_release(&ward->lock);
    batch->count = 0;
}

/* Have the poll set ask for these events of a busy post. */
static void poll_for_locked(struct wso_post *post, uint32_t events)
{
    if (events == post->events) {
        return;
    }
    struct epoll_event event = {.events = events, .data.ptr = post};
    int what = events == 0         ? EPOLL_CTL_DEL
               : post->events == 0 ? EPOLL_CTL_ADD
                                   : EPOLL_CTL_MOD;
    /* Without the memory for it, the next step or walk tries again. */
    if (epoll_ctl(post->ward->poll_fd, what, post->fd, &event) == 0) {
        post->events = events;
    }
}

/* The loop has been away too long for this wire: it is as silent as its loop (see guard.h), until the
 * time of its silence is forgiven. Only this thread writes `silent`. */
static bool lease_is_spent(struct wso_post *post, uint64_t now)
{
    return post->silent || wso_pulse_waited(&post->ward->pulse, now) > post->max_stall;
}

static void fall_silent(struct wso_post *post)
{
    wso_lock_acquire(&post->ward->lock);
    post->silent = post->ward->any_silent = true;
    poll_for_locked(post, 0);
    wso_lock_release(&post->ward->lock);
}

static void step(struct wso_post *post, uint64_t now)
{
    if (lease_is_spent(post, now)) {
        fall_silent(post);
        return;
    }
    struct wso_wire_step done;
    wso_wire_step(post->wire, now, &done);
    wso_lock_acquire(&post->ward->lock);
    poll_for_locked(post, done.events);
    wso_lock_release(&post->ward->lock);
    if (done.did != 0) {
        wso_post_say(post, &done);
    }
}

/* The loop is late and was not told to be back. */
static bool still_late(struct wso_ward *ward)
{
    return !atomic_load(&ward->is_closed) && !atomic_load(&ward->guard->stopping) &&
           wso_pulse_waited(&ward->pulse, wso_guard_now(ward->guard)) > 0;
}

/* A stall begins: each wire may have something to do that no poll set would tell. */
static void walk(struct wso_ward *ward, uint64_t now)
{
    struct batch batch = {.count = 0};
    ward->walk++;
    bool goes_on = true;
    while (goes_on && still_late(ward)) {
        wso_lock_acquire(&ward->lock);
        struct wso_link *link;
        while (batch.count < BATCH && (link = wso_list_first(&ward->posts)) != NULL &&
               WSO_ITEM(link, struct wso_post, link)->walk != ward->walk) {
            struct wso_post *post = WSO_ITEM(link, struct wso_post, link);
            post->walk = ward->walk;
            wso_link_unlink(link);
            wso_list_push_back(&ward->posts, link);
            pick_locked(&batch, post);
        }
        wso_lock_release(&ward->lock);
        goes_on = batch.count == BATCH;
        for (int i = 0; i < batch.count; i++) {
            step(batch.posts[i], now);
        }
        leave(ward, &batch);
    }
}

/* Step the wires that have something to do, a batch at a time, until the other wards want their turn. */
static void step_ready(struct wso_ward *ward, uint64_t until)
{
    struct batch batch = {.count = 0};
    bool goes_on = true;
    while (goes_on && still_late(ward)) {
        struct epoll_event events[BATCH];
        wso_lock_acquire(&ward->lock);
        int count = epoll_wait(ward->poll_fd, events, BATCH, 0);
        for (int i = 0; i < count; i++) {
            pick_locked(&batch, events[i].data.ptr);
        }
        wso_lock_release(&ward->lock);
        uint64_t now = wso_guard_now(ward->guard);
        goes_on = batch.count == BATCH && now < until;
        for (int i = 0; i < batch.count; i++) {
            step(batch.posts[i], now);
        }
        leave(ward, &batch);
    }
}

/* The posts whose time has come, off the wheel; those of a later turn go back into their slot. */
static void turn_wheel_locked(struct wso_ward *ward, uint64_t now, struct wso_list *due)
{
    uint64_t tick = now / WSO_PULSE;
    if (tick > ward->tick && tick - ward->tick > WHEEL_SLOTS) {
        ward->tick = tick - WHEEL_SLOTS;
    }
    while (ward->tick < tick) {
        struct wso_list slot;
        wso_list_init(&slot);
        wso_list_take_all(&slot, &ward->wheel[++ward->tick % WHEEL_SLOTS]);
        struct wso_link *link;
        while ((link = wso_list_pop_front(&slot)) != NULL) {
            struct wso_post *post = WSO_ITEM(link, struct wso_post, due);
            struct wso_list *to =
                post->due_at <= now ? due : &ward->wheel[ward->tick % WHEEL_SLOTS];
            wso_list_push_back(to, link);
        }
    }
}

static void tick(struct wso_post *post, uint64_t now)
{
    struct wso_wire_step done = {.next = now + WSO_PULSE};
    if (lease_is_spent(post, now)) {
        fall_silent(post);
    } else {
        wso_wire_tick(post->wire, now, &done);
    }
    wso_lock_acquire(&post->ward->lock);
    /* Unless its settings changed meanwhile, and it is to be looked at again. */
    if (!wso_link_listed(&post->due)) {
        wso_post_schedule_locked(post, done.next);
    }
    wso_lock_release(&post->ward->lock);
    if (done.did != 0) {
        wso_post_say(post, &done);
    }
}

static void tick_due(struct wso_ward *ward, uint64_t now)
{
    struct wso_list due;
    wso_list_init(&due);
    wso_lock_acquire(&ward->lock);
    turn_wheel_locked(ward, now, &due);
    struct wso_link *link;
    while ((link = wso_list_pop_front(&due)) != NULL) {
        struct wso_post *post = WSO_ITEM(link, struct wso_post, due);
        post->busy = true;
        wso_lock_release(&ward->lock);
        tick(post, now);
        wso_lock_acquire(&ward->lock);
        wso_post_leave_locked(post);
    }
    wso_lock_release(&ward->lock);
}

/* The loop is back: what was silent is looked at anew, and the silence counts against nobody. */
static void break_silence(struct wso_ward *ward, uint64_t now)
{
    struct batch batch = {.count = 0};
    bool goes_on = true;
    while (goes_on) {
        wso_lock_acquire(&ward->lock);
        goes_on = false;
        ward->any_silent = false;
        for (struct wso_link *link = ward->posts.head.next; link != &ward->posts.head;
             link = link->next) {
            struct wso_post *post = WSO_ITEM(link, struct wso_post, link);
            if (post->silent && batch.count < BATCH) {
                post->silent = false;
                pick_locked(&batch, post);
            }
            goes_on = goes_on || post->silent;
        }
        wso_lock_release(&ward->lock);
        for (int i = 0; i < batch.count; i++) {
            wso_wire_forgive(batch.posts[i]->wire, now);
        }
        leave(ward, &batch);
    }
}

/* Have the guard wait for the wires of this ward too, or no longer. */
static void poll_ward(struct wso_ward *ward, bool wanted)
{
    struct epoll_event event = {.events = EPOLLIN};
    int what = wanted ? EPOLL_CTL_ADD : EPOLL_CTL_DEL;
    if (wanted != ward->polled &&
        epoll_ctl(ward->guard->poll_fd, what, ward->poll_fd, &event) == 0) {
        ward->polled = wanted;
    }
}

/* Ask whether the loop is there, when it is time. False: it is gone, and will close the ward. */
static bool beat(struct wso_ward *ward, uint64_t now)
{
    if (now >= ward->ask_at && !ward->gone) {
        ward->ask_at = now + WSO_PULSE;
        ward->gone = wso_pulse_ask(&ward->pulse, now) != WSO_OK;
    }
    return !ward->gone;
}

uint64_t wso_ward_round(struct wso_ward *ward, uint64_t now)
{
    wso_lock_acquire(&ward->lock);
    bool empty = ward->count == 0;
    bool any_silent = ward->any_silent;
    wso_lock_release(&ward->lock);
    if (empty || atomic_load(&ward->is_closed) || !beat(ward, now)) {
        poll_ward(ward, false);
        atomic_store(&ward->is_late, false);
        wso_pulse_forget(&ward->pulse);
        return WSO_NEVER;
    }
    bool late = wso_pulse_waited(&ward->pulse, now) >= WSO_LATE;
    bool begins = late && !atomic_exchange(&ward->is_late, late);
    atomic_store(&ward->is_late, late);
    if (any_silent && !late) {
        break_silence(ward, now);
    }
    poll_ward(ward, late);
    if (atomic_load(&ward->is_closed)) {
        /* Just now: see wso_ward_close. */
        poll_ward(ward, false);
    }
    tick_due(ward, now);
    if (begins) {
        walk(ward, now);
    } else if (late) {
        step_ready(ward, ward->ask_at);
    }
    return ward->ask_at;
}
