/* histogram.h: quantiles are never too low and at most 1/16 too high. */
#include <pthread.h>

#include "check.h"
#include "histogram.h"

static struct wso_histogram histogram;

static uint64_t quantile_of_one(uint64_t ns, double quantile)
{
    wso_histogram_init(&histogram);
    /* One longer record, so that not the maximum but the bucket bounds the answer. */
    wso_histogram_record(&histogram, ns);
    wso_histogram_record(&histogram, UINT64_MAX / 4);
    return wso_histogram_quantile(&histogram, quantile);
}

TEST(nothing_recorded_is_zero)
{
    wso_histogram_init(&histogram);
    CHECK_EQ(wso_histogram_quantile(&histogram, 0.5), 0);
    CHECK_EQ(atomic_load(&histogram.max), 0);
}

TEST(short_durations_are_exact)
{
    for (uint64_t ns = 0; ns < 2 * WSO_HISTOGRAM_SPLIT; ns++) {
        CHECK_EQ(quantile_of_one(ns, 0.5), ns);
    }
}

TEST(each_power_of_two_is_right_at_its_edges)
{
    for (unsigned exponent = 5; exponent < 40; exponent++) {
        uint64_t power = UINT64_C(1) << exponent;
        uint64_t edges[] = {power - 1, power, power + 1, power + power / 2, power + power / 16 - 1};
        for (unsigned i = 0; i < sizeof edges / sizeof *edges; i++) {
            uint64_t ns = edges[i];
            uint64_t read = quantile_of_one(ns, 0.5);
            CHECK(read >= ns);
            CHECK(read - ns <= ns / 16);
        }
    }
}

TEST(too_long_durations_count_in_the_last_bucket)
{
    uint64_t hour = UINT64_C(3600) * 1000000000;
    wso_histogram_init(&histogram);
    wso_histogram_record(&histogram, hour);
    wso_histogram_record(&histogram, UINT64_C(1) << 40);
    CHECK_EQ(atomic_load(&histogram.buckets[WSO_HISTOGRAM_BUCKETS - 1]), 2);
    CHECK_EQ(atomic_load(&histogram.max), hour);
    CHECK_EQ(wso_histogram_quantile(&histogram, 0.5), hour);
    CHECK_EQ(wso_histogram_quantile(&histogram, 1), hour);
}

TEST(the_longest_that_has_a_bucket)
{
    wso_histogram_init(&histogram);
    wso_histogram_record(&histogram, (UINT64_C(1) << 40) - 1);
    CHECK_EQ(atomic_load(&histogram.buckets[WSO_HISTOGRAM_BUCKETS - 1]), 1);
    CHECK_EQ(wso_histogram_quantile(&histogram, 0.5), (INT64_C(1) << 40) - 1);
}

TEST(quantiles_of_a_hundred)
{
    wso_histogram_init(&histogram);
    for (uint64_t ns = 1; ns <= 100; ns++) {
        wso_histogram_record(&histogram, ns * 1000);
    }
    CHECK_EQ(atomic_load(&histogram.count), 100);
    CHECK_EQ(atomic_load(&histogram.sum), 5050 * 1000);
    CHECK_EQ(atomic_load(&histogram.max), 100 * 1000);
    const double shares[] = {0.01, 0.1, 0.5, 0.9, 0.99};
    for (unsigned i = 0; i < sizeof shares / sizeof *shares; i++) {
        double exact = shares[i] * 100 * 1000;
        uint64_t read = wso_histogram_quantile(&histogram, shares[i]);
        CHECK((double)read >= exact && (double)read <= exact * 17 / 16);
    }
    CHECK_EQ(wso_histogram_quantile(&histogram, 1), 100 * 1000);
    /* The share of none is the shortest there is. */
    CHECK(wso_histogram_quantile(&histogram, 0) >= 1000);
    CHECK(wso_histogram_quantile(&histogram, 0) < 1100);
}

TEST(a_quantile_is_never_above_the_maximum)
{
    wso_histogram_init(&histogram);
    wso_histogram_record(&histogram, 1000001);
    CHECK_EQ(wso_histogram_quantile(&histogram, 0.5), 1000001);
}

enum { THREADS = 4, RECORDS = 5000 };

static void *record(void *argument)
{
    uint64_t offset = *(uint64_t *)argument;
    for (uint64_t i = 1; i <= RECORDS; i++) {
        wso_histogram_record(&histogram, i * THREADS + offset);
    }
    return NULL;
}

TEST(many_threads_record_at_once)
{
    wso_histogram_init(&histogram);
    pthread_t threads[THREADS];
    uint64_t offsets[THREADS];
    for (int i = 0; i < THREADS; i++) {
        offsets[i] = (uint64_t)i;
        CHECK_EQ(pthread_create(&threads[i], NULL, record, &offsets[i]), 0);
    }
    (void)wso_histogram_quantile(&histogram, 0.5);
    for (int i = 0; i < THREADS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
    CHECK_EQ(atomic_load(&histogram.count), THREADS * RECORDS);
    CHECK_EQ(atomic_load(&histogram.max), THREADS * RECORDS + THREADS - 1);
    uint64_t in_buckets = 0;
    for (unsigned i = 0; i < WSO_HISTOGRAM_BUCKETS; i++) {
        in_buckets += atomic_load(&histogram.buckets[i]);
    }
    CHECK_EQ(in_buckets, THREADS * RECORDS);
}
