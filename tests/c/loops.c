/* See loops.h. */
#include "loops.h"

#include <string.h>
#include <unistd.h>

struct wso_guard *new_guard(void)
{
    struct wso_guard *guard;
    CHECK_EQ(wso_guard_new(&guard), WSO_OK);
    return guard;
}

void end_guard(struct wso_guard *guard)
{
    wso_guard_stop(guard);
    wso_guard_release(guard);
}

static void deliver(void *owner)
{
    CHECK_NO_LOCK();
    struct loop *loop = owner;
    struct guarded *guarded;
    struct wso_rescue rescue;
    unsigned words;
    loop->delivered++;
    while ((guarded = wso_ward_next(loop->ward, &words, &rescue)) != NULL) {
        CHECK(words != 0 && guarded->post != NULL);
        guarded->ready += (words & WSO_WORD_READY) != 0;
        guarded->dead += (words & WSO_WORD_DEAD) != 0;
        if (words & WSO_WORD_RESCUE) {
            CHECK(rescue.answered + rescue.pinged + rescue.read > 0 || guarded->ready > 0);
            guarded->rescues++;
            guarded->rescue = rescue;
        }
        if (guarded->on_word != NULL) {
            guarded->on_word(guarded);
        }
    }
}

void loop_open(struct loop *loop, struct wso_guard *guard)
{
    *loop = (struct loop){.guard = guard};
    CHECK_EQ(wso_mailbox_new(&loop->mailbox), WSO_OK);
    CHECK_EQ(wso_ward_new(guard, loop->mailbox, deliver, loop, &loop->ward), WSO_OK);
}

void loop_turn(struct loop *loop)
{
    struct wso_list taken;
    struct wso_link *link;
    wso_list_init(&taken);
    wso_mailbox_take(loop->mailbox, &taken);
    while ((link = wso_list_pop_front(&taken)) != NULL) {
        struct wso_mail *mail = WSO_ITEM(link, struct wso_mail, link);
        mail->deliver(mail);
    }
}

void loop_close(struct loop *loop)
{
    struct wso_list left;
    struct wso_link *link;
    wso_list_init(&left);
    wso_ward_close(loop->ward);
    wso_mailbox_close(loop->mailbox, &left);
    while ((link = wso_list_pop_front(&left)) != NULL) {
        struct wso_mail *mail = WSO_ITEM(link, struct wso_mail, link);
        mail->drop(mail);
    }
    wso_mailbox_release(loop->mailbox);
    wso_ward_release(loop->ward);
}

void guarded_open(struct guarded *guarded, struct loop *loop,
                  const struct wso_wire_settings *settings, uint64_t max_stall)
{
    *guarded = (struct guarded){.loop = loop};
    link_open(&guarded->link, WSO_SERVER);
    CHECK_EQ(wso_wire_start(guarded->link.wire, settings == NULL ? &link_settings : settings,
                            wso_guard_now(loop->guard)), WSO_OK);
    CHECK_EQ(wso_ward_add(loop->ward, guarded->link.wire, guarded->link.fd, max_stall, guarded,
                          &guarded->post), WSO_OK);
}

void guarded_remove(struct guarded *guarded)
{
    struct wso_post *post = guarded->post;
    guarded->post = NULL;
    wso_ward_remove(post);
}

void guarded_close(struct guarded *guarded)
{
    if (guarded->post != NULL) {
        guarded_remove(guarded);
    }
    link_close(&guarded->link);
}

bool guarded_peer_got(struct guarded *guarded, struct frame *frame)
{
    while (peer_read(&guarded->link, LINK_BYTES) > 0) {
    }
    return peer_next(&guarded->link, frame);
}

void guarded_wait_for_pong(struct guarded *guarded, const char *payload)
{
    struct frame frame;
    WAIT_UNTIL(guarded_peer_got(guarded, &frame));
    CHECK_EQ(frame.first, PONG);
    CHECK(frame.size == strlen(payload) && memcmp(frame.payload, payload, frame.size) == 0);
}

static uint64_t round_of(struct loop *loop)
{
    wso_lock_acquire(&loop->guard->lock);
    uint64_t round = loop->ward->round;
    wso_lock_release(&loop->guard->lock);
    return round;
}

void wait_for_rounds(struct loop *loop, uint64_t count)
{
    uint64_t begun = round_of(loop);
    /* The one that is in progress may have been past the point. */
    WAIT_UNTIL(round_of(loop) > begun + count);
}
