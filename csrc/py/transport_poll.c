/* When the loop calls the transport: the reader and writer of its descriptor, and callbacks that come
 * in the loop's next turn.
 *
 * The callbacks are built-in functions bound to the transport, so that no subclass can be in the way.
 */
#include "transport.h"

static PyObject *none_or_null(int status)
{
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *on_readable(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return none_or_null(wso_transport_read_ready(wso_transport_of(self)));
}

static PyObject *on_writable(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return none_or_null(wso_transport_write_ready(wso_transport_of(self)));
}

static PyObject *on_read_more(PyObject *self, PyObject *Py_UNUSED(unused))
{
    wso_transport_of(self)->read_scheduled = false;
    return none_or_null(wso_transport_read_ready(wso_transport_of(self)));
}

static PyObject *on_begin(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_transport *transport = wso_transport_of(self);
    if (wso_transport_foreign(transport) || !wso_transport_ask(transport, wso_wire_look)) {
        Py_RETURN_NONE;
    }
    transport->begun = true;
    return none_or_null(wso_transport_go_on_reading(transport));
}

static PyObject *on_lose(PyObject *self, PyObject *exception)
{
    return none_or_null(wso_transport_lose(wso_transport_of(self), exception));
}

static PyMethodDef readable_def = {"_read_ready", on_readable, METH_NOARGS, NULL};
static PyMethodDef writable_def = {"_write_ready", on_writable, METH_NOARGS, NULL};
static PyMethodDef read_more_def = {"_read_more", on_read_more, METH_NOARGS, NULL};
static PyMethodDef begin_def = {"_begin", on_begin, METH_NOARGS, NULL};
static PyMethodDef lose_def = {"_call_connection_lost", on_lose, METH_O, NULL};

static int call_soon(struct wso_transport *transport, PyMethodDef *def, PyObject *argument)
{
    PyObject *function = PyCFunction_New(def, (PyObject *)transport);
    int status = function == NULL
                     ? -1
                     : wso_transport_tell_loop(transport, transport->state->str_call_soon, function,
                                               argument);
    Py_XDECREF(function);
    return status;
}

int wso_transport_begin_soon(struct wso_transport *transport)
{
    return call_soon(transport, &begin_def, NULL);
}

int wso_transport_lose_soon(struct wso_transport *transport, PyObject *exception)
{
    return call_soon(transport, &lose_def, exception);
}

/* Have the loop poll the descriptor or not; `is` says whether it does. */
static int poll_descriptor(struct wso_transport *transport, bool *is, PyObject *method,
                           PyMethodDef *def)
{
    PyObject *fd = PyLong_FromLong(transport->fd);
    PyObject *function = def == NULL ? NULL : PyCFunction_New(def, (PyObject *)transport);
    int status = -1;
    if (fd != NULL && (def == NULL || function != NULL)) {
        *is = def != NULL;
        status = wso_transport_tell_loop(transport, method, fd, function);
        *is = *is && status == 0;
    }
    Py_XDECREF(fd);
    Py_XDECREF(function);
    return status;
}

int wso_transport_set_reader(struct wso_transport *transport, bool on)
{
    if (transport->reading == on) {
        return 0;
    }
    struct module_state *state = transport->state;
    return poll_descriptor(transport, &transport->reading,
                           on ? state->str_add_reader : state->str_remove_reader,
                           on ? &readable_def : NULL);
}

int wso_transport_set_writer(struct wso_transport *transport, bool on)
{
    if (transport->writing == on) {
        return 0;
    }
    struct module_state *state = transport->state;
    return poll_descriptor(transport, &transport->writing,
                           on ? state->str_add_writer : state->str_remove_writer,
                           on ? &writable_def : NULL);
}

int wso_transport_go_on_reading(struct wso_transport *transport)
{
    const struct wso_wire_news *news = &transport->news;
    if (!transport->begun || transport->closing) {
        return 0;
    }
    if (wso_transport_set_reader(transport, !news->full && !news->stopped) < 0 ||
        (news->want_write && wso_transport_set_writer(transport, true) < 0)) {
        return -1;
    }
    if (news->full && transport->post != NULL) {
        /* The guard's thread sees when others have made room. */
        wso_transport_look_soon(transport);
    }
    bool ended = news->stopped && !transport->eof_told;
    if (transport->paused || transport->read_scheduled ||
        !(news->more || ended || transport->rest != NULL)) {
        return 0;
    }
    transport->read_scheduled = true;
    if (call_soon(transport, &read_more_def, NULL) < 0) {
        transport->read_scheduled = false;
        return -1;
    }
    return 0;
}
