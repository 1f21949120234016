/* The keepalive: see keepalive.h. */
#include "keepalive.h"

#include <string.h>

void wso_keepalive_init(struct wso_keepalive *keepalive)
{
    *keepalive = (struct wso_keepalive){
        .interval = WSO_NEVER,
        .timeout = WSO_NEVER,
        .waiting_since = WSO_NEVER,
    };
}

void wso_keepalive_set(struct wso_keepalive *keepalive, uint64_t interval, uint64_t timeout,
                       uint64_t now)
{
    /* Only then: who sets a timeout again and again does not put the next Ping off by it. */
    if (keepalive->interval == WSO_NEVER) {
        keepalive->pinged_at = now;
    }
    keepalive->interval = interval;
    keepalive->timeout = timeout;
}

uint64_t wso_keepalive_next_ping(const struct wso_keepalive *keepalive)
{
    return wso_time_after(keepalive->pinged_at, keepalive->interval);
}

static uint64_t next_verdict(const struct wso_keepalive *keepalive)
{
    bool judges = keepalive->interval != WSO_NEVER;
    return judges ? wso_time_after(keepalive->waiting_since, keepalive->timeout) : WSO_NEVER;
}

/* WSO_NEVER is no moment, so it does not come, whatever the time. */
static bool has_come(uint64_t moment, uint64_t now)
{
    return moment <= now && moment != WSO_NEVER;
}

bool wso_keepalive_ping_due(const struct wso_keepalive *keepalive, uint64_t now)
{
    return has_come(wso_keepalive_next_ping(keepalive), now);
}

/* Forget the oldest `count` Pings. */
static void forget(struct wso_keepalive *keepalive, unsigned count)
{
    keepalive->count -= count;
    memmove(keepalive->pings, keepalive->pings + count,
            keepalive->count * sizeof keepalive->pings[0]);
}

void wso_keepalive_pinged(struct wso_keepalive *keepalive, uint32_t payload, uint64_t now)
{
    if (keepalive->count == WSO_KEEPALIVE_PINGS) {
        forget(keepalive, 1);
    }
    keepalive->pings[keepalive->count++] =
        (struct wso_keepalive_ping){.at = now, .payload = payload};
    keepalive->pinged_at = now;
    if (keepalive->waiting_since == WSO_NEVER) {
        keepalive->waiting_since = now;
    }
}

bool wso_keepalive_pong(struct wso_keepalive *keepalive, const uint8_t *payload, size_t size,
                        uint64_t now, uint64_t *at)
{
    if (size != sizeof keepalive->pings[0].payload) {
        return false;
    }
    for (unsigned i = 0; i < keepalive->count; i++) {
        if (memcmp(payload, &keepalive->pings[i].payload, size) == 0) {
            *at = keepalive->pings[i].at;
            /* The caller's clock is corrected from time to time, perhaps in between. */
            keepalive->latency = now > *at ? now - *at : 0;
            keepalive->measured = true;
            forget(keepalive, i + 1);
            return true;
        }
    }
    return false;
}

bool wso_keepalive_dead(const struct wso_keepalive *keepalive, uint64_t now)
{
    return has_come(next_verdict(keepalive), now);
}

void wso_keepalive_forgive(struct wso_keepalive *keepalive, uint64_t now)
{
    if (keepalive->waiting_since != WSO_NEVER) {
        keepalive->waiting_since = now;
    }
}

uint64_t wso_keepalive_next(const struct wso_keepalive *keepalive)
{
    uint64_t ping = wso_keepalive_next_ping(keepalive);
    uint64_t verdict = next_verdict(keepalive);
    return ping < verdict ? ping : verdict;
}
