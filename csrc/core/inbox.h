/* The inbox of a wire: bytes that were read and that the loop has not taken yet, in order.
 *
 * A queue over pages (pages.h). It never asks for memory itself: whoever fills it brings pages, and
 * gets back what is left over; so no lock is taken under the wire's, which guards the inbox.
 */
#ifndef WSO_INBOX_H
#define WSO_INBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pages.h"

struct wso_inbox {
    struct wso_page *first;
    struct wso_page *last;
    size_t size;  /* bytes in it */
    size_t pages; /* pages in it */
    bool floor;   /* one of them is the floor page */
};

void wso_inbox_init(struct wso_inbox *inbox);

/* The bytes that fit into the last page and the `spare` ones. */
size_t wso_inbox_room(const struct wso_inbox *inbox, const struct wso_page *spare);

/* Append; at most the room. Pages are taken off *spare as needed. */
void wso_inbox_put(struct wso_inbox *inbox, const uint8_t *bytes, size_t size,
                   struct wso_page **spare);

/* Move up to `size` bytes out; returns how many. Emptied pages are put on *empty. */
size_t wso_inbox_take(struct wso_inbox *inbox, uint8_t *bytes, size_t size,
                      struct wso_page **empty);

/* Forget all; the pages are put on *empty. */
void wso_inbox_clear(struct wso_inbox *inbox, struct wso_page **empty);

#endif
