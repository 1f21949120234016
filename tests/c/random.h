/* A small generator of random numbers for tests: one state per thread, which must not be 0. The
 * same state gives the same numbers, so that a test that fails once fails again. */
#ifndef RANDOM_H
#define RANDOM_H

#include <stdint.h>

static inline uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* A number from 0 to `end` - 1. */
static inline uint64_t random_below(uint64_t *state, uint64_t end)
{
    return random_next(state) % end;
}

#endif
