/* The outbox of a wire: copies of the bytes that the kernel did not take yet, in order.
 *
 * Blocks from malloc, one for each write that was not taken whole (small ones share a block). The
 * wire's lock guards it. Its bound is the flow control of the library above.
 */
#ifndef WSO_OUTBOX_H
#define WSO_OUTBOX_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct wso_outbox_block;

struct wso_outbox {
    struct wso_outbox_block *first;
    struct wso_outbox_block *last;
    size_t size; /* bytes in it */
};

void wso_outbox_init(struct wso_outbox *outbox);

/* Append a copy. WSO_ENOMEM: nothing was appended. */
int wso_outbox_put(struct wso_outbox *outbox, const uint8_t *bytes, size_t size);

/* The first bytes that lie together, up to `count` pieces of them; returns the pieces. */
int wso_outbox_peek(const struct wso_outbox *outbox, struct iovec *pieces, int count);

/* Drop the first `size` bytes, which were sent. */
void wso_outbox_drop(struct wso_outbox *outbox, size_t size);

void wso_outbox_clear(struct wso_outbox *outbox);

#endif
