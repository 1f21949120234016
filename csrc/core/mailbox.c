/* The mailbox: see mailbox.h. One lock guards the list and the closing; the bell has its own, and
 * the two are never held together. */
#include "mailbox.h"

#include <stdlib.h>

struct wso_mailbox {
    struct wso_lock lock;
    struct wso_list mail; /* guarded by the lock, as is the next */
    bool closed;
    atomic_uint shares;
    struct wso_bell bell;
};

int wso_mailbox_new(struct wso_mailbox **mailbox)
{
    *mailbox = NULL;
    struct wso_mailbox *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return WSO_ENOMEM;
    }
    int status = wso_lock_init(&made->lock);
    if (status != WSO_OK) {
        goto fail_memory;
    }
    status = wso_bell_open(&made->bell);
    if (status != WSO_OK) {
        goto fail_lock;
    }
    wso_list_init(&made->mail);
    atomic_init(&made->shares, 1);
    *mailbox = made;
    return WSO_OK;

fail_lock:
    wso_lock_destroy(&made->lock);
fail_memory:
    free(made);
    return status;
}

struct wso_mailbox *wso_mailbox_share(struct wso_mailbox *mailbox)
{
    atomic_fetch_add_explicit(&mailbox->shares, 1, memory_order_relaxed);
    return mailbox;
}

void wso_mailbox_release(struct wso_mailbox *mailbox)
{
    if (atomic_fetch_sub_explicit(&mailbox->shares, 1, memory_order_acq_rel) != 1) {
        return;
    }
    wso_bell_destroy(&mailbox->bell);
    wso_lock_destroy(&mailbox->lock);
    free(mailbox);
}

int wso_mailbox_post(struct wso_mailbox *mailbox, struct wso_mail *mail)
{
    wso_lock_acquire(&mailbox->lock);
    bool closed = mailbox->closed;
    if (!closed) {
        wso_list_push_back(&mailbox->mail, &mail->link);
    }
    wso_lock_release(&mailbox->lock);
    return closed ? WSO_ECLOSED : WSO_OK;
}

void wso_mailbox_ring(struct wso_mailbox *mailbox)
{
    wso_bell_ring(&mailbox->bell);
}

void wso_mailbox_take(struct wso_mailbox *mailbox, struct wso_list *taken)
{
    wso_bell_hush(&mailbox->bell);
    wso_lock_acquire(&mailbox->lock);
    wso_list_take_all(taken, &mailbox->mail);
    wso_lock_release(&mailbox->lock);
}

void wso_mailbox_close(struct wso_mailbox *mailbox, struct wso_list *left)
{
    wso_lock_acquire(&mailbox->lock);
    mailbox->closed = true;
    wso_list_take_all(left, &mailbox->mail);
    wso_lock_release(&mailbox->lock);
    wso_bell_close(&mailbox->bell);
}

bool wso_mailbox_closed(struct wso_mailbox *mailbox)
{
    wso_lock_acquire(&mailbox->lock);
    bool closed = mailbox->closed;
    wso_lock_release(&mailbox->lock);
    return closed;
}

int wso_mailbox_fd(struct wso_mailbox *mailbox)
{
    return wso_bell_fd(&mailbox->bell);
}

uint64_t wso_mailbox_rings(struct wso_mailbox *mailbox)
{
    return atomic_load_explicit(&mailbox->bell.rings, memory_order_relaxed);
}
