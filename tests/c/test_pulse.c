/* pulse.h: one mail at a time asks, tells and is answered on the loop's thread. */
#include <pthread.h>

#include "check.h"
#include "pulse.h"

/* Who owns a pulse; shares are counted. */
struct owner {
    struct wso_pulse pulse;
    atomic_int shares, answers;
    uint64_t asked_at; /* of the last answer */
    void (*then)(struct owner *owner);
};

static void share(struct wso_pulse *pulse)
{
    atomic_fetch_add(&WSO_ITEM(pulse, struct owner, pulse)->shares, 1);
}

static void release(struct wso_pulse *pulse)
{
    CHECK(atomic_fetch_sub(&WSO_ITEM(pulse, struct owner, pulse)->shares, 1) > 1);
}

static void answered(struct wso_pulse *pulse, uint64_t asked_at)
{
    CHECK_NO_LOCK();
    struct owner *owner = WSO_ITEM(pulse, struct owner, pulse);
    /* The mail's share lasts until this returns. */
    CHECK(atomic_load(&owner->shares) > 1);
    owner->asked_at = asked_at;
    atomic_fetch_add(&owner->answers, 1);
    if (owner->then != NULL) {
        owner->then(owner);
    }
}

static struct wso_mailbox *owner_init(struct owner *owner)
{
    struct wso_mailbox *mailbox;
    CHECK_EQ(wso_mailbox_new(&mailbox), WSO_OK);
    *owner = (struct owner){
        .pulse = {.answered = answered, .release = release, .share = share},
        .shares = 1,
        .asked_at = 77,
    };
    wso_pulse_init(&owner->pulse, mailbox);
    return mailbox;
}

/* The loop takes its mail; returns how much there was. */
static int take(struct wso_mailbox *mailbox)
{
    struct wso_list taken;
    struct wso_link *link;
    int count = 0;
    wso_list_init(&taken);
    wso_mailbox_take(mailbox, &taken);
    while ((link = wso_list_pop_front(&taken)) != NULL) {
        struct wso_mail *mail = WSO_ITEM(link, struct wso_mail, link);
        mail->deliver(mail);
        count++;
    }
    return count;
}

/* The loop is gone; returns how much mail nobody took. */
static int close_mailbox(struct wso_mailbox *mailbox)
{
    struct wso_list left;
    struct wso_link *link;
    int count = 0;
    wso_list_init(&left);
    wso_mailbox_close(mailbox, &left);
    while ((link = wso_list_pop_front(&left)) != NULL) {
        struct wso_mail *mail = WSO_ITEM(link, struct wso_mail, link);
        mail->drop(mail);
        count++;
    }
    return count;
}

static void owner_destroy(struct owner *owner, struct wso_mailbox *mailbox)
{
    CHECK_EQ(close_mailbox(mailbox), 0);
    CHECK_EQ(atomic_load(&owner->shares), 1);
    wso_pulse_destroy(&owner->pulse);
    wso_mailbox_release(mailbox);
}

TEST(a_loop_that_was_asked_is_late_until_it_takes_its_mail)
{
    struct owner owner;
    struct wso_mailbox *mailbox = owner_init(&owner);
    CHECK_EQ(wso_pulse_waited(&owner.pulse, 1000), 0);
    CHECK_EQ(wso_pulse_ask(&owner.pulse, 1000), WSO_OK);
    CHECK_EQ(wso_mailbox_rings(mailbox), 1);
    CHECK_EQ(wso_pulse_waited(&owner.pulse, 1000), 0);
    CHECK_EQ(wso_pulse_waited(&owner.pulse, 999), 0);
    CHECK_EQ(wso_pulse_waited(&owner.pulse, 1500), 500);
    /* To ask again changes nothing while it is late. */
    CHECK_EQ(wso_pulse_ask(&owner.pulse, 1400), WSO_OK);
    CHECK_EQ(wso_pulse_waited(&owner.pulse, 1500), 500);
    CHECK_EQ(wso_mailbox_rings(mailbox), 1);
    CHECK_EQ(take(mailbox), 1);
    CHECK_EQ(owner.asked_at, 1000);
    CHECK_EQ(wso_pulse_waited(&owner.pulse, 2000), 0);
    CHECK_EQ(wso_pulse_ask(&owner.pulse, 2000), WSO_OK);
    CHECK_EQ(wso_pulse_waited(&owner.pulse, 2001), 1);
    CHECK_EQ(take(mailbox), 1);
    CHECK_EQ(owner.asked_at, 2000);
    owner_destroy(&owner, mailbox);
}

TEST(a_question_at_the_beginning_of_time_is_one)
{
    struct owner owner;
    struct wso_mailbox *mailbox = owner_init(&owner);
    CHECK_EQ(wso_pulse_ask(&owner.pulse, 0), WSO_OK);
    CHECK_EQ(wso_pulse_waited(&owner.pulse, 11), 10);
    CHECK_EQ(take(mailbox), 1);
    CHECK(owner.asked_at > 0);
    owner_destroy(&owner, mailbox);
}

static void deliver_other(struct wso_mail *mail)
{
    (void)mail;
}

TEST(the_mail_of_a_pulse_is_told_from_others)
{
    struct owner owner;
    struct wso_mail other = {.deliver = deliver_other};
    struct wso_mailbox *mailbox = owner_init(&owner);
    CHECK(wso_pulse_owns(&owner.pulse.mail));
    CHECK(!wso_pulse_owns(&other));
    owner_destroy(&owner, mailbox);
}

TEST(to_tell_and_to_ask_is_one_mail)
{
    struct owner owner;
    struct wso_mailbox *mailbox = owner_init(&owner);
    CHECK_EQ(wso_pulse_tell(&owner.pulse), WSO_OK);
    CHECK_EQ(wso_pulse_waited(&owner.pulse, 1000), 0);
    CHECK_EQ(atomic_load(&owner.shares), 2);
    CHECK_EQ(wso_pulse_tell(&owner.pulse), WSO_OK);
    CHECK_EQ(wso_pulse_ask(&owner.pulse, 5), WSO_OK);
    CHECK_EQ(atomic_load(&owner.shares), 2);
    CHECK_EQ(take(mailbox), 1);
    CHECK_EQ(owner.asked_at, 5);
    /* Who was told and not asked has answered nothing. */
    CHECK_EQ(wso_pulse_tell(&owner.pulse), WSO_OK);
    CHECK_EQ(take(mailbox), 1);
    CHECK_EQ(owner.asked_at, 0);
    CHECK_EQ(atomic_load(&owner.answers), 2);
    owner_destroy(&owner, mailbox);
}

static void tell_again(struct owner *owner)
{
    owner->then = NULL;
    CHECK_EQ(wso_pulse_tell(&owner->pulse), WSO_OK);
}

TEST(what_is_told_while_the_mail_is_delivered_comes_with_the_next)
{
    struct owner owner;
    struct wso_mailbox *mailbox = owner_init(&owner);
    owner.then = tell_again;
    CHECK_EQ(wso_pulse_tell(&owner.pulse), WSO_OK);
    CHECK_EQ(take(mailbox), 1);
    CHECK_EQ(take(mailbox), 1);
    CHECK_EQ(take(mailbox), 0);
    CHECK_EQ(atomic_load(&owner.answers), 2);
    owner_destroy(&owner, mailbox);
}

TEST(what_is_forgotten_is_not_waited_for)
{
    struct owner owner;
    struct wso_mailbox *mailbox = owner_init(&owner);
    CHECK_EQ(wso_pulse_ask(&owner.pulse, 5), WSO_OK);
    wso_pulse_forget(&owner.pulse);
    CHECK_EQ(wso_pulse_waited(&owner.pulse, 1000), 0);
    CHECK_EQ(take(mailbox), 1);
    CHECK_EQ(owner.asked_at, 0);
    owner_destroy(&owner, mailbox);
}

TEST(a_loop_that_is_gone_is_neither_asked_nor_told)
{
    struct owner owner;
    struct wso_mailbox *mailbox = owner_init(&owner);
    CHECK_EQ(close_mailbox(mailbox), 0);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(wso_pulse_tell(&owner.pulse), WSO_ECLOSED);
        CHECK_EQ(wso_pulse_ask(&owner.pulse, 1), WSO_ECLOSED);
    }
    CHECK_EQ(atomic_load(&owner.shares), 1);
    owner_destroy(&owner, mailbox);

    mailbox = owner_init(&owner);
    CHECK_EQ(wso_pulse_ask(&owner.pulse, 5), WSO_OK);
    /* Nobody takes the mail: its share is given back. */
    CHECK_EQ(close_mailbox(mailbox), 1);
    CHECK_EQ(atomic_load(&owner.shares), 1);
    CHECK_EQ(atomic_load(&owner.answers), 0);
    CHECK_EQ(wso_pulse_tell(&owner.pulse), WSO_ECLOSED);
    owner_destroy(&owner, mailbox);
}

static void *ask_and_tell(void *argument)
{
    struct owner *owner = argument;
    for (uint64_t i = 1; i <= 20000; i++) {
        CHECK_EQ(i % 3 == 0 ? wso_pulse_ask(&owner->pulse, i) : wso_pulse_tell(&owner->pulse),
                 WSO_OK);
    }
    return NULL;
}

TEST(no_word_is_lost_between_two_threads)
{
    struct owner owner;
    struct wso_mailbox *mailbox = owner_init(&owner);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, ask_and_tell, &owner), 0);
    }
    for (int i = 0; i < 20000; i++) {
        CHECK(take(mailbox) <= 1);
    }
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
    /* The last words: whatever was told after the last answer lies in the box. */
    (void)take(mailbox);
    CHECK_EQ(atomic_load(&owner.shares), 1);
    CHECK(!atomic_load(&owner.pulse.posted));
    CHECK_EQ(take(mailbox), 0);
    CHECK_EQ(wso_pulse_waited(&owner.pulse, 1000000), 0);
    owner_destroy(&owner, mailbox);
}
