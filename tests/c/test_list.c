/* list.h: order, the zeroed link, and taking all. */
#include "check.h"
#include "list.h"

struct item {
    int before;
    struct wso_link link;
    int number;
};

static struct item items[6];

static void push(struct wso_list *list, int from, int to)
{
    for (int i = from; i <= to; i++) {
        items[i] = (struct item){.number = i};
        wso_list_push_back(list, &items[i].link);
    }
}

/* The list holds exactly these numbers, read forwards and backwards; `expected` as digits. */
static void check_numbers(const struct wso_list *list, const char *expected)
{
    const struct wso_link *link = list->head.next;
    int count = 0;
    for (; expected[count] != '\0'; count++, link = link->next) {
        CHECK(link != &list->head);
        CHECK_EQ(WSO_ITEM(link, struct item, link)->number, expected[count] - '0');
        CHECK(link->prev->next == link && link->next->prev == link);
    }
    CHECK(link == &list->head);
    CHECK_EQ(wso_list_empty(list), count == 0);
}

TEST(an_empty_list_has_no_first)
{
    struct wso_list list;
    wso_list_init(&list);
    CHECK(wso_list_first(&list) == NULL);
    CHECK(wso_list_pop_front(&list) == NULL);
    check_numbers(&list, "");
}

TEST(items_leave_in_the_order_in_which_they_came)
{
    struct wso_list list;
    wso_list_init(&list);
    push(&list, 1, 3);
    check_numbers(&list, "123");
    for (int i = 1; i <= 3; i++) {
        CHECK(wso_list_first(&list) == &items[i].link);
        CHECK(wso_list_pop_front(&list) == &items[i].link);
        CHECK(!wso_link_listed(&items[i].link));
    }
    check_numbers(&list, "");
}

TEST(the_front_is_before_all_others)
{
    struct wso_list list;
    wso_list_init(&list);
    items[5] = (struct item){.number = 5};
    wso_list_push_front(&list, &items[5].link);
    check_numbers(&list, "5");
    wso_link_unlink(&items[5].link);
    push(&list, 1, 2);
    wso_list_push_front(&list, &items[5].link);
    check_numbers(&list, "512");
}

TEST(an_item_goes_before_a_given_one)
{
    struct wso_list list;
    wso_list_init(&list);
    push(&list, 1, 2);
    items[5] = (struct item){.number = 5};
    wso_list_insert_before(&items[2].link, &items[5].link);
    check_numbers(&list, "152");
}

TEST(an_item_leaves_from_the_middle_with_a_zeroed_link)
{
    struct wso_list list;
    wso_list_init(&list);
    push(&list, 1, 3);
    CHECK(wso_link_listed(&items[2].link));
    wso_link_unlink(&items[2].link);
    CHECK(!wso_link_listed(&items[2].link));
    CHECK(items[2].link.prev == NULL && items[2].link.next == NULL);
    check_numbers(&list, "13");
}

TEST(taking_all_appends_in_order_and_empties_the_source)
{
    struct wso_list to, from;
    wso_list_init(&to);
    wso_list_init(&from);
    wso_list_take_all(&to, &from);
    check_numbers(&to, "");
    push(&from, 1, 2);
    wso_list_take_all(&to, &from);
    check_numbers(&to, "12");
    check_numbers(&from, "");
    push(&from, 3, 5);
    wso_list_take_all(&to, &from);
    check_numbers(&to, "12345");
    wso_list_take_all(&to, &from);
    check_numbers(&to, "12345");
    check_numbers(&from, "");
}
