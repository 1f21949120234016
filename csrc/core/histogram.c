/* The histogram: see histogram.h. */
#include "histogram.h"

static unsigned bucket_of(uint64_t ns)
{
    if (ns < WSO_HISTOGRAM_SPLIT) {
        return (unsigned)ns;
    }
    unsigned exponent = 63u - (unsigned)__builtin_clzll(ns);
    unsigned octave = exponent - 3; /* 2^4 begins octave 1 */
    if (octave > WSO_HISTOGRAM_OCTAVES) {
        return WSO_HISTOGRAM_BUCKETS - 1;
    }
    unsigned within = (unsigned)(ns >> (exponent - 4)) & (WSO_HISTOGRAM_SPLIT - 1);
    return octave * WSO_HISTOGRAM_SPLIT + within;
}

/* The longest duration that falls into the bucket. */
static uint64_t top_of(unsigned bucket)
{
    unsigned octave = bucket / WSO_HISTOGRAM_SPLIT;
    uint64_t within = bucket % WSO_HISTOGRAM_SPLIT;
    if (octave == 0) {
        return within;
    }
    return ((WSO_HISTOGRAM_SPLIT + within + 1) << (octave - 1)) - 1;
}

void wso_histogram_init(struct wso_histogram *histogram)
{
    atomic_init(&histogram->count, 0);
    atomic_init(&histogram->sum, 0);
    atomic_init(&histogram->max, 0);
    for (unsigned i = 0; i < WSO_HISTOGRAM_BUCKETS; i++) {
        atomic_init(&histogram->buckets[i], 0);
    }
}

void wso_histogram_record(struct wso_histogram *histogram, uint64_t ns)
{
    atomic_fetch_add_explicit(&histogram->buckets[bucket_of(ns)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum, ns, memory_order_relaxed);
    uint_fast64_t max = atomic_load_explicit(&histogram->max, memory_order_relaxed);
    while (ns > max && !atomic_compare_exchange_weak_explicit(
                           &histogram->max, &max, ns, memory_order_relaxed, memory_order_relaxed)) {
    }
    atomic_fetch_add_explicit(&histogram->count, 1, memory_order_relaxed);
}

uint64_t wso_histogram_quantile(const struct wso_histogram *histogram, double quantile)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < WSO_HISTOGRAM_BUCKETS; i++) {
        total += atomic_load_explicit(&histogram->buckets[i], memory_order_relaxed);
    }
    if (total == 0) {
        return 0;
    }
    uint64_t max = atomic_load_explicit(&histogram->max, memory_order_relaxed);
    double wanted = quantile * (double)total;
    uint64_t seen = 0;
    for (unsigned i = 0; i < WSO_HISTOGRAM_BUCKETS - 1; i++) {
        seen += atomic_load_explicit(&histogram->buckets[i], memory_order_relaxed);
        if (seen > 0 && (double)seen >= wanted) {
            uint64_t top = top_of(i);
            return top < max ? top : max;
        }
    }
    return max;
}
