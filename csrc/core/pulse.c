/* The pulse: see pulse.h. */
#include "pulse.h"

#include "error.h"

static void deliver(struct wso_mail *mail)
{
    struct wso_pulse *pulse = WSO_ITEM(mail, struct wso_pulse, mail);
    /* First: what is told from here on needs a mail of its own. */
    atomic_store(&pulse->posted, false);
    uint64_t asked_at = atomic_exchange(&pulse->asked_at, 0);
    pulse->answered(pulse, asked_at);
    pulse->release(pulse);
}

static void drop(struct wso_mail *mail)
{
    struct wso_pulse *pulse = WSO_ITEM(mail, struct wso_pulse, mail);
    /* So that who tells next learns that the loop is gone. */
    atomic_store(&pulse->posted, false);
    pulse->release(pulse);
}

bool wso_pulse_owns(const struct wso_mail *mail)
{
    return mail->deliver == deliver;
}

void wso_pulse_init(struct wso_pulse *pulse, struct wso_mailbox *mailbox)
{
    pulse->mail.deliver = deliver;
    pulse->mail.drop = drop;
    pulse->mailbox = wso_mailbox_share(mailbox);
    atomic_init(&pulse->posted, false);
    atomic_init(&pulse->asked_at, 0);
}

void wso_pulse_destroy(struct wso_pulse *pulse)
{
    wso_mailbox_release(pulse->mailbox);
}

int wso_pulse_tell(struct wso_pulse *pulse)
{
    if (atomic_exchange(&pulse->posted, true)) {
        return WSO_OK;
    }
    pulse->share(pulse);
    int status = wso_mailbox_post(pulse->mailbox, &pulse->mail);
    if (status == WSO_OK) {
        wso_mailbox_ring(pulse->mailbox);
    } else {
        atomic_store(&pulse->posted, false);
        pulse->release(pulse);
    }
    return status;
}

int wso_pulse_ask(struct wso_pulse *pulse, uint64_t now)
{
    uint_fast64_t answered = 0;
    (void)atomic_compare_exchange_strong(&pulse->asked_at, &answered, now > 0 ? now : 1);
    return wso_pulse_tell(pulse);
}

uint64_t wso_pulse_waited(struct wso_pulse *pulse, uint64_t now)
{
    uint64_t asked_at = atomic_load(&pulse->asked_at);
    return asked_at > 0 && now > asked_at ? now - asked_at : 0;
}

void wso_pulse_forget(struct wso_pulse *pulse)
{
    atomic_store(&pulse->asked_at, 0);
}
