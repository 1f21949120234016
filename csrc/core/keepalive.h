/* The keepalive of one connection: pure decisions over times. When is a Ping due, is the peer dead?
 *
 * Times are nanoseconds of the guard's clock, which stands still while the guard itself could not run
 * (a stopped process, a suspended machine), so that nobody is judged by a clock that slept.
 *
 * A peer is dead when a Ping of ours has waited for `timeout` and no byte at all has come since.
 * No I/O, no allocation; the wire's lock guards it.
 */
#ifndef WSO_KEEPALIVE_H
#define WSO_KEEPALIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clock.h"

/* Pings whose Pong may still come and be told apart; an older one's Pong goes to the library. */
#define WSO_KEEPALIVE_PINGS 8

struct wso_keepalive {
    uint64_t interval; /* ns between Pings; WSO_NEVER: none are sent and nobody is judged */
    uint64_t timeout;  /* ns; WSO_NEVER: nobody is judged */
    uint64_t pinged_at;     /* the last Ping, or the time since which they are sent, if later */
    uint64_t waiting_since; /* the oldest Ping since which no byte came; WSO_NEVER: none */
    uint64_t latency;       /* ns, of the last Pong that matched */
    bool measured;          /* latency is set */
    /* The last Pings, the oldest first. */
    struct wso_keepalive_ping {
        uint64_t at;
        uint32_t payload;
    } pings[WSO_KEEPALIVE_PINGS];
    unsigned count;
};

void wso_keepalive_init(struct wso_keepalive *keepalive);

/* Begin, or go on with other settings from now on: the next Ping is due an interval after the last
 * one (or after `now` if none were being sent), and a Ping under way is judged by the new timeout. */
void wso_keepalive_set(struct wso_keepalive *keepalive, uint64_t interval, uint64_t timeout,
                       uint64_t now);

bool wso_keepalive_ping_due(const struct wso_keepalive *keepalive, uint64_t now);

/* A Ping with this payload goes out. */
void wso_keepalive_pinged(struct wso_keepalive *keepalive, uint32_t payload, uint64_t now);

/* A byte came. */
static inline void wso_keepalive_heard(struct wso_keepalive *keepalive)
{
    keepalive->waiting_since = WSO_NEVER;
}

/* A Pong came: true if it answers one of our Pings, which it settles with all older ones. `at` is when
 * that Ping went out. */
bool wso_keepalive_pong(struct wso_keepalive *keepalive, const uint8_t *payload, size_t size,
                        uint64_t now, uint64_t *at);

bool wso_keepalive_dead(const struct wso_keepalive *keepalive, uint64_t now);

/* The time until now counts against nobody. */
void wso_keepalive_forgive(struct wso_keepalive *keepalive, uint64_t now);

/* WSO_NEVER if none are sent. */
uint64_t wso_keepalive_next_ping(const struct wso_keepalive *keepalive);

/* When to look again: the next Ping or the verdict; WSO_NEVER if neither comes. */
uint64_t wso_keepalive_next(const struct wso_keepalive *keepalive);

#endif
