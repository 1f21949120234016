/* clock.h: the clock does not go back, and deadlines do not overflow. */
#include "check.h"
#include "clock.h"

TEST(time_does_not_go_back)
{
    uint64_t last = wso_now();
    CHECK(last > 0);
    for (int i = 0; i < 1000; i++) {
        uint64_t now = wso_now();
        CHECK(now >= last);
        last = now;
    }
}

TEST(time_passes_in_nanoseconds)
{
    struct timespec before, after;
    (void)clock_gettime(CLOCK_MONOTONIC, &before);
    uint64_t now = wso_now();
    (void)clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK(now >= (uint64_t)before.tv_sec * WSO_NS_PER_S + (uint64_t)before.tv_nsec);
    CHECK(now <= (uint64_t)after.tv_sec * WSO_NS_PER_S + (uint64_t)after.tv_nsec);
}

TEST(a_deadline_is_so_far_from_now)
{
    uint64_t before = wso_now();
    uint64_t deadline = wso_deadline_after(WSO_NS_PER_S);
    CHECK(deadline >= before + WSO_NS_PER_S);
    CHECK(deadline <= wso_now() + WSO_NS_PER_S);
}

TEST(a_deadline_too_far_for_the_clock_never_comes)
{
    CHECK(wso_deadline_after(WSO_NEVER) == WSO_NEVER);
    CHECK(wso_deadline_after(WSO_NEVER - 1) == WSO_NEVER);
    CHECK(wso_deadline_after(WSO_NEVER / 2) < WSO_NEVER);
}

TEST(a_deadline_as_a_timespec)
{
    struct timespec at = wso_deadline_timespec(3 * WSO_NS_PER_S + 7);
    CHECK_EQ(at.tv_sec, 3);
    CHECK_EQ(at.tv_nsec, 7);
    at = wso_deadline_timespec(WSO_NEVER - 1);
    CHECK(at.tv_sec > 99LL * 365 * 24 * 3600);
    CHECK(at.tv_sec < 101LL * 366 * 24 * 3600);
    CHECK(at.tv_nsec >= 0 && at.tv_nsec < (long)WSO_NS_PER_S);
}
