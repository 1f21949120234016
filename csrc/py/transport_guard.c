/* What Python asks of the guard of one connection: start it, change its settings, see what it did. */
#include "transport.h"

#include <math.h>

#include "clock.h"

/* Seconds as nanoseconds; None is never. */
static int parse_seconds(PyObject *given, const char *name, uint64_t *ns)
{
    *ns = WSO_NEVER;
    if (given == Py_None) {
        return 0;
    }
    double seconds = PyFloat_AsDouble(given);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (isnan(seconds) || seconds < 0) {
        PyErr_Format(PyExc_ValueError, "%s must be at least 0 s, not %R", name, given);
        return -1;
    }
    /* Past a century it is never. */
    if (seconds < 3.2e9) {
        *ns = (uint64_t)(seconds * 1e9);
    }
    return 0;
}

/* Bytes; None is any number. */
static int parse_size(PyObject *given, uint64_t *size)
{
    *size = UINT64_MAX;
    if (given == Py_None) {
        return 0;
    }
    unsigned long long value = PyLong_AsUnsignedLongLong(given);
    if (value == (unsigned long long)-1 && PyErr_Occurred()) {
        return -1;
    }
    *size = value;
    return 0;
}

struct start_arguments {
    struct wso_wire_settings settings;
    PyObject *on_dead;
};

static int parse_start(PyObject *args, PyObject *kwargs, struct start_arguments *given)
{
    static char *names[] = {"rsv1",         "max_message", "max_fragment", "ping_interval",
                            "ping_timeout", "max_stall",   "log",          "on_dead",
                            NULL};
    struct wso_wire_settings *settings = &given->settings;
    int rsv1 = 0, log = 0;
    PyObject *message = NULL, *fragment = NULL, *interval = NULL, *timeout = NULL, *stall = NULL;
    given->on_dead = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$pOOOOOpO:_start", names, &rsv1, &message,
                                     &fragment, &interval, &timeout, &stall, &log,
                                     &given->on_dead)) {
        return -1;
    }
    if (message == NULL || fragment == NULL || interval == NULL || timeout == NULL ||
        stall == NULL || given->on_dead == NULL) {
        PyErr_SetString(PyExc_TypeError, "_start() needs all of its settings");
        return -1;
    }
    settings->rsv1 = rsv1;
    settings->log = log;
    if (parse_size(message, &settings->max_message) < 0 ||
        parse_size(fragment, &settings->max_fragment) < 0 ||
        parse_seconds(interval, "ping_interval", &settings->ping_interval) < 0 ||
        parse_seconds(timeout, "ping_timeout", &settings->ping_timeout) < 0 ||
        parse_seconds(stall, "max_stall", &settings->max_stall) < 0) {
        return -1;
    }
    return 0;
}

/* Raises where nothing can be guarded, whatever the settings. */
static struct wso_hub *hub_for(struct wso_transport *transport)
{
    const char *reason = NULL;
    if (wso_transport_foreign(transport)) {
        reason = "this process is a fork, and the connection is its parent's";
    } else if (transport->closing) {
        reason = "the connection is closing";
    } else if (transport->post != NULL) {
        reason = "the connection is guarded already";
    } else if (transport->state->runtime->guard_ended) {
        reason = "the process ends";
    }
    if (reason != NULL) {
        PyErr_SetString(PyExc_RuntimeError, reason);
        return NULL;
    }
    struct wso_hub *hub = wso_hub_of_running_loop(transport->state, "a guarded connection");
    if (hub != NULL && hub->loop != transport->loop) {
        PyErr_SetString(PyExc_RuntimeError, "the connection belongs to another event loop");
        return NULL;
    }
    return hub;
}

PyObject *wso_transport_start(PyObject *self, PyObject *args, PyObject *kwargs)
{
    struct wso_transport *transport = wso_transport_of(self);
    struct start_arguments given;
    struct wso_hub *hub =
        parse_start(args, kwargs, &given) < 0 ? NULL : hub_for(transport);
    uint64_t now;
    if (hub == NULL || wso_guard_time(transport->state, &now) < 0) {
        return NULL;
    }
    /* The loop that runs on this thread keeps the hub. */
    int status;
    do {
        status = wso_wire_start(transport->wire, &given.settings, now);
    } while (status == WSO_EBUSY && wso_transport_wait(transport));
    if (status != WSO_OK) {
        wso_raise(transport->state, status == WSO_EBUSY ? WSO_EUNGUARDABLE : status);
        return NULL;
    }
    if (wso_transport_enter_ward(transport, hub, given.settings.max_stall) < 0) {
        /* Without the guard's thread it is the library that answers. */
        while (wso_wire_end(transport->wire) == WSO_EBUSY && wso_transport_wait(transport)) {
        }
        return NULL;
    }
    Py_XSETREF(transport->on_dead, Py_NewRef(given.on_dead));
    Py_RETURN_NONE;
}

PyObject *wso_transport_set_pings(PyObject *self, PyObject *args)
{
    struct wso_transport *transport = wso_transport_of(self);
    PyObject *given_interval, *given_timeout;
    uint64_t interval, timeout, now;
    if (!PyArg_ParseTuple(args, "OO:_set_pings", &given_interval, &given_timeout) ||
        parse_seconds(given_interval, "ping_interval", &interval) < 0 ||
        parse_seconds(given_timeout, "ping_timeout", &timeout) < 0) {
        return NULL;
    }
    if (wso_transport_foreign(transport) || transport->post == NULL) {
        Py_RETURN_NONE;
    }
    if (wso_guard_time(transport->state, &now) < 0) {
        return NULL;
    }
    int status;
    do {
        status = wso_wire_set_pings(transport->wire, interval, timeout, now);
    } while (status == WSO_EBUSY && wso_transport_wait(transport));
    if (transport->post != NULL) {
        wso_transport_look_soon(transport);
    }
    Py_RETURN_NONE;
}

static const char *name_of(enum wso_wire_state state)
{
    static const char *const names[] = {
        [WSO_WIRE_NEW] = "new",
        [WSO_WIRE_GUARDED] = "guarded",
        [WSO_WIRE_ENDED] = "ended",
        [WSO_WIRE_RETIRED] = "retired",
    };
    return names[state];
}

PyObject *wso_transport_counts(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_transport *transport = wso_transport_of(self);
    struct wso_wire_counts counts = {.state = WSO_WIRE_RETIRED};
    if (transport->wire != NULL && !wso_transport_foreign(transport)) {
        /* The transport's share stays as long as the transport. */
        while (wso_wire_counts(transport->wire, &counts) == WSO_EBUSY) {
            (void)wso_transport_wait(transport);
        }
    }
    if (counts.state == WSO_WIRE_GUARDED && !wso_transport_is_served(transport)) {
        counts.state = WSO_WIRE_ENDED;
    }
    return Py_BuildValue("{s:s,s:K,s:K,s:d,s:K,s:K,s:K,s:d}", "state", name_of(counts.state),
                         "answered", (unsigned long long)counts.answered, "pinged",
                         (unsigned long long)counts.pinged, "latency",
                         (double)counts.latency / 1e9, "inbox", (unsigned long long)counts.inbox,
                         "read_ahead", (unsigned long long)counts.read_ahead, "rescues",
                         (unsigned long long)counts.rescues, "longest_rescue",
                         (double)counts.longest_rescue / 1e9);
}

PyObject *wso_transport_take_notes(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_transport *transport = wso_transport_of(self);
    struct wso_wire_note notes[WSO_WIRE_NOTES];
    int count = 0;
    uint64_t missed = 0;
    if (transport->wire != NULL && !wso_transport_foreign(transport)) {
        while (wso_wire_take_notes(transport->wire, notes, &count, &missed) == WSO_EBUSY) {
            (void)wso_transport_wait(transport);
        }
    }
    PyObject *list = PyList_New(count);
    for (int i = 0; i < count && list != NULL; i++) {
        PyObject *note =
            Py_BuildValue("(Niy#)", PyBool_FromLong(notes[i].sent), (int)notes[i].opcode,
                          (const char *)notes[i].payload, (Py_ssize_t)notes[i].size);
        if (note == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, i, note);
        }
    }
    return list == NULL ? NULL : Py_BuildValue("(NK)", list, (unsigned long long)missed);
}
