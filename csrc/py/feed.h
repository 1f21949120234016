/* A feed: what a stream's producer on its worker and its reader on the loop have in common.
 *
 * Shares are counted attached: the reader's Stream, the job, and a posted mail each hold one. The
 * lock guards the buffer and the flags, because the producer waits for space without the GIL; items
 * are put in and taken out attached only.
 */
#ifndef WSO_FEED_H
#define WSO_FEED_H

#include "lock.h"
#include "module.h"

struct wso_feed {
    struct wso_job job;
    struct wso_mail mail;
    struct wso_listener listener; /* hears of the loop's end */
    unsigned shares;
    struct wso_pool_object *pool;
    struct wso_mailbox *mailbox; /* shared */
    PyObject *source;
    PyObject *args; /* NULL: the source is not called but iterated */
    PyObject *kwargs;
    PyObject *context;

    /* The reader's, on the loop's thread. */
    PyObject *waiter;        /* a future for the next item, or NULL */
    PyObject *close_waiters; /* a list of futures for the end of the job, or NULL */
    bool job_over;           /* `done` was called: the iterator is closed */
    bool abandoned;          /* closing the pool does not wait for the producer */

    /* Guarded by the lock. */
    struct wso_lock lock;
    struct wso_cond space;
    PyObject **items; /* a ring */
    size_t capacity;
    size_t first;
    size_t count;
    bool producer_waits;
    bool reader_waits;
    bool posted; /* the mail is on its way */
    bool left;   /* the reader has gone */
    bool ended;  /* no item will come after those in the buffer */
    PyObject *error;
};

/* feed.c */
/* Raises and answers NULL on error. */
struct wso_feed *wso_feed_new(struct wso_pool_object *pool, size_t capacity);
void wso_feed_release(struct wso_feed *feed);
/* Hand the job in; the feed's source is set. Raises and answers -1 on error. */
int wso_feed_start(struct wso_feed *feed, struct wso_hub *hub);
/* Tell the loop that there is something to look at. */
void wso_feed_post(struct wso_feed *feed, bool ring_now);

/* feed_reader.c */
void wso_feed_deliver(struct wso_mail *mail);
void wso_feed_drop(struct wso_mail *mail);
void wso_feed_loop_gone(struct wso_listener *listener);
void wso_feed_process_ends(struct wso_listener *listener);
/* The first item, a new reference, and room for another; NULL if there is none now. */
PyObject *wso_feed_take(struct wso_feed *feed);
/* An item can be taken. */
bool wso_feed_has_item(struct wso_feed *feed);
/* No item is left and none will come. */
bool wso_feed_exhausted(struct wso_feed *feed);
/* The error that ended the feed, once; NULL if there is none. */
PyObject *wso_feed_take_error(struct wso_feed *feed);
/* The reader goes, with an error for whoever reads on, or NULL; takes the reference. What is
 * buffered is dropped. `abandon`: closing the pool does not wait for the producer. */
void wso_feed_leave(struct wso_feed *feed, PyObject *error, bool abandon);

#endif
