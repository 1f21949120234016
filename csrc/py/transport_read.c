/* The transport's input: from the wire to the protocol, at most one call of it for each callback of the
 * loop, as asyncio does it.
 *
 * What comes next is arranged before the protocol is called, so that nothing it does or raises can keep
 * later bytes from coming.
 */
#include "transport.h"

#include <string.h>

#define READ_FAILED "Fatal read error on socket transport"

int wso_transport_take_protocol(struct wso_transport *transport, PyObject *protocol)
{
    int buffered = PyObject_IsInstance(protocol, transport->state->buffered_protocol);
    if (buffered < 0) {
        return -1;
    }
    transport->buffered = buffered;
    Py_XSETREF(transport->protocol, Py_NewRef(protocol));
    return 0;
}

/* May the protocol be given something? */
static bool is_receiving(const struct wso_transport *transport)
{
    return transport->conn_lost == 0 && !transport->closing;
}

/* One look at the wire. False: the transport was closed meanwhile. */
static bool receive(struct wso_transport *transport, uint8_t *buffer, size_t size)
{
    struct wso_wire_news news;
    int status;
    do {
        status = wso_wire_receive(transport->wire, buffer, size, &news);
    } while (status == WSO_EBUSY && wso_transport_wait(transport) && is_receiving(transport));
    if (status != WSO_OK) {
        return false;
    }
    wso_transport_take_news(transport, &news);
    return true;
}

static int tell_eof(struct wso_transport *transport)
{
    if (wso_transport_debug(transport, "%r received EOF", NULL) < 0) {
        return -1;
    }
    PyObject *protocol = Py_NewRef(transport->protocol);
    PyObject *answer = PyObject_CallMethodNoArgs(protocol, transport->state->str_eof_received);
    Py_DECREF(protocol);
    int keeps_open = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    if (keeps_open < 0) {
        return wso_transport_fail(transport,
                                  "Fatal error: protocol.eof_received() call failed.");
    }
    return keeps_open ? 0 : wso_transport_close_gently(transport);
}

/* Nothing was received: is that the end? */
static int end_reading(struct wso_transport *transport)
{
    const struct wso_wire_news *news = &transport->news;
    if (news->read_error != 0) {
        return wso_transport_fail_errno(transport, news->read_error, READ_FAILED);
    }
    bool ends = news->end && !transport->eof_told;
    transport->eof_told = transport->eof_told || news->end;
    if (wso_transport_go_on_reading(transport) < 0) {
        return -1;
    }
    return ends && is_receiving(transport) ? tell_eof(transport) : 0;
}

/* Call the protocol with what was received. */
static int deliver(struct wso_transport *transport, PyObject *method, PyObject *argument,
                   const char *message)
{
    if (argument == NULL || wso_transport_go_on_reading(transport) < 0) {
        return wso_transport_fail(transport, READ_FAILED);
    }
    PyObject *protocol = Py_NewRef(transport->protocol);
    PyObject *answer = PyObject_CallMethodOneArg(protocol, method, argument);
    Py_DECREF(protocol);
    if (answer == NULL) {
        return wso_transport_fail(transport, message);
    }
    Py_DECREF(answer);
    return 0;
}

static int deliver_data(struct wso_transport *transport, PyObject *data)
{
    int status = deliver(transport, transport->state->str_data_received, data,
                         "Fatal error: protocol.data_received() call failed.");
    Py_XDECREF(data);
    return status;
}

static int read_stream(struct wso_transport *transport)
{
    if (transport->rest != NULL) {
        /* Of a buffered protocol that another one has replaced. */
        PyObject *rest = transport->rest;
        transport->rest = NULL;
        PyObject *data = PyBytes_FromStringAndSize(PyBytes_AS_STRING(rest) + transport->rest_start,
                                                   PyBytes_GET_SIZE(rest) - transport->rest_start);
        Py_DECREF(rest);
        return deliver_data(transport, data);
    }
    uint8_t *scratch = transport->state->scratch;
    if (!receive(transport, scratch, WSO_SCRATCH_SIZE)) {
        return 0;
    }
    size_t received = transport->news.received;
    if (received == 0) {
        return end_reading(transport);
    }
    return deliver_data(transport,
                        PyBytes_FromStringAndSize((const char *)scratch, (Py_ssize_t)received));
}

/* The protocol's buffer for what comes. */
static int get_buffer(struct wso_transport *transport, Py_buffer *view)
{
    PyObject *hint = PyLong_FromLong(-1);
    PyObject *protocol = Py_NewRef(transport->protocol);
    PyObject *buffer =
        hint == NULL ? NULL
                     : PyObject_CallMethodOneArg(protocol, transport->state->str_get_buffer, hint);
    Py_DECREF(protocol);
    Py_XDECREF(hint);
    Py_ssize_t length = buffer == NULL ? -1 : PyObject_Size(buffer);
    if (length == 0) {
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
    }
    int status = -1;
    if (length <= 0) {
        (void)wso_transport_fail(transport, "Fatal error: protocol.get_buffer() call failed.");
    } else if (PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE) < 0) {
        (void)wso_transport_fail(transport, READ_FAILED);
    } else {
        status = 0;
    }
    Py_XDECREF(buffer);
    return status;
}

/* Receive more than the protocol's buffer may take. */
static bool receive_rest(struct wso_transport *transport)
{
    uint8_t *scratch = transport->state->scratch;
    if (!receive(transport, scratch, WSO_RECEIVE_MIN)) {
        return false;
    }
    if (transport->news.received > 0) {
        transport->rest = PyBytes_FromStringAndSize((const char *)scratch,
                                                    (Py_ssize_t)transport->news.received);
        transport->rest_start = 0;
        if (transport->rest == NULL) {
            (void)wso_transport_fail(transport, READ_FAILED);
            return false;
        }
    }
    return true;
}

/* Receive into the protocol's buffer; the bytes put there, or -1 if there is nothing more to do. */
static Py_ssize_t fill_buffer(struct wso_transport *transport, Py_buffer *view)
{
    size_t size = (size_t)view->len;
    if (transport->rest == NULL && size >= WSO_RECEIVE_MIN) {
        return receive(transport, view->buf, size) ? (Py_ssize_t)transport->news.received : -1;
    }
    if (transport->rest == NULL && !receive_rest(transport)) {
        return -1;
    }
    if (transport->rest == NULL) {
        return 0;
    }
    Py_ssize_t left = PyBytes_GET_SIZE(transport->rest) - transport->rest_start;
    Py_ssize_t taken = left < view->len ? left : view->len;
    memcpy(view->buf, PyBytes_AS_STRING(transport->rest) + transport->rest_start, (size_t)taken);
    transport->rest_start += taken;
    if (taken == left) {
        Py_CLEAR(transport->rest);
    }
    return taken;
}

static int read_into_buffer(struct wso_transport *transport)
{
    Py_buffer view;
    if (get_buffer(transport, &view) < 0) {
        return PyErr_Occurred() ? -1 : 0;
    }
    Py_ssize_t received = is_receiving(transport) ? fill_buffer(transport, &view) : -1;
    PyBuffer_Release(&view);
    if (received <= 0) {
        return PyErr_Occurred() ? -1 : received == 0 ? end_reading(transport) : 0;
    }
    PyObject *count = PyLong_FromSsize_t(received);
    int status = deliver(transport, transport->state->str_buffer_updated, count,
                         "Fatal error: protocol.buffer_updated() call failed.");
    Py_XDECREF(count);
    return status;
}

/* Nobody wants bytes now: they are read ahead, and Pings answered. */
static int read_ahead(struct wso_transport *transport)
{
    if (!wso_transport_ask(transport, wso_wire_fill)) {
        return 0;
    }
    return wso_transport_go_on_reading(transport);
}

int wso_transport_read_ready(struct wso_transport *transport)
{
    if (wso_transport_foreign(transport) || !is_receiving(transport)) {
        return 0;
    }
    if (transport->paused) {
        return read_ahead(transport);
    }
    return transport->buffered ? read_into_buffer(transport) : read_stream(transport);
}

PyObject *wso_transport_pause_reading(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_transport *transport = wso_transport_of(self);
    if (transport->closing || transport->paused || wso_transport_foreign(transport)) {
        Py_RETURN_NONE;
    }
    transport->paused = true;
    if (wso_transport_debug(transport, "%r pauses reading", NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *wso_transport_resume_reading(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_transport *transport = wso_transport_of(self);
    if (transport->closing || !transport->paused || wso_transport_foreign(transport)) {
        Py_RETURN_NONE;
    }
    transport->paused = false;
    if (wso_transport_ask(transport, wso_wire_look) &&
        wso_transport_go_on_reading(transport) < 0) {
        return NULL;
    }
    if (wso_transport_debug(transport, "%r resumes reading", NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}
