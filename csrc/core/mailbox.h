/* A mailbox: what is finished and waits for its event loop. It owns that loop's bell.
 *
 * Posting appends; ringing is a step of its own, because a worker that still holds the GIL would
 * only wake the loop into a wait for it: it posts at once and rings when it has let go.
 *
 * Shares: the mailbox lives until the last share is released, so that a job may outlive its loop.
 * After close every post is refused and the poster keeps the mail. Mail that lies in the box at
 * close is handed to the closer.
 */
#ifndef WSO_MAILBOX_H
#define WSO_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>

#include "bell.h"
#include "list.h"
#include "lock.h"

/* Something to be delivered; a member of what it delivers. */
struct wso_mail {
    struct wso_link link;
    /* Called by the owner of the loop, on the loop's thread, for each mail that it takes. */
    void (*deliver)(struct wso_mail *mail);
    /* Called instead where the loop is gone: let go of it and tell nobody. */
    void (*drop)(struct wso_mail *mail);
};

struct wso_mailbox;

/* A new mailbox with one share and its bell. Errors as wso_bell_open; *mailbox is then NULL. */
int wso_mailbox_new(struct wso_mailbox **mailbox);

/* One share more; any thread that has one. */
struct wso_mailbox *wso_mailbox_share(struct wso_mailbox *mailbox);

/* Give a share back; the last one frees the mailbox, which must have been closed. */
void wso_mailbox_release(struct wso_mailbox *mailbox);

/* Append; the mailbox takes the mail. Any thread. WSO_ECLOSED: the caller keeps it. */
int wso_mailbox_post(struct wso_mailbox *mailbox, struct wso_mail *mail);

/* Ring the loop's bell, after a post. Any thread. */
void wso_mailbox_ring(struct wso_mailbox *mailbox);

/* Hush the bell, then move all mail to the end of `taken`. The loop's thread. */
void wso_mailbox_take(struct wso_mailbox *mailbox, struct wso_list *taken);

/* Refuse all further posts, close the descriptor and move what is left to the end of `left`.
 * May be called twice. */
void wso_mailbox_close(struct wso_mailbox *mailbox, struct wso_list *left);

bool wso_mailbox_closed(struct wso_mailbox *mailbox);

/* The descriptor to poll; -1 once closed. */
int wso_mailbox_fd(struct wso_mailbox *mailbox);

/* How often the loop was woken: writes to the eventfd so far. */
uint64_t wso_mailbox_rings(struct wso_mailbox *mailbox);

#endif
