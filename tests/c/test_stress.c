/* The pool under many threads that submit, cancel and abandon at random, and a close in the middle.
 * WSO_TEST_JOBS is the number of jobs in all. */
#include <stdlib.h>

#include "check.h"
#include "kit.h"

enum { SUBMITTERS = 4, MEDDLERS = 2, POLICIES = 3 };

struct stress {
    struct wso_pool *pool;
    struct task *tasks; /* each submitter has its share of them */
    int *accepted;      /* of each task: the status of its submit plus one; 0 before */
    unsigned share, all;
    atomic_uint submitted;
    atomic_bool stop;
};

static struct stress stress;

/* A small generator of random numbers, one per thread. */
static unsigned next_random(unsigned *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static int submit_one(unsigned *random, struct task *task)
{
    unsigned choice = next_random(random) % 16;
    if (choice == 0) {
        return wso_pool_submit(stress.pool, &task->job, WSO_ADMIT_ALWAYS, &task->turn);
    }
    if (choice == 1) {
        return kit_submit_blocking(stress.pool, task);
    }
    return kit_submit_turn(stress.pool, task);
}

static void *submit_share(void *argument)
{
    unsigned first = *(unsigned *)argument * stress.share;
    unsigned random = first + 1;
    for (unsigned i = first; i < first + stress.share; i++) {
        struct task *task = &stress.tasks[i];
        stress.accepted[i] = submit_one(&random, task) + 1;
        atomic_fetch_add(&stress.submitted, 1);
        /* Tasks stay in memory to the end, so that one that is over may be cancelled in vain. */
        unsigned other = first + next_random(&random) % (i - first + 1);
        if (next_random(&random) % 4 == 0) {
            (void)wso_pool_cancel(stress.pool, &stress.tasks[other].job, WSO_ECANCELLED);
        }
    }
    return NULL;
}

/* Abandons what runs, reaps and looks, until told to stop. */
static void *meddle(void *argument)
{
    unsigned random = *(unsigned *)argument + 100;
    while (!atomic_load(&stress.stop)) {
        (void)task_abandon(stress.pool, &stress.tasks[next_random(&random) % stress.all]);
        unsigned choice = next_random(&random) % 64;
        if (choice % 8 == 2) {
            (void)task_reclaim(stress.pool, &stress.tasks[next_random(&random) % stress.all]);
        } else if (choice == 0) {
            wso_pool_reap(stress.pool);
        } else if (choice == 1) {
            wso_pool_cancel_all(stress.pool, WSO_ECANCELLED);
        }
        CHECK(kit_stats(stress.pool).running <= 3);
    }
    return NULL;
}

/* Each accepted job had one done, and the pool's counts are ours. */
static void check_counts(const struct wso_pool_stats *stats)
{
    uint64_t accepted = 0, by_status[16] = {0};
    for (unsigned i = 0; i < stress.all; i++) {
        bool was_accepted = stress.accepted[i] == WSO_OK + 1;
        CHECK_EQ(atomic_load(&stress.tasks[i].dones), was_accepted);
        accepted += was_accepted;
        if (was_accepted) {
            by_status[atomic_load(&stress.tasks[i].status)]++;
        } else {
            CHECK(stress.accepted[i] == WSO_EFULL + 1 || stress.accepted[i] == WSO_ECLOSED + 1);
        }
    }
    CHECK_EQ(stats->accepted, accepted);
    CHECK_EQ(stats->completed, by_status[WSO_OK]);
    CHECK_EQ(stats->dropped, by_status[WSO_EDROPPED]);
    CHECK_EQ(stats->cancelled, by_status[WSO_ECANCELLED]);
    CHECK_EQ(stats->over > 0, stats->over_max > 0);
}

static void make_tasks(void)
{
    stress.share = (unsigned)(check_env("WSO_TEST_JOBS", 200000) / SUBMITTERS / POLICIES);
    stress.all = stress.share * SUBMITTERS;
    stress.tasks = calloc(stress.all, sizeof *stress.tasks);
    stress.accepted = calloc(stress.all, sizeof *stress.accepted);
    CHECK(stress.tasks != NULL && stress.accepted != NULL);
    for (unsigned i = 0; i < stress.all; i++) {
        task_init(&stress.tasks[i], NULL);
        stress.tasks[i].job.droppable = i % 3 != 0;
    }
    atomic_store(&stress.stop, false);
    atomic_store(&stress.submitted, 0);
}

static void run_stress(enum wso_policy when_full)
{
    make_tasks();
    const struct wso_pool_config config = {
        .max_threads = 3,
        .max_queue = 5,
        .when_full = when_full,
        .keep_alive = check_ms(1) / 10,
        .hooks = &kit_hooks,
    };
    CHECK_EQ(wso_pool_new(&config, &stress.pool), WSO_OK);

    pthread_t threads[SUBMITTERS + MEDDLERS];
    unsigned numbers[SUBMITTERS + MEDDLERS];
    for (unsigned i = 0; i < SUBMITTERS + MEDDLERS; i++) {
        numbers[i] = i;
        void *(*main)(void *) = i < SUBMITTERS ? submit_share : meddle;
        CHECK_EQ(pthread_create(&threads[i], NULL, main, &numbers[i]), 0);
    }
    WAIT_UNTIL(atomic_load(&stress.submitted) >= stress.all - stress.all / 10);
    wso_pool_close(stress.pool, WSO_ECLOSED);
    for (unsigned i = 0; i < SUBMITTERS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
    CHECK_EQ(wso_pool_wait(stress.pool), WSO_OK);
    atomic_store(&stress.stop, true);
    for (unsigned i = SUBMITTERS; i < SUBMITTERS + MEDDLERS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
    WAIT_UNTIL(kit_stats(stress.pool).threads == 0);
    struct wso_pool_stats stats = kit_stats(stress.pool);
    check_counts(&stats);
    kit_check_finished(stress.pool);
    free(stress.tasks);
    free(stress.accepted);
}

TEST(exactly_one_done_under_stress_when_full_wait)
{
    run_stress(WSO_WHEN_FULL_WAIT);
}

TEST(exactly_one_done_under_stress_when_full_raise)
{
    run_stress(WSO_WHEN_FULL_RAISE);
}

TEST(exactly_one_done_under_stress_when_full_drop_oldest)
{
    run_stress(WSO_WHEN_FULL_DROP_OLDEST);
}
