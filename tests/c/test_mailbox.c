/* mailbox.h: mail is delivered once and in order, or stays with its poster. */
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "check.h"
#include "mailbox.h"

struct letter {
    struct wso_mail mail;
    unsigned poster, number;
    atomic_int delivered;
};

static bool readable(struct wso_mailbox *mailbox)
{
    struct pollfd poller = {.fd = wso_mailbox_fd(mailbox), .events = POLLIN};
    return poll(&poller, 1, 0) == 1;
}

static void deliver(struct wso_mail *mail)
{
    struct letter *letter = WSO_ITEM(mail, struct letter, mail);
    CHECK_EQ(atomic_fetch_add(&letter->delivered, 1), 0);
}

static void letter_init(struct letter *letter, unsigned poster, unsigned number)
{
    *letter = (struct letter){.mail = {.deliver = deliver}, .poster = poster, .number = number};
}

static struct wso_mailbox *new_mailbox(void)
{
    struct wso_mailbox *mailbox;
    CHECK_EQ(wso_mailbox_new(&mailbox), WSO_OK);
    return mailbox;
}

static void drop(struct wso_mailbox *mailbox)
{
    struct wso_list left;
    wso_list_init(&left);
    wso_mailbox_close(mailbox, &left);
    CHECK(wso_list_empty(&left));
    wso_mailbox_release(mailbox);
}

/* The next letter of the list, delivered. */
static struct letter *next_of(struct wso_list *list)
{
    struct wso_link *link = wso_list_pop_front(list);
    CHECK(link != NULL);
    struct wso_mail *mail = WSO_ITEM(link, struct wso_mail, link);
    mail->deliver(mail);
    return WSO_ITEM(mail, struct letter, mail);
}

TEST(mail_is_taken_in_the_order_of_its_posts)
{
    struct wso_mailbox *mailbox = new_mailbox();
    struct letter letters[3];
    struct wso_list taken;
    wso_list_init(&taken);
    for (unsigned i = 0; i < 3; i++) {
        letter_init(&letters[i], 0, i);
        CHECK_EQ(wso_mailbox_post(mailbox, &letters[i].mail), WSO_OK);
    }
    CHECK(!readable(mailbox));
    wso_mailbox_ring(mailbox);
    CHECK(readable(mailbox));
    wso_mailbox_take(mailbox, &taken);
    CHECK(!readable(mailbox));
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(next_of(&taken)->number, i);
    }
    CHECK(wso_list_empty(&taken));
    wso_mailbox_take(mailbox, &taken);
    CHECK(wso_list_empty(&taken));
    drop(mailbox);
}

TEST(what_is_taken_goes_behind_what_was_left_over)
{
    struct wso_mailbox *mailbox = new_mailbox();
    struct letter letters[2];
    struct wso_list taken;
    wso_list_init(&taken);
    for (unsigned i = 0; i < 2; i++) {
        letter_init(&letters[i], 0, i);
        CHECK_EQ(wso_mailbox_post(mailbox, &letters[i].mail), WSO_OK);
        wso_mailbox_take(mailbox, &taken);
    }
    CHECK_EQ(next_of(&taken)->number, 0);
    CHECK_EQ(next_of(&taken)->number, 1);
    drop(mailbox);
}

TEST(rings_are_coalesced_and_counted)
{
    struct wso_mailbox *mailbox = new_mailbox();
    struct wso_list taken;
    wso_list_init(&taken);
    for (int i = 0; i < 100; i++) {
        wso_mailbox_ring(mailbox);
    }
    CHECK_EQ(wso_mailbox_rings(mailbox), 1);
    wso_mailbox_take(mailbox, &taken);
    wso_mailbox_ring(mailbox);
    CHECK_EQ(wso_mailbox_rings(mailbox), 2);
    drop(mailbox);
}

TEST(a_closed_mailbox_refuses_and_hands_over_what_it_has)
{
    struct wso_mailbox *mailbox = new_mailbox();
    struct letter before, after;
    struct wso_list left;
    wso_list_init(&left);
    letter_init(&before, 0, 1);
    letter_init(&after, 0, 2);
    CHECK(!wso_mailbox_closed(mailbox));
    CHECK_EQ(wso_mailbox_post(mailbox, &before.mail), WSO_OK);
    wso_mailbox_close(mailbox, &left);
    CHECK(wso_mailbox_closed(mailbox));
    CHECK_EQ(wso_mailbox_fd(mailbox), -1);
    CHECK_EQ(wso_mailbox_post(mailbox, &after.mail), WSO_ECLOSED);
    CHECK(!wso_link_listed(&after.mail.link));
    wso_mailbox_ring(mailbox);
    CHECK_EQ(next_of(&left)->number, 1);
    CHECK(wso_list_empty(&left));
    wso_mailbox_take(mailbox, &left);
    drop(mailbox);
}

TEST(a_mailbox_lives_until_its_last_share)
{
    struct wso_mailbox *mailbox = new_mailbox();
    CHECK(wso_mailbox_share(mailbox) == mailbox);
    struct wso_list left;
    wso_list_init(&left);
    wso_mailbox_close(mailbox, &left);
    wso_mailbox_release(mailbox);
    struct letter letter;
    letter_init(&letter, 0, 0);
    CHECK_EQ(wso_mailbox_post(mailbox, &letter.mail), WSO_ECLOSED);
    wso_mailbox_ring(mailbox);
    wso_mailbox_release(mailbox);
}

/* Many posters, one taker. */

enum { POSTERS = 4, LETTERS = 20, ROUNDS = 100 };

static struct wso_mailbox *box;
static struct letter mail[POSTERS][LETTERS];
static atomic_int round_now, idle_posters;

static void *post_rounds(void *argument)
{
    unsigned poster = *(unsigned *)argument;
    for (int round = 1; round <= ROUNDS; round++) {
        WAIT_UNTIL(atomic_load(&round_now) == round);
        for (unsigned i = 0; i < LETTERS; i++) {
            letter_init(&mail[poster][i], poster, i);
            CHECK_EQ(wso_mailbox_post(box, &mail[poster][i].mail), WSO_OK);
            wso_mailbox_ring(box);
        }
        atomic_fetch_add(&idle_posters, 1);
    }
    return NULL;
}

/* Take whenever the bell rings, until all of a round is there. When all posters have returned from
 * their last ring, mail that still lies in the box must have rung. */
static void take_round(unsigned *next)
{
    int taken = 0;
    struct wso_list list;
    wso_list_init(&list);
    while (taken < POSTERS * LETTERS) {
        bool all_posted = atomic_load(&idle_posters) == POSTERS;
        if (!readable(box)) {
            CHECK(!all_posted);
            continue;
        }
        wso_mailbox_take(box, &list);
        while (!wso_list_empty(&list)) {
            struct letter *letter = next_of(&list);
            CHECK_EQ(letter->number, next[letter->poster]++);
            taken++;
        }
    }
}

TEST(no_lost_ring)
{
    pthread_t threads[POSTERS];
    unsigned numbers[POSTERS];
    box = new_mailbox();
    atomic_store(&round_now, 0);
    for (unsigned i = 0; i < POSTERS; i++) {
        numbers[i] = i;
        CHECK_EQ(pthread_create(&threads[i], NULL, post_rounds, &numbers[i]), 0);
    }
    for (int round = 1; round <= ROUNDS; round++) {
        unsigned next[POSTERS] = {0};
        atomic_store(&idle_posters, 0);
        atomic_store(&round_now, round);
        take_round(next);
        WAIT_UNTIL(atomic_load(&idle_posters) == POSTERS);
    }
    for (unsigned i = 0; i < POSTERS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
    CHECK(wso_mailbox_rings(box) <= POSTERS * LETTERS * ROUNDS);
    drop(box);
}

/* Posters meet a closing: each letter is either left to the closer or refused. */
static atomic_int refused, accepted;

static void *post_until_closed(void *argument)
{
    unsigned poster = *(unsigned *)argument;
    for (unsigned i = 0; i < LETTERS; i++) {
        letter_init(&mail[poster][i], poster, i);
        int status = wso_mailbox_post(box, &mail[poster][i].mail);
        CHECK(status == WSO_OK || status == WSO_ECLOSED);
        atomic_fetch_add(status == WSO_OK ? &accepted : &refused, 1);
        wso_mailbox_ring(box);
    }
    wso_mailbox_release(box);
    return NULL;
}

TEST(a_letter_is_in_one_place_when_the_mailbox_closes)
{
    for (int round = 0; round < 50; round++) {
        pthread_t threads[POSTERS];
        unsigned numbers[POSTERS];
        box = new_mailbox();
        atomic_store(&refused, 0);
        atomic_store(&accepted, 0);
        for (unsigned i = 0; i < POSTERS; i++) {
            numbers[i] = i;
            (void)wso_mailbox_share(box);
            CHECK_EQ(pthread_create(&threads[i], NULL, post_until_closed, &numbers[i]), 0);
        }
        WAIT_UNTIL(atomic_load(&accepted) + atomic_load(&refused) >= round);
        struct wso_list left;
        wso_list_init(&left);
        wso_mailbox_close(box, &left);
        wso_mailbox_release(box);
        for (unsigned i = 0; i < POSTERS; i++) {
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
        }
        int handed_over = 0;
        while (!wso_list_empty(&left)) {
            (void)next_of(&left);
            handed_over++;
        }
        CHECK_EQ(handed_over, atomic_load(&accepted));
        CHECK_EQ(handed_over + atomic_load(&refused), POSTERS * LETTERS);
    }
}
