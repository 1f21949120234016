/* What a tracker saw of a stream, put down so that two ways of feeding it can be compared.
 *
 * Its owner here keeps nothing back: all that the tracker passes on, held or not, must add up to
 * the stream itself.
 */
#ifndef SIGHTS_H
#define SIGHTS_H

#include "frame.h"

#define SIGHTS_BYTES 4096
#define SIGHTS_FRAMES 512

/* A whole control frame. */
struct sighted {
    enum wso_seen seen;
    bool held;
    size_t at; /* bytes of the stream up to its end */
    size_t payload_size;
    uint8_t payload[WSO_CONTROL_PAYLOAD];
};

struct sights {
    size_t fed;
    size_t passed_size;
    uint8_t passed[SIGHTS_BYTES];
    size_t count;
    struct sighted frames[SIGHTS_FRAMES];
};

/* Feed these bytes, in as many pieces as the tracker takes, and add what it saw. Checks what is true
 * of every sight. */
void sights_feed(struct sights *sights, struct wso_tracker *tracker, const uint8_t *bytes,
                 size_t size);

/* The stream ends. */
void sights_end(struct sights *sights, struct wso_tracker *tracker);

/* The same control frames and the same bytes. */
bool sights_same(const struct sights *left, const struct sights *right);

/* Feed a stream to copies of the tracker in every one, two and three pieces, and byte by byte; all
 * see the same, and end alike. Returns how many control frames there are. */
size_t sights_check_splits(const struct wso_tracker *tracker, const uint8_t *bytes, size_t size);

#endif
