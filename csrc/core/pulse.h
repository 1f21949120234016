/* The pulse of one event loop: it is rung, and the time until it answers shows how late the loop is.
 *
 * A pulse is a mail in the loop's mailbox. The guard's thread asks; the loop answers when it takes its
 * mail, on its own thread. The same mail also carries the word that there is something to fetch, so at
 * most one is in the box however often the guard has something to say. Lock-free but for the mailbox.
 *
 * The mail has a share of its owner while it lies in the box: `share` and `release` say how.
 */
#ifndef WSO_PULSE_H
#define WSO_PULSE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "mailbox.h"

struct wso_pulse {
    struct wso_mail mail;
    struct wso_mailbox *mailbox; /* shared */
    atomic_bool posted;          /* the mail is in the box */
    atomic_uint_fast64_t asked_at; /* ns, the guard's clock; 0: answered */
    /* On the loop's thread, in this order: the pulse was answered; its owner may go. */
    void (*answered)(struct wso_pulse *pulse, uint64_t asked_at);
    void (*release)(struct wso_pulse *pulse);
    /* Any thread: the mail is about to be posted. */
    void (*share)(struct wso_pulse *pulse);
};

/* The mail of some pulse, and not a result of a job. */
bool wso_pulse_owns(const struct wso_mail *mail);

/* All fields but the three functions, which the owner has set. */
void wso_pulse_init(struct wso_pulse *pulse, struct wso_mailbox *mailbox);
/* The mail is not in the box. */
void wso_pulse_destroy(struct wso_pulse *pulse);

/* Ring the loop and note the time, unless an older ring is unanswered. WSO_ECLOSED: it is gone. */
int wso_pulse_ask(struct wso_pulse *pulse, uint64_t now);

/* Ring the loop because there is something to fetch. WSO_ECLOSED likewise. */
int wso_pulse_tell(struct wso_pulse *pulse);

/* How long the loop has not answered, 0 if it has. */
uint64_t wso_pulse_waited(struct wso_pulse *pulse, uint64_t now);

/* Nobody asks any more; an answer is not waited for. */
void wso_pulse_forget(struct wso_pulse *pulse);

#endif
