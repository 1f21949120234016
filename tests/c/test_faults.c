/* Every resource that the core asks the system for is refused once, in every place.
 *
 * Each scenario runs with the first call of a kind failing, then the second, until no call is left
 * to fail; and again with all calls from the nth on failing. Afterwards there is no memory, no
 * descriptor and no thread more than before, and each accepted job had exactly one done.
 */
#include <errno.h>

#include "check.h"
#include "faults.h"
#include "kit.h"
#include "inbox.h"
#include "mailbox.h"
#include "outbox.h"
#include "thread.h"

static const int expected[FAULT_KINDS] = {
    [FAULT_ALLOCATION] = WSO_ENOMEM,       [FAULT_THREAD] = WSO_ETHREAD,
    [FAULT_DESCRIPTOR] = WSO_EDESCRIPTOR, [FAULT_SEMAPHORE] = WSO_ENOMEM,
    [FAULT_MUTEX] = WSO_ENOMEM,           [FAULT_CONDITION] = WSO_ENOMEM,
    [FAULT_ATTRIBUTES] = WSO_ETHREAD,      [FAULT_MAPPING] = WSO_ENOMEM,
    [FAULT_UNMAPPING] = WSO_OK,
    [FAULT_POLL] = WSO_EDESCRIPTOR,
};

static int kinds_that_failed;

/* The scenario returns the first error it met, or WSO_OK. */
static void run_with_faults(int (*scenario)(void))
{
    kinds_that_failed = 0;
    for (int kind = 0; kind < FAULT_KINDS; kind++) {
        for (int lasting = 0; lasting <= 1; lasting++) {
            int failures = 1;
            for (int nth = 1; failures > 0; nth++) {
                long allocated = fault_allocated();
                long mapped = fault_mapped();
                unsigned descriptors = check_entries("fd");
                fault_arm((enum fault)kind, nth, lasting == 1);
                int status = scenario();
                failures = fault_disarm();
                CHECK(status == WSO_OK || (status == expected[kind] && failures > 0));
                CHECK_EQ(fault_allocated(), allocated);
                /* What the system refuses to unmap stays. */
                CHECK(fault_mapped() == mapped || kind == FAULT_UNMAPPING);
                CHECK_EQ(check_entries("fd"), descriptors);
                kinds_that_failed |= (status != WSO_OK) << kind;
            }
        }
    }
}

#define FAILED(kind) ((kinds_that_failed & 1 << (kind)) != 0)

static int open_bell(void)
{
    struct wso_bell bell;
    errno = 0;
    int status = wso_bell_open(&bell);
    if (status == WSO_OK) {
        wso_bell_ring(&bell);
        wso_bell_destroy(&bell);
    }
    CHECK(status != WSO_EDESCRIPTOR || errno == EMFILE);
    return status;
}

TEST(a_bell_that_cannot_be_opened_leaves_nothing)
{
    run_with_faults(open_bell);
    CHECK(FAILED(FAULT_MUTEX) && FAILED(FAULT_DESCRIPTOR));
}

static int open_mailbox(void)
{
    struct wso_mailbox *mailbox = (void *)&mailbox;
    int status = wso_mailbox_new(&mailbox);
    CHECK_EQ(mailbox == NULL, status != WSO_OK);
    if (mailbox != NULL) {
        struct wso_list left;
        wso_list_init(&left);
        wso_mailbox_close(mailbox, &left);
        wso_mailbox_release(mailbox);
    }
    return status;
}

TEST(a_mailbox_that_cannot_be_made_leaves_nothing)
{
    run_with_faults(open_mailbox);
    CHECK(FAILED(FAULT_ALLOCATION) && FAILED(FAULT_MUTEX) && FAILED(FAULT_DESCRIPTOR));
}

/* Reading ahead into three slabs, as much as there is memory for. */
static int read_ahead(void)
{
    enum { PAGES = 600 };
    static const uint8_t bytes[PAGES * WSO_PAGE_BYTES];
    struct wso_pages *pages = (void *)&pages;
    int status = wso_pages_new(UINT64_C(4) << 20, &pages);
    CHECK_EQ(pages == NULL, status != WSO_OK);
    if (status != WSO_OK) {
        return status;
    }
    struct wso_inbox inbox;
    struct wso_page *empty = NULL;
    wso_inbox_init(&inbox);
    struct wso_page *floor = wso_pages_take_floor(pages);
    struct wso_page *spare = wso_pages_take(pages, PAGES);
    size_t room = wso_inbox_room(&inbox, spare);
    status = floor != NULL && room == sizeof bytes ? WSO_OK : WSO_ENOMEM;
    wso_inbox_put(&inbox, bytes, room, &spare);
    CHECK(spare == NULL);
    CHECK_EQ(wso_pages_lent(pages), (inbox.pages + (floor != NULL)) * WSO_PAGE_SIZE);
    wso_inbox_clear(&inbox, &empty);
    wso_pages_give(pages, empty);
    wso_pages_give(pages, floor);
    CHECK_EQ(wso_pages_lent(pages), 0);
    wso_pages_release(pages);
    return status;
}

TEST(pages_that_cannot_be_had_leave_nothing)
{
    run_with_faults(read_ahead);
    CHECK(FAILED(FAULT_ALLOCATION) && FAILED(FAULT_MUTEX) && FAILED(FAULT_MAPPING));
}

TEST(pages_are_lent_again_when_the_system_has_more)
{
    struct wso_pages *pages;
    CHECK_EQ(wso_pages_new(UINT64_C(4) << 20, &pages), WSO_OK);
    fault_arm(FAULT_MAPPING, 1, true);
    CHECK(wso_pages_take(pages, 1) == NULL);
    CHECK(wso_pages_take_floor(pages) == NULL);
    CHECK_EQ(wso_pages_lent(pages), 0);
    CHECK_EQ(fault_disarm(), 2);
    struct wso_page *page = wso_pages_take(pages, 1);
    CHECK(page != NULL);
    wso_pages_give(pages, page);
    wso_pages_release(pages);
}

TEST(a_slab_that_cannot_be_unmapped_is_used_again)
{
    struct wso_pages *pages;
    long mapped = fault_mapped();
    CHECK_EQ(wso_pages_new(UINT64_C(4) << 20, &pages), WSO_OK);
    for (int i = 0; i < 3; i++) {
        /* The first time one slab is kept and two stay against our will; then all three serve. */
        struct wso_page *three = wso_pages_take(pages, 600);
        CHECK_EQ(fault_mapped(), mapped + 3);
        fault_arm(FAULT_UNMAPPING, 1, true);
        wso_pages_give(pages, three);
        CHECK_EQ(fault_disarm(), 2);
        CHECK_EQ(fault_mapped(), mapped + 3);
    }
    wso_pages_release(pages);
    CHECK_EQ(fault_mapped(), mapped);
}

/* Bytes for two blocks; a write that fails has appended nothing. */
static int keep_unsent(void)
{
    static const uint8_t bytes[10000];
    struct wso_outbox outbox;
    struct iovec pieces[3];
    wso_outbox_init(&outbox);
    int first = WSO_OK;
    size_t size = 0;
    for (int i = 0; i < 3; i++) {
        int count = wso_outbox_peek(&outbox, pieces, 3);
        size_t last = count == 0 ? 0 : pieces[count - 1].iov_len;
        /* The second also fills what is left of the first one's block. */
        size_t more = i == 0 ? 4000 : sizeof bytes;
        int status = wso_outbox_put(&outbox, bytes, more);
        if (status == WSO_OK) {
            size += more;
        } else {
            CHECK_EQ(wso_outbox_peek(&outbox, pieces, 3), count);
            CHECK(count == 0 || pieces[count - 1].iov_len == last);
            first = status;
        }
        CHECK_EQ(outbox.size, size);
    }
    wso_outbox_clear(&outbox);
    return first;
}

TEST(a_write_that_cannot_be_kept_appends_nothing)
{
    run_with_faults(keep_unsent);
    CHECK(FAILED(FAULT_ALLOCATION));
}

static int init_condition(void)
{
    struct wso_cond cond;
    int status = wso_cond_init(&cond);
    if (status == WSO_OK) {
        wso_cond_destroy(&cond);
    }
    /* The table above names what threads say; a condition says WSO_ENOMEM. */
    return status == WSO_ENOMEM ? WSO_ETHREAD : status;
}

TEST(a_condition_that_cannot_be_made_says_so)
{
    for (int nth = 1; nth <= 2; nth++) {
        fault_arm(FAULT_ATTRIBUTES, nth, false);
        CHECK_EQ(init_condition(), WSO_ETHREAD);
        CHECK_EQ(fault_disarm(), 1);
    }
    fault_arm(FAULT_CONDITION, 1, false);
    CHECK_EQ(init_condition(), WSO_ETHREAD);
    CHECK_EQ(fault_disarm(), 1);
    CHECK_EQ(init_condition(), WSO_OK);
}

static void *nothing(void *argument)
{
    return argument;
}

static int start_thread(void)
{
    struct wso_thread thread;
    struct wso_thread_options options = {
        .name = "fault", .stack_size = 1 << 20, .block_signals = true};
    int status = wso_thread_start(&thread, &options, nothing, NULL);
    if (status == WSO_OK) {
        wso_thread_join(&thread);
    }
    return status;
}

TEST(a_thread_that_cannot_be_made_leaves_nothing)
{
    run_with_faults(start_thread);
    CHECK(FAILED(FAULT_THREAD) && FAILED(FAULT_ATTRIBUTES));
}

/* A pool's whole life: jobs of all kinds, one after the other and at once, and its end. */

enum { TASKS = 6 };

static struct task tasks[TASKS];
static int statuses[TASKS];

static void submit_all(struct wso_pool *pool)
{
    statuses[0] = kit_submit_turn(pool, &tasks[0]);
    WAIT_UNTIL(atomic_load(&tasks[0].dones) == (statuses[0] == WSO_OK));
    for (int i = 1; i < TASKS - 1; i++) {
        statuses[i] = kit_submit_turn(pool, &tasks[i]);
    }
    statuses[TASKS - 1] = kit_submit_blocking(pool, &tasks[TASKS - 1]);
}

static int check_all(void)
{
    int first = WSO_OK;
    for (int i = 0; i < TASKS; i++) {
        bool accepted = statuses[i] == WSO_OK;
        WAIT_UNTIL(atomic_load(&tasks[i].dones) == accepted);
        if (first == WSO_OK) {
            first = accepted ? atomic_load(&tasks[i].status) : statuses[i];
        }
    }
    return first;
}

static int live(void)
{
    const struct wso_pool_config config = {
        .max_threads = 2,
        .max_queue = 1,
        .when_full = WSO_WHEN_FULL_WAIT,
        .keep_alive = WSO_NEVER,
        .hooks = &kit_hooks,
    };
    struct wso_pool *pool = (void *)&pool;
    int status = wso_pool_new(&config, &pool);
    CHECK_EQ(pool == NULL, status != WSO_OK);
    if (status != WSO_OK) {
        return status;
    }
    wso_pool_set_stack_size(pool, 1 << 20);
    for (int i = 0; i < TASKS; i++) {
        task_init(&tasks[i], NULL);
    }
    submit_all(pool);
    int first = check_all();
    wso_pool_close(pool, WSO_ECLOSED);
    int waited = wso_pool_wait(pool);
    if (waited != WSO_OK) {
        first = first == WSO_OK ? waited : first;
        (void)fault_disarm();
        CHECK_EQ(wso_pool_wait(pool), WSO_OK);
    }
    kit_check_finished(pool);
    return first;
}

TEST(a_pool_that_meets_a_failure_loses_no_job)
{
    run_with_faults(live);
    CHECK(FAILED(FAULT_ALLOCATION) && FAILED(FAULT_THREAD) && FAILED(FAULT_SEMAPHORE));
    CHECK(FAILED(FAULT_MUTEX) && FAILED(FAULT_ATTRIBUTES));
}

/* The end of a process, with a job that is never waited for in the only thread. */
static int leave(void)
{
    atomic_bool hold = false;
    struct wso_pool *pool;
    struct wso_pool_config config = {.max_threads = 1, .keep_alive = WSO_NEVER, .hooks = &kit_hooks};
    int status = wso_pool_new(&config, &pool);
    if (status != WSO_OK) {
        return status;
    }
    task_init(&tasks[0], &hold);
    status = kit_submit(pool, &tasks[0]);
    if (status == WSO_OK) {
        WAIT_UNTIL(atomic_load(&tasks[0].started) == 1);
        task_init(&tasks[1], NULL);
        tasks[1].job.kept = true;
        CHECK_EQ(kit_submit(pool, &tasks[1]), WSO_OK);
        wso_pool_leave(pool, false);
        WAIT_UNTIL(atomic_load(&tasks[1].dones) == 1);
        status = atomic_load(&tasks[1].status);
        atomic_store(&hold, true);
        WAIT_UNTIL(kit_stats(pool).threads == 0);
        CHECK_EQ(atomic_load(&tasks[0].dones), 1);
    }
    wso_pool_close(pool, WSO_ECLOSED);
    wso_pool_release(pool);
    return status;
}

TEST(a_process_that_ends_meets_a_failure_and_ends)
{
    run_with_faults(leave);
    CHECK(FAILED(FAULT_ALLOCATION) && FAILED(FAULT_THREAD) && FAILED(FAULT_SEMAPHORE));
}
