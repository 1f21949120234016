/* Monotonic time in nanoseconds, and deadlines on that clock.
 *
 * CLOCK_MONOTONIC stands still while the machine is suspended, so a suspended machine does not make
 * jobs late.
 */
#ifndef WSO_CLOCK_H
#define WSO_CLOCK_H

#include <stdint.h>
#include <time.h>

#define WSO_NS_PER_S UINT64_C(1000000000)

/* A deadline that never comes. */
#define WSO_NEVER UINT64_MAX

static inline uint64_t wso_now(void)
{
    struct timespec now;
    /* It cannot fail: the clock exists on every Linux and the pointer is good. */
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * WSO_NS_PER_S + (uint64_t)now.tv_nsec;
}

/* The moment `ns` after another; WSO_NEVER when the sum does not fit. */
static inline uint64_t wso_time_after(uint64_t moment, uint64_t ns)
{
    return ns > WSO_NEVER - moment ? WSO_NEVER : moment + ns;
}

/* The moment `ns` from now. */
static inline uint64_t wso_deadline_after(uint64_t ns)
{
    return wso_time_after(wso_now(), ns);
}

/* As the absolute time that pthread_cond_timedwait and sem_clockwait take. */
static inline struct timespec wso_deadline_timespec(uint64_t deadline)
{
    /* Some kernels refuse seconds near the end of time_t: a century is as good as never. */
    const uint64_t century = UINT64_C(100) * 366 * 24 * 3600;
    uint64_t seconds = deadline / WSO_NS_PER_S;
    struct timespec at = {
        .tv_sec = (time_t)(seconds < century ? seconds : century),
        .tv_nsec = (long)(deadline % WSO_NS_PER_S),
    };
    return at;
}

#endif
