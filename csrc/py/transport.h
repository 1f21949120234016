/* What the files of the transport and of the guard know of each other.
 *
 * All of it attached and, but for the end of a transport that nobody closed, on the loop's thread. An
 * int is 0, or -1 with an exception raised.
 */
#ifndef WSO_TRANSPORT_H
#define WSO_TRANSPORT_H

#include <errno.h>

#include "module.h"
#include "wire.h"

struct wso_post;
struct wso_loop_ward;

struct wso_transport {
    PyObject_HEAD
    PyObject *extra; /* the slot `_extra` of asyncio.BaseTransport */
    /* From here on ours. */
    struct module_state *state;
    PyObject *weak_references;
    PyObject *loop; /* NULL once the connection is lost, as is the next */
    PyObject *protocol;
    PyObject *sock;    /* ours to close; NULL once it is */
    PyObject *context; /* of the constructor's caller */
    PyObject *on_dead; /* NULL: not guarded, or called already */
    PyObject *high_water;
    PyObject *low_water;
    PyObject *rest; /* bytes that did not fit into the protocol's buffer; NULL: none */
    Py_ssize_t rest_start;
    struct wso_wire *wire;      /* NULL until the constructor has run */
    struct wso_post *post;      /* NULL: not guarded */
    struct wso_loop_ward *ward; /* shared; NULL likewise */
    struct wso_wire_news news;  /* of the last call of the wire */
    unsigned generation;
    int fd;
    unsigned conn_lost;   /* as asyncio's: connection_lost is due, and the writes since */
    bool lost;            /* connection_lost was called, or the constructor has not run */
    bool buffered;        /* the protocol is a BufferedProtocol */
    bool begun;           /* may read */
    bool closing;
    bool paused;
    bool eof_told;
    bool eof_written;
    bool protocol_paused;
    bool output_failed; /* bytes of the protocol's will never be sent */
    bool reading;       /* the loop has our reader */
    bool writing;       /* the loop has our writer */
    bool read_scheduled;
};

static inline struct wso_transport *wso_transport_of(PyObject *self)
{
    return (struct wso_transport *)self;
}

/* Of before a fork, and this is the child: the connection is the parent's. */
static inline bool wso_transport_foreign(const struct wso_transport *transport)
{
    return transport->generation != atomic_load(&transport->state->runtime->generation);
}

/* transport_ask.c: the ways to the wire and to the loop. */
/* Another thread is at the wire: wait, without the GIL, until it is not. False: the connection was
 * lost meanwhile. */
bool wso_transport_wait(struct wso_transport *transport);
/* Call the wire and keep its news; false if the connection is lost or about to be. */
bool wso_transport_ask(struct wso_transport *transport,
                       int (*call)(struct wso_wire *wire, struct wso_wire_news *news));
void wso_transport_take_news(struct wso_transport *transport, const struct wso_wire_news *news);
/* A method of the loop's with one or two arguments (`second` may be NULL). */
int wso_transport_tell_loop(struct wso_transport *transport, PyObject *method, PyObject *first,
                            PyObject *second);
/* Whether what is raised is let through to the loop's runner, as asyncio does it. */
bool wso_transport_lets_through(void);
/* Give the raised exception to the loop's exception handler, unless it is let through. */
int wso_transport_report(struct wso_transport *transport, const char *message);
/* The same for an exception that is not raised. */
int wso_transport_report_exception(struct wso_transport *transport, const char *message,
                                   PyObject *exception);
/* In asyncio's debug mode, log this: with an exception or NULL, where it is a format of the transport. */
int wso_transport_debug(struct wso_transport *transport, const char *message, PyObject *exception);

/* transport_poll.c: when the loop calls us. */
int wso_transport_begin_soon(struct wso_transport *transport);
int wso_transport_lose_soon(struct wso_transport *transport, PyObject *exception);
int wso_transport_set_reader(struct wso_transport *transport, bool on);
int wso_transport_set_writer(struct wso_transport *transport, bool on);
/* Have the loop call us for all that is to come from the peer. */
int wso_transport_go_on_reading(struct wso_transport *transport);

/* transport_read.c */
/* One read, as much as asyncio reads at a time. */
#define WSO_SCRATCH_SIZE (256 * 1024)
int wso_transport_take_protocol(struct wso_transport *transport, PyObject *protocol);
/* There may be something to read. */
int wso_transport_read_ready(struct wso_transport *transport);
PyObject *wso_transport_pause_reading(PyObject *self, PyObject *unused);
PyObject *wso_transport_resume_reading(PyObject *self, PyObject *unused);

/* transport_write.c */
/* The socket may be writable. */
int wso_transport_write_ready(struct wso_transport *transport);
PyObject *wso_transport_write(PyObject *self, PyObject *data);
PyObject *wso_transport_writelines(PyObject *self, PyObject *lines);
PyObject *wso_transport_write_eof(PyObject *self, PyObject *unused);

/* transport_flow.c: how much may wait to be sent. */
int wso_transport_limit(struct wso_transport *transport, PyObject *high, PyObject *low);
int wso_transport_maybe_pause(struct wso_transport *transport);
int wso_transport_maybe_resume(struct wso_transport *transport);
PyObject *wso_transport_set_limits(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *wso_transport_limits(PyObject *self, PyObject *unused);
PyObject *wso_transport_buffer_size(PyObject *self, PyObject *unused);

/* transport_close.c */
/* What is raised ends the connection, as asyncio's _fatal_error, unless it is let through. */
int wso_transport_fail(struct wso_transport *transport, const char *message);
/* The same for an errno. */
int wso_transport_fail_errno(struct wso_transport *transport, int error, const char *message);
/* connection_lost(exception), and everything is given back. */
int wso_transport_lose(struct wso_transport *transport, PyObject *exception);
int wso_transport_close_gently(struct wso_transport *transport);
PyObject *wso_transport_close(PyObject *self, PyObject *unused);
PyObject *wso_transport_abort(PyObject *self, PyObject *unused);
void wso_transport_finalize(PyObject *self);
/* The memory goes: nothing may point to it any more. Runs no Python code but sock.close(). */
void wso_transport_give_up(struct wso_transport *transport);

/* transport_guard.c: what Python asks of the guard. */
PyObject *wso_transport_start(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *wso_transport_set_pings(PyObject *self, PyObject *args);
PyObject *wso_transport_counts(PyObject *self, PyObject *unused);
PyObject *wso_transport_take_notes(PyObject *self, PyObject *unused);

/* guard.c */
/* Guard a wire that was started, for at most `max_stall` ns of a stall. */
int wso_transport_enter_ward(struct wso_transport *transport, struct wso_hub *hub,
                             uint64_t max_stall);
/* The guard's thread looks after it: its loop is there, and the process does not end. */
bool wso_transport_is_served(const struct wso_transport *transport);
/* The ping settings have changed. Only where there is a post. */
void wso_transport_look_soon(struct wso_transport *transport);
/* Stop guarding; waits, without the GIL if `detached`, for the guard's thread to leave the wire. */
void wso_transport_leave_ward(struct wso_transport *transport, bool detached);
/* The guard's clock; begins the guard where there is none. */
int wso_guard_time(struct module_state *state, uint64_t *now);

#endif
