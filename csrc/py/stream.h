/* What a stream and the awaitable of its next item know of each other.
 */
#ifndef WSO_STREAM_H
#define WSO_STREAM_H

#include "feed.h"

struct wso_stream {
    PyObject_HEAD
    struct module_state *state;
    struct wso_feed *feed;
    bool started;
    uint64_t turn_began; /* ns, when the loop last had its turn */
    bool gave_way;       /* the loop had a turn for the next item, which nobody took yet */
};

/* stream.c */
/* A future of the running loop. */
PyObject *wso_stream_new_future(struct module_state *state);
/* Raises and answers -1 if another task waits for the next item. */
int wso_stream_refuse_second_reader(struct wso_stream *stream);

/* ready.c */
/* An awaitable of what the stream has next, which first gives way to the loop if it is to. */
PyObject *wso_ready_new(struct wso_stream *stream, bool give_way);

#endif
