/* What the files of the guard know of each other: guard.c has the thread, ward.c the lists of one loop's
 * wires, rounds.c what the thread does with them.
 */
#ifndef WSO_GUARD_INNER_H
#define WSO_GUARD_INNER_H

#include "bell.h"
#include "guard.h"
#include "list.h"
#include "lock.h"
#include "pulse.h"
#include "thread.h"

/* The wheel: posts by the time at which their keepalive is to be looked at, in slots of one pulse. A post
 * due later than one turn of the wheel is looked at once a turn. */
#define WHEEL_SLOTS 512

struct wso_guard {
    atomic_uint shares;
    atomic_uint_fast64_t slept; /* ns that the guard's clock leaves out */
    struct wso_bell bell;       /* wakes the thread */
    int poll_fd;                /* epoll: the bell, and the poll sets of late wards */
    struct wso_thread thread;
    atomic_bool stopping;
    struct wso_lock lock;   /* guards what follows */
    struct wso_list wards;  /* not closed */
};

struct wso_post {
    struct wso_ward *ward;
    struct wso_wire *wire; /* shared */
    int fd;                /* open until the post is removed */
    uint64_t max_stall;
    void *owner;

    /* Guarded by the ward's lock. */
    struct wso_link link; /* in the ward's posts */
    struct wso_link due;  /* in the wheel, or in the list of those that are due now */
    struct wso_link word; /* in the ward's words */
    struct wso_link rescued; /* in the ward's rescued */
    uint64_t due_at;      /* ns, the guard's clock */
    unsigned words;
    struct wso_rescue rescue; /* of the stall that lasts, or of the last one */
    bool busy;       /* the guard's thread is at it, outside the lock */
    uint64_t walk;   /* the last walk that came by */
    uint32_t events; /* what the poll set asks for; 0: not in it */
    bool silent;     /* its lease was spent in this stall */
};

struct wso_ward {
    atomic_uint shares;
    struct wso_guard *guard; /* shared */
    struct wso_pulse pulse;
    int poll_fd; /* epoll: the wires */
    void (*deliver)(void *owner);
    void *owner;
    atomic_bool is_late;
    atomic_bool is_closed;

    /* The guard's thread only. */
    uint64_t ask_at; /* when the next pulse is due */
    bool gone;       /* the mailbox is closed */
    uint64_t walk;   /* counts the walks */
    bool polled;     /* its poll set is in the guard's */

    struct wso_link link;  /* in the guard's wards; guarded by the guard's lock */
    uint64_t round;        /* likewise: the last round of the thread that came by */

    struct wso_lock lock;  /* guards what follows */
    struct wso_cond idle;  /* a post is no longer busy */
    struct wso_list posts; /* in the order of the walk */
    size_t count;
    struct wso_list words;
    struct wso_list rescued;
    uint64_t stall;        /* ns that the last stall lasted */
    bool any_silent;
    uint64_t tick; /* the wheel has turned to here */
    struct wso_list wheel[WHEEL_SLOTS];
};

/* ward.c */
struct wso_ward *wso_ward_share(struct wso_ward *ward);
void wso_post_schedule_locked(struct wso_post *post, uint64_t at);
/* Have the loop hear of what a step or a tick did. Not with a lock. */
void wso_post_say(struct wso_post *post, const struct wso_wire_step *step);
/* The guard's thread is done with a busy post. */
void wso_post_leave_locked(struct wso_post *post);

/* rounds.c: the guard's thread. */
/* Look after one ward; returns when to come again. */
uint64_t wso_ward_round(struct wso_ward *ward, uint64_t now);

#endif
