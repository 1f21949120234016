/* The inbox: see inbox.h. No page in it is empty: it is brought in with its first byte and leaves with
 * its last. */
#include "inbox.h"

#include <string.h>

void wso_inbox_init(struct wso_inbox *inbox)
{
    *inbox = (struct wso_inbox){0};
}

size_t wso_inbox_room(const struct wso_inbox *inbox, const struct wso_page *spare)
{
    size_t room = inbox->last == NULL ? 0 : WSO_PAGE_BYTES - inbox->last->end;
    for (; spare != NULL; spare = spare->next) {
        room += WSO_PAGE_BYTES;
    }
    return room;
}

static void append_page(struct wso_inbox *inbox, struct wso_page **spare)
{
    struct wso_page *page = *spare;
    *spare = page->next;
    page->next = NULL;
    page->start = page->end = 0;
    if (inbox->last == NULL) {
        inbox->first = page;
    } else {
        inbox->last->next = page;
    }
    inbox->last = page;
    inbox->pages++;
    inbox->floor = inbox->floor || page->floor;
}

void wso_inbox_put(struct wso_inbox *inbox, const uint8_t *bytes, size_t size,
                   struct wso_page **spare)
{
    while (size > 0) {
        if (inbox->last == NULL || inbox->last->end == WSO_PAGE_BYTES) {
            append_page(inbox, spare);
        }
        struct wso_page *page = inbox->last;
        size_t room = WSO_PAGE_BYTES - page->end;
        size_t part = size < room ? size : room;
        memcpy(page->bytes + page->end, bytes, part);
        page->end = (uint16_t)(page->end + part);
        inbox->size += part;
        bytes += part;
        size -= part;
    }
}

/* Take the first page off; it is put on *empty. */
static void drop_page(struct wso_inbox *inbox, struct wso_page **empty)
{
    struct wso_page *page = inbox->first;
    inbox->first = page->next;
    if (inbox->first == NULL) {
        inbox->last = NULL;
    }
    inbox->pages--;
    inbox->floor = inbox->floor && !page->floor;
    page->next = *empty;
    *empty = page;
}

size_t wso_inbox_take(struct wso_inbox *inbox, uint8_t *bytes, size_t size,
                      struct wso_page **empty)
{
    size_t taken = 0;
    while (taken < size && inbox->first != NULL) {
        struct wso_page *page = inbox->first;
        size_t there = (size_t)(page->end - page->start);
        size_t part = there < size - taken ? there : size - taken;
        memcpy(bytes + taken, page->bytes + page->start, part);
        page->start = (uint16_t)(page->start + part);
        taken += part;
        if (page->start == page->end) {
            drop_page(inbox, empty);
        }
    }
    inbox->size -= taken;
    return taken;
}

void wso_inbox_clear(struct wso_inbox *inbox, struct wso_page **empty)
{
    while (inbox->first != NULL) {
        drop_page(inbox, empty);
    }
    inbox->size = 0;
}
