/* What the tests of the guard share: event loops that take their mail when the test says so.
 *
 * The test's own thread is the loop: while it does anything else, the loop is late. So a stall begins
 * when the test stops taking mail and ends when it takes it again, and nothing else needs to be timed.
 * (On a slow machine a loop may be late against the test's will: no test may rely on its being in time.)
 */
#ifndef LOOPS_H
#define LOOPS_H

#include "check.h"
#include "guard_inner.h"
#include "sockets.h"

struct loop {
    struct wso_mailbox *mailbox;
    struct wso_guard *guard;
    struct wso_ward *ward;
    int delivered; /* calls of `deliver` */
};

/* A guarded wire, and what the loop was told about it. */
struct guarded {
    struct link link;
    struct loop *loop;
    struct wso_post *post; /* NULL: not guarded any more */
    int ready, dead, rescues;
    struct wso_rescue rescue; /* the last */
    void (*on_word)(struct guarded *guarded); /* called on the loop's thread; may be NULL */
};

struct wso_guard *new_guard(void);

/* Stop it and give it back. */
void end_guard(struct wso_guard *guard);

void loop_open(struct loop *loop, struct wso_guard *guard);

/* Take the mail, once. */
void loop_turn(struct loop *loop);

/* The loop lives until the condition holds. */
#define LIVE_UNTIL(loop, condition)                                                                \
    do {                                                                                           \
        while (!(condition)) {                                                                     \
            loop_turn(loop);                                                                       \
            check_nap();                                                                           \
        }                                                                                          \
    } while (0)

/* Close the ward and the mailbox. */
void loop_close(struct loop *loop);

/* A server's wire, started and guarded; NULL: link_settings. */
void guarded_open(struct guarded *guarded, struct loop *loop,
                  const struct wso_wire_settings *settings, uint64_t max_stall);

/* No longer guarded; the wire is still open. */
void guarded_remove(struct guarded *guarded);

/* Remove it if it is guarded, and close it. */
void guarded_close(struct guarded *guarded);

/* The peer reads all that there is; true if a whole frame was there. */
bool guarded_peer_got(struct guarded *guarded, struct frame *frame);

/* Wait until this Pong comes to the peer, whoever sends it. */
void guarded_wait_for_pong(struct guarded *guarded, const char *payload);

/* Wait until the guard's thread has begun this many rounds of the ward from now on, which it does as
 * long as the ward has a wire. */
void wait_for_rounds(struct loop *loop, uint64_t count);

#endif
