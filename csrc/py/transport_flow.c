/* How much of the protocol's output may wait: high and low water, as asyncio's flow control does it. */
#include "transport.h"

int wso_transport_limit(struct wso_transport *transport, PyObject *high, PyObject *low)
{
    /* New references in both from here on. */
    high = high != Py_None  ? Py_NewRef(high)
           : low == Py_None ? PyLong_FromLong(64 * 1024)
                            : NULL;
    PyObject *four = PyLong_FromLong(4);
    if (high == NULL && four != NULL && low != Py_None) {
        high = PyNumber_Multiply(four, low);
    }
    low = low != Py_None                  ? Py_NewRef(low)
          : high == NULL || four == NULL ? NULL
                                          : PyNumber_FloorDivide(high, four);
    PyObject *zero = PyLong_FromLong(0);
    Py_XDECREF(four);
    int fits = -1;
    if (high != NULL && low != NULL && zero != NULL) {
        fits = PyObject_RichCompareBool(high, low, Py_GE);
        fits = fits == 1 ? PyObject_RichCompareBool(low, zero, Py_GE) : fits;
        if (fits == 0) {
            PyErr_Format(PyExc_ValueError, "high (%R) must be >= low (%R) must be >= 0", high,
                         low);
        }
    }
    Py_XDECREF(zero);
    if (fits != 1) {
        Py_XDECREF(high);
        Py_XDECREF(low);
        return -1;
    }
    Py_XSETREF(transport->high_water, high);
    Py_XSETREF(transport->low_water, low);
    return 0;
}

/* Compare what waits with a limit. */
static int compare(struct wso_transport *transport, PyObject *limit, int operation)
{
    PyObject *size = PyLong_FromSize_t(transport->news.unsent);
    if (size == NULL) {
        return -1;
    }
    limit = Py_NewRef(limit);
    int answer = PyObject_RichCompareBool(size, limit, operation);
    Py_DECREF(limit);
    Py_DECREF(size);
    return answer;
}

static int tell_protocol(struct wso_transport *transport, PyObject *method, const char *message)
{
    PyObject *protocol = Py_NewRef(transport->protocol);
    PyObject *answer = PyObject_CallMethodNoArgs(protocol, method);
    Py_DECREF(protocol);
    if (answer == NULL) {
        return wso_transport_report(transport, message);
    }
    Py_DECREF(answer);
    return 0;
}

int wso_transport_maybe_pause(struct wso_transport *transport)
{
    if (transport->protocol_paused || transport->news.unsent == 0 || transport->protocol == NULL) {
        return 0;
    }
    int above = compare(transport, transport->high_water, Py_GT);
    if (above <= 0) {
        return above;
    }
    transport->protocol_paused = true;
    return tell_protocol(transport, transport->state->str_pause_writing,
                         "protocol.pause_writing() failed");
}

int wso_transport_maybe_resume(struct wso_transport *transport)
{
    if (!transport->protocol_paused || transport->protocol == NULL) {
        return 0;
    }
    int below = compare(transport, transport->low_water, Py_LE);
    if (below <= 0) {
        return below;
    }
    transport->protocol_paused = false;
    return tell_protocol(transport, transport->state->str_resume_writing,
                         "protocol.resume_writing() failed");
}

PyObject *wso_transport_set_limits(PyObject *self, PyObject *args, PyObject *kwargs)
{
    struct wso_transport *transport = wso_transport_of(self);
    PyObject *high = Py_None, *low = Py_None;
    static char *names[] = {"high", "low", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:set_write_buffer_limits", names, &high,
                                     &low) ||
        wso_transport_limit(transport, high, low) < 0) {
        return NULL;
    }
    if (!wso_transport_foreign(transport) && wso_transport_ask(transport, wso_wire_look) &&
        wso_transport_maybe_pause(transport) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *wso_transport_limits(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_transport *transport = wso_transport_of(self);
    return PyTuple_Pack(2, transport->low_water, transport->high_water);
}

PyObject *wso_transport_buffer_size(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_transport *transport = wso_transport_of(self);
    bool asked = !wso_transport_foreign(transport) && wso_transport_ask(transport, wso_wire_look);
    return PyLong_FromSize_t(asked ? transport->news.unsent : 0);
}
