/* A log-linear histogram of durations: lock-free to record, cheap to read.
 *
 * Each power of two is split into 16 equal buckets, so a value read back is at most 1/16 (6.25 %)
 * too high and never too low. Durations are nanoseconds up to 2^40 (18 minutes); longer ones count
 * in the last bucket, and `max` keeps them exactly. Readers see each counter at some moment during
 * their call, not all at one moment.
 */
#ifndef WSO_HISTOGRAM_H
#define WSO_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

#define WSO_HISTOGRAM_SPLIT 16
#define WSO_HISTOGRAM_OCTAVES 36 /* 2^4 to 2^40 */
#define WSO_HISTOGRAM_BUCKETS ((WSO_HISTOGRAM_OCTAVES + 1) * WSO_HISTOGRAM_SPLIT)

struct wso_histogram {
    atomic_uint_fast64_t count;
    atomic_uint_fast64_t sum; /* nanoseconds */
    atomic_uint_fast64_t max; /* nanoseconds */
    atomic_uint_fast64_t buckets[WSO_HISTOGRAM_BUCKETS];
};

void wso_histogram_init(struct wso_histogram *histogram);

/* Any thread, at any time. */
void wso_histogram_record(struct wso_histogram *histogram, uint64_t ns);

/* The smallest duration, in ns, such that the share `quantile` (0 to 1) of all records is no
 * longer, rounded up to its bucket and never above `max`; 0 when nothing was recorded. */
uint64_t wso_histogram_quantile(const struct wso_histogram *histogram, double quantile);

#endif
