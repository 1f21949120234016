/* The transport's output: from the protocol to the wire, which sends what it can and keeps the rest. */
#include "transport.h"

/* Pieces that fit on the stack. */
#define FEW 16

/* From this many writes to a lost connection on, each is logged, as asyncio does. */
#define LOG_FROM 5

#define WRITE_FAILED "Fatal write error on socket transport"

static int count_lost_write(struct wso_transport *transport)
{
    int status = 0;
    if (transport->conn_lost >= LOG_FROM) {
        PyObject *answer = PyObject_CallMethod(transport->state->logger, "warning", "s",
                                               "socket.send() raised exception.");
        status = answer == NULL ? -1 : 0;
        Py_XDECREF(answer);
    }
    transport->conn_lost++;
    return status;
}

/* Send pieces that are not all empty. */
static int send_pieces(struct wso_transport *transport, const struct iovec *pieces, int count)
{
    if (transport->conn_lost > 0) {
        return count_lost_write(transport);
    }
    struct wso_wire_news news;
    int status;
    do {
        status = wso_wire_send(transport->wire, pieces, count, &news);
    } while (status == WSO_EBUSY && wso_transport_wait(transport) && transport->conn_lost == 0);
    if (status == WSO_EBUSY) {
        return count_lost_write(transport);
    }
    wso_transport_take_news(transport, &news);
    if (status != WSO_OK) {
        wso_raise(transport->state, status);
        return wso_transport_fail(transport, WRITE_FAILED);
    }
    if (news.write_error != 0) {
        return wso_transport_fail_errno(transport, news.write_error, WRITE_FAILED);
    }
    if (news.want_write && wso_transport_set_writer(transport, true) < 0) {
        return -1;
    }
    return wso_transport_maybe_pause(transport);
}

/* Raises if nothing can be written. */
static bool may_write(struct wso_transport *transport, const char *method)
{
    if (wso_transport_foreign(transport)) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s: this process is a fork, and the connection is its parent's", method);
        return false;
    }
    if (transport->eof_written) {
        PyErr_Format(PyExc_RuntimeError, "Cannot call %s() after write_eof()", method);
        return false;
    }
    return true;
}

PyObject *wso_transport_write(PyObject *self, PyObject *data)
{
    struct wso_transport *transport = wso_transport_of(self);
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
        PyObject *name = PyType_GetName(Py_TYPE(data));
        if (name != NULL) {
            PyErr_Format(PyExc_TypeError, "data argument must be a bytes-like object, not %R",
                         name);
            Py_DECREF(name);
        }
        return NULL;
    }
    Py_buffer view;
    if (!may_write(transport, "write") || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    struct iovec piece = {view.buf, (size_t)view.len};
    int status = view.len == 0 ? 0 : send_pieces(transport, &piece, 1);
    PyBuffer_Release(&view);
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Send these objects, each of which has a buffer. */
static int send_lines(struct wso_transport *transport, PyObject *lines, Py_buffer *views,
                      struct iovec *pieces)
{
    Py_ssize_t count = PySequence_Fast_GET_SIZE(lines);
    Py_ssize_t got = 0;
    int filled = 0;
    while (got < count && PyObject_GetBuffer(PySequence_Fast_GET_ITEM(lines, got), &views[got],
                                             PyBUF_SIMPLE) == 0) {
        if (views[got].len > 0) {
            pieces[filled++] = (struct iovec){views[got].buf, (size_t)views[got].len};
        }
        got++;
    }
    int status = got < count ? -1 : filled == 0 ? 0 : send_pieces(transport, pieces, filled);
    while (got > 0) {
        PyBuffer_Release(&views[--got]);
    }
    return status;
}

PyObject *wso_transport_writelines(PyObject *self, PyObject *lines)
{
    struct wso_transport *transport = wso_transport_of(self);
    if (!may_write(transport, "writelines")) {
        return NULL;
    }
    /* A tuple of our own: the buffers are taken by code that could change a list. */
    PyObject *own = PySequence_Tuple(lines);
    if (own == NULL) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(own);
    Py_buffer few_views[FEW];
    struct iovec few_pieces[FEW];
    Py_buffer *views = few_views;
    struct iovec *pieces = few_pieces;
    int status = -1;
    if (count > INT_MAX) {
        PyErr_NoMemory();
        goto done;
    }
    if (count > FEW) {
        views = PyMem_New(Py_buffer, count);
        pieces = PyMem_New(struct iovec, count);
        if (views == NULL || pieces == NULL) {
            PyErr_NoMemory();
            goto done;
        }
    }
    status = send_lines(transport, own, views, pieces);
done:
    if (views != few_views) {
        PyMem_Free(views);
        PyMem_Free(pieces);
    }
    Py_DECREF(own);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

PyObject *wso_transport_write_eof(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_transport *transport = wso_transport_of(self);
    if (transport->closing || transport->eof_written || wso_transport_foreign(transport)) {
        Py_RETURN_NONE;
    }
    transport->eof_written = true;
    if (!wso_transport_ask(transport, wso_wire_end_output)) {
        Py_RETURN_NONE;
    }
    if (transport->news.want_write && wso_transport_set_writer(transport, true) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

int wso_transport_write_ready(struct wso_transport *transport)
{
    if (wso_transport_foreign(transport) || !wso_transport_ask(transport, wso_wire_flush)) {
        return 0;
    }
    if (transport->news.write_error != 0) {
        return wso_transport_fail_errno(transport, transport->news.write_error, WRITE_FAILED);
    }
    /* May write more, or close. */
    int status = wso_transport_maybe_resume(transport);
    if (status == 0 && !transport->news.want_write && transport->conn_lost == 0) {
        status = wso_transport_set_writer(transport, false);
        if (status == 0 && transport->closing) {
            status = wso_transport_lose(transport, Py_None);
        }
    }
    return status;
}
