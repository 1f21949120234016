/* An intrusive, circular, doubly linked list.
 *
 * A link is a member of the thing that is listed, so that nothing is allocated and an item can be
 * unlinked in constant time from the middle. Not thread-safe: the lock that guards a list is named
 * where the list is declared. A link that is on no list is zeroed.
 */
#ifndef WSO_LIST_H
#define WSO_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct wso_link {
    struct wso_link *prev;
    struct wso_link *next;
};

struct wso_list {
    struct wso_link head;
};

/* The item that holds this link. */
#define WSO_ITEM(link, type, member) ((type *)(void *)((char *)(link) - offsetof(type, member)))

static inline void wso_list_init(struct wso_list *list)
{
    list->head.prev = list->head.next = &list->head;
}

static inline bool wso_list_empty(const struct wso_list *list)
{
    return list->head.next == &list->head;
}

static inline bool wso_link_listed(const struct wso_link *link)
{
    return link->next != NULL;
}

static inline void wso_list_insert_before(struct wso_link *position, struct wso_link *link)
{
    link->next = position;
    link->prev = position->prev;
    position->prev->next = link;
    position->prev = link;
}

static inline void wso_list_push_back(struct wso_list *list, struct wso_link *link)
{
    wso_list_insert_before(&list->head, link);
}

static inline void wso_list_push_front(struct wso_list *list, struct wso_link *link)
{
    wso_list_insert_before(list->head.next, link);
}

static inline void wso_link_unlink(struct wso_link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->prev = link->next = NULL;
}

/* The first link, which stays listed; NULL when the list is empty. */
static inline struct wso_link *wso_list_first(const struct wso_list *list)
{
    return wso_list_empty(list) ? NULL : list->head.next;
}

/* The first link, taken off the list; NULL when the list is empty. */
static inline struct wso_link *wso_list_pop_front(struct wso_list *list)
{
    struct wso_link *link = wso_list_first(list);
    if (link != NULL) {
        wso_link_unlink(link);
    }
    return link;
}

/* Move all of `from` to the end of `to`, in order; `from` is empty afterwards. */
static inline void wso_list_take_all(struct wso_list *to, struct wso_list *from)
{
    if (wso_list_empty(from)) {
        return;
    }
    from->head.next->prev = to->head.prev;
    to->head.prev->next = from->head.next;
    from->head.prev->next = &to->head;
    to->head.prev = from->head.prev;
    wso_list_init(from);
}

#endif
