/* The guard: one thread that serves the wires of event loops that are late.
 *
 * A ward is one event loop with its wires. While it has wires, the guard's thread rings the loop every
 * WSO_PULSE ns by a mail of the ward (pulse.h); as long as a ring is unanswered for more than
 * WSO_LATE ns, the loop counts as late and the thread steps its wires: answers Pings, reads ahead.
 * Keepalive Pings are sent by the thread whether the loop is late or not. With no wire it sleeps.
 *
 * Lease: a wire is served for `max_stall` after its loop's last turn; then it falls silent.
 *
 * Ownership: a guard has a share of each ward that is not closed, a ward one of its guard and of each of
 * its wires. Locks: the guard's guards the list of wards, a ward's its lists of posts, a wire's its own;
 * never two at once. What the thread works on outside a ward's lock is marked busy; who removes a post
 * waits until it is not.
 */
#ifndef WSO_GUARD_H
#define WSO_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "mailbox.h"
#include "wire.h"

#define WSO_PULSE (25 * UINT64_C(1000000)) /* ns between two rings of a loop that answers */
#define WSO_LATE (24 * UINT64_C(1000000))  /* ns after which a ring that is not answered is late: seen
                                            * when the next one is due, without a wake-up of its own */

struct wso_guard;
struct wso_ward;

/* A guard with its thread. WSO_ENOMEM, WSO_EDESCRIPTOR, WSO_ETHREAD. */
int wso_guard_new(struct wso_guard **guard);

/* End and join the thread; it serves no wire afterwards. Not with the GIL. All wards are silent then;
 * they and their wires may still be used and must be closed and released as ever. */
void wso_guard_stop(struct wso_guard *guard);

/* Give the guard back; the wards keep what they need of it. Stopped before. */
void wso_guard_release(struct wso_guard *guard);

/* The guard's clock: nanoseconds that do not pass while the guard's thread itself cannot run. */
uint64_t wso_guard_now(struct wso_guard *guard);

/* A ward for the loop of this mailbox. WSO_ENOMEM, WSO_EDESCRIPTOR.
 * `deliver` is called on the loop's thread when it takes its mail: see wso_ward_next. */
int wso_ward_new(struct wso_guard *guard, struct wso_mailbox *mailbox,
                 void (*deliver)(void *owner), void *owner, struct wso_ward **ward);

/* The loop is gone: its wires fall silent at once, and `deliver` is not called any more. Twice is
 * fine. The loop's thread. */
void wso_ward_close(struct wso_ward *ward);

/* The owner's share; closed before. */
void wso_ward_release(struct wso_ward *ward);

/* The place of one wire in its ward. */
struct wso_post;

/* Guard this wire, which was started, from now on. `fd` is its descriptor, `max_stall` its lease in ns,
 * `owner` what wso_ward_next answers. WSO_ENOMEM, WSO_ECLOSED, WSO_EDESCRIPTOR: it is not guarded. */
int wso_ward_add(struct wso_ward *ward, struct wso_wire *wire, int fd, uint64_t max_stall,
                 void *owner, struct wso_post **post);

/* The wire's ping settings have changed: look at it soon. */
void wso_ward_look(struct wso_post *post);

/* Stop guarding; when it returns, the guard's thread is not at the wire and will not be, and the post is
 * gone. The first waits for at most one batch of steps: not with the GIL. The second answers WSO_EBUSY
 * instead of waiting, having done nothing. The loop's thread, before the wire is retired. */
void wso_ward_remove(struct wso_post *post);
int wso_ward_remove_try(struct wso_post *post);

/* ---- The loop's thread, within `deliver`. ---- */

enum wso_word {
    WSO_WORD_READY = 1, /* something to take from the wire: bytes, end or error */
    WSO_WORD_DEAD = 2,  /* the peer seems dead: wso_wire_confirm_dead */
    WSO_WORD_RESCUE = 4, /* the guard served it in a stall that is over: see the rescue */
};

struct wso_rescue {
    uint64_t duration; /* ns that the loop was late */
    uint64_t answered; /* Pings */
    uint64_t pinged;   /* Pings of ours */
    uint64_t read;     /* bytes held for the loop */
};

/* The next wire that the ward has a word about: its owner, or NULL. The wire may be removed, and others
 * too, before the next call. */
void *wso_ward_next(struct wso_ward *ward, unsigned *words, struct wso_rescue *rescue);

/* Is the loop late right now? Any thread, no lock. */
bool wso_ward_late(struct wso_ward *ward);

#endif
