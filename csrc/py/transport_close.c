/* The end of a transport: closed, aborted, failed, or forgotten by everybody.
 *
 * connection_lost comes once, in a callback of its own as with asyncio, and only after it is the socket
 * shut down: until then the peer sees nothing.
 */
#include "transport.h"

/* Drop what waits to be sent, and have connection_lost called. */
static int force_close(struct wso_transport *transport, PyObject *exception)
{
    if (transport->conn_lost > 0) {
        return 0;
    }
    transport->conn_lost++;
    transport->closing = true;
    if (wso_transport_set_writer(transport, false) < 0 ||
        wso_transport_set_reader(transport, false) < 0) {
        return -1;
    }
    return wso_transport_lose_soon(transport, exception);
}

static int fail_with(struct wso_transport *transport, PyObject *exception, const char *message)
{
    int status = PyErr_GivenExceptionMatches(exception, PyExc_OSError)
                     ? wso_transport_debug(transport, message, exception)
                     : wso_transport_report_exception(transport, message, exception);
    return status < 0 ? -1 : force_close(transport, exception);
}

int wso_transport_fail(struct wso_transport *transport, const char *message)
{
    if (wso_transport_lets_through()) {
        return -1;
    }
    PyObject *exception = wso_take_exception();
    int status = fail_with(transport, exception, message);
    Py_DECREF(exception);
    return status;
}

int wso_transport_fail_errno(struct wso_transport *transport, int error, const char *message)
{
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
    return wso_transport_fail(transport, message);
}

static int close_socket(struct wso_transport *transport)
{
    PyObject *sock = transport->sock;
    if (sock == NULL) {
        return 0;
    }
    transport->sock = NULL;
    PyObject *answer = PyObject_CallMethodNoArgs(sock, transport->state->str_close);
    Py_DECREF(sock);
    Py_XDECREF(answer);
    return answer == NULL ? -1 : 0;
}

/* After this nobody uses the descriptor. */
static int give_back(struct wso_transport *transport)
{
    if (!wso_transport_foreign(transport) && transport->wire != NULL) {
        /* Only other callers of wso_wire_wait can be in the way, for moments and without the GIL. */
        while (wso_wire_retire(transport->wire, true) == WSO_EBUSY) {
            wso_wire_wait(transport->wire);
        }
    }
    return close_socket(transport);
}

int wso_transport_lose(struct wso_transport *transport, PyObject *exception)
{
    if (transport->lost || transport->loop == NULL) {
        return 0;
    }
    transport->lost = transport->closing = true;
    transport->conn_lost += transport->conn_lost == 0;
    if (!wso_transport_foreign(transport)) {
        wso_transport_leave_ward(transport, true);
    }
    PyObject *protocol = Py_NewRef(transport->protocol);
    PyObject *answer =
        PyObject_CallMethodOneArg(protocol, transport->state->str_connection_lost, exception);
    Py_DECREF(protocol);
    PyObject *raised = answer == NULL ? wso_take_exception() : NULL;
    Py_XDECREF(answer);
    int status = give_back(transport);
    if (raised != NULL) {
        if (status < 0) {
            PyErr_WriteUnraisable((PyObject *)transport);
        }
        wso_give_exception(raised);
        status = -1;
    }
    raised = status < 0 ? wso_take_exception() : NULL;
    Py_CLEAR(transport->protocol);
    Py_CLEAR(transport->loop);
    Py_CLEAR(transport->context);
    Py_CLEAR(transport->on_dead);
    Py_CLEAR(transport->rest);
    if (raised != NULL) {
        wso_give_exception(raised);
    }
    return status;
}

int wso_transport_close_gently(struct wso_transport *transport)
{
    if (transport->closing) {
        return 0;
    }
    transport->closing = true;
    if (wso_transport_set_reader(transport, false) < 0) {
        return -1;
    }
    if (!wso_transport_ask(transport, wso_wire_look)) {
        return 0;
    }
    if (transport->output_failed) {
        return wso_transport_fail_errno(transport, transport->news.write_error,
                                        "Fatal write error on socket transport");
    }
    if (transport->news.want_write) {
        /* What waits is sent first. */
        return wso_transport_set_writer(transport, true);
    }
    return force_close(transport, Py_None);
}

/* The child of a fork: its copy of the descriptor is all that it may touch, neither the connection nor
 * the poll set of the loop, which are the parent's too. Its protocol hears of the end, or a clean-up
 * that waits for it would wait for ever. */
static PyObject *close_copy(struct wso_transport *transport)
{
    transport->closing = true;
    if (close_socket(transport) < 0) {
        return NULL;
    }
    if (transport->conn_lost == 0 && transport->loop != NULL) {
        transport->conn_lost++;
        if (wso_transport_lose_soon(transport, Py_None) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

PyObject *wso_transport_close(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_transport *transport = wso_transport_of(self);
    if (wso_transport_foreign(transport)) {
        return close_copy(transport);
    }
    return wso_transport_close_gently(transport) < 0 ? NULL : Py_NewRef(Py_None);
}

PyObject *wso_transport_abort(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_transport *transport = wso_transport_of(self);
    if (wso_transport_foreign(transport)) {
        return close_copy(transport);
    }
    return force_close(transport, Py_None) < 0 ? NULL : Py_NewRef(Py_None);
}

/* Nobody will close it any more. */
static void give_up(struct wso_transport *transport, bool detached)
{
    transport->lost = transport->closing = true;
    transport->conn_lost += transport->conn_lost == 0;
    if (!wso_transport_foreign(transport)) {
        wso_transport_leave_ward(transport, detached);
    }
    if (give_back(transport) < 0) {
        PyErr_WriteUnraisable(NULL);
    }
}

void wso_transport_finalize(PyObject *self)
{
    struct wso_transport *transport = wso_transport_of(self);
    if (transport->sock == NULL) {
        return;
    }
    PyObject *raised = PyErr_Occurred() ? wso_take_exception() : NULL;
    if (!wso_transport_foreign(transport) &&
        PyErr_ResourceWarning(self, 1, "unclosed transport %R", self) < 0) {
        PyErr_WriteUnraisable(self);
    }
    give_up(transport, true);
    if (raised != NULL) {
        wso_give_exception(raised);
    }
}

void wso_transport_give_up(struct wso_transport *transport)
{
    if (transport->sock != NULL) {
        give_up(transport, false);
    }
}
