/* The type Transport: an asyncio.Transport over a wire, which a guard can serve while Python is busy.
 *
 * It behaves as asyncio's own transport for sockets does; the model is selector_events.py of CPython.
 * Each file transport_*.c is one side of it: ask (the ways to wire and loop), poll (the loop's callbacks),
 * read, write, flow, close, guard.
 *
 * Ownership: the transport owns the socket and a share of the wire, which borrows the descriptor. The
 * loop's tables own the transport, through the callbacks. Whoever goes first, the wire is retired before
 * the descriptor is closed.
 *
 * After a fork the child's copy is harmless: it polls nothing, writes nothing, and its close() closes no
 * more than the child's copy of the descriptor.
 */
#include "transport.h"

#include <stddef.h>
#include <structmember.h>

static PyObject *transport_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                               PyObject *Py_UNUSED(kwargs))
{
    struct module_state *state = wso_state_of_type(type);
    struct wso_transport *transport =
        state == NULL ? NULL : (struct wso_transport *)type->tp_alloc(type, 0);
    if (transport == NULL) {
        return NULL;
    }
    transport->state = state;
    transport->generation = atomic_load(&state->runtime->generation);
    transport->fd = -1;
    /* Until the constructor has run, it is like one that is lost. */
    transport->lost = transport->closing = true;
    transport->conn_lost = 1;
    if (wso_transport_limit(transport, Py_None, Py_None) < 0) {
        Py_DECREF(transport);
        return NULL;
    }
    return (PyObject *)transport;
}

struct arguments {
    PyObject *loop;
    PyObject *sock;
    PyObject *protocol;
    PyObject *extra;
    const char *role;
    int at_upgrade;
    PyObject *received;
    PyObject *read_ahead;
    long long read_ahead_each;
};

static int parse(struct module_state *state, PyObject *args, PyObject *kwargs,
                 struct arguments *given)
{
    static char *names[] = {"",           "",         "",           "",
                            "role",       "at_upgrade", "received", "read_ahead",
                            "read_ahead_each", NULL};
    *given = (struct arguments){.at_upgrade = -1, .read_ahead_each = -1};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO!|$spSO!L:Transport", names, &given->loop,
                                     &given->sock, &given->protocol, &PyDict_Type, &given->extra,
                                     &given->role, &given->at_upgrade, &given->received,
                                     state->read_ahead_type, &given->read_ahead,
                                     &given->read_ahead_each)) {
        return -1;
    }
    if (given->role == NULL || given->at_upgrade < 0 || given->received == NULL ||
        given->read_ahead == NULL || given->read_ahead_each < 0) {
        PyErr_SetString(PyExc_TypeError, "Transport() needs role, at_upgrade, received, read_ahead "
                                         "and a read_ahead_each of at least 0");
        return -1;
    }
    if (strcmp(given->role, "server") != 0 && strcmp(given->role, "client") != 0) {
        PyErr_SetString(PyExc_ValueError, "role must be 'server' or 'client'");
        return -1;
    }
    return 0;
}

/* The wire, with the bytes that were received before. */
static int open_wire(struct wso_transport *transport, const struct arguments *given)
{
    PyObject *fd = PyObject_CallMethodNoArgs(given->sock, transport->state->str_fileno);
    long number = fd == NULL ? -1 : PyLong_AsLong(fd);
    Py_XDECREF(fd);
    if (number < 0 || number > INT_MAX) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "the socket is closed");
        }
        return -1;
    }
    transport->fd = (int)number;
    struct wso_wire_options options = {
        .fd = transport->fd,
        .role = given->role[0] == 's' ? WSO_SERVER : WSO_CLIENT,
        .at_upgrade = given->at_upgrade,
        .pages = wso_read_ahead_pages(given->read_ahead),
        .read_ahead = (uint64_t)given->read_ahead_each,
    };
    if (options.pages == NULL) {
        return -1;
    }
    int status = wso_wire_new(&options, &transport->wire);
    if (status == WSO_OK && PyBytes_GET_SIZE(given->received) > 0) {
        status = wso_wire_feed(transport->wire,
                               (const uint8_t *)PyBytes_AS_STRING(given->received),
                               (size_t)PyBytes_GET_SIZE(given->received));
    }
    if (status != WSO_OK) {
        wso_raise(transport->state, status);
    }
    return status == WSO_OK ? 0 : -1;
}

/* A copy of the user's dictionary, with the socket. */
static PyObject *new_extra(struct wso_transport *transport, const struct arguments *given)
{
    PyObject *extra = PyDict_Copy(given->extra);
    PyObject *socket = PyObject_CallOneArg(transport->state->transport_socket, given->sock);
    if (extra == NULL || socket == NULL || PyDict_SetItemString(extra, "socket", socket) < 0) {
        Py_CLEAR(extra);
    }
    Py_XDECREF(socket);
    return extra;
}

static int make_scratch(struct module_state *state)
{
    if (state->scratch == NULL) {
        state->scratch = PyMem_RawMalloc(WSO_SCRATCH_SIZE);
    }
    if (state->scratch == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* The constructor has failed: the socket stays the caller's. */
static void undo(struct wso_transport *transport)
{
    PyObject *raised = wso_take_exception();
    transport->lost = transport->closing = true;
    transport->conn_lost = 1;
    if (transport->wire != NULL) {
        (void)wso_wire_retire(transport->wire, false);
        wso_wire_release(transport->wire);
        transport->wire = NULL;
    }
    Py_CLEAR(transport->sock);
    Py_CLEAR(transport->loop);
    Py_CLEAR(transport->protocol);
    wso_give_exception(raised);
}

static int transport_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    struct wso_transport *transport = wso_transport_of(self);
    struct module_state *state = transport->state;
    struct arguments given;
    if (transport->wire != NULL || wso_transport_foreign(transport)) {
        PyErr_SetString(PyExc_RuntimeError, "a Transport is made only once");
        return -1;
    }
    if (parse(state, args, kwargs, &given) < 0 || make_scratch(state) < 0 ||
        wso_transport_take_protocol(transport, given.protocol) < 0) {
        return -1;
    }
    Py_XSETREF(transport->extra, new_extra(transport, &given));
    Py_XSETREF(transport->context, PyContext_CopyCurrent());
    if (transport->extra == NULL || transport->context == NULL ||
        open_wire(transport, &given) < 0) {
        undo(transport);
        return -1;
    }
    transport->loop = Py_NewRef(given.loop);
    transport->lost = transport->closing = false;
    transport->conn_lost = 0;
    if (wso_transport_begin_soon(transport) < 0) {
        undo(transport);
        return -1;
    }
    transport->sock = Py_NewRef(given.sock);
    return 0;
}

static PyObject *transport_set_protocol(PyObject *self, PyObject *protocol)
{
    return wso_transport_take_protocol(wso_transport_of(self), protocol) < 0 ? NULL
                                                                              : Py_NewRef(Py_None);
}

static PyObject *transport_get_protocol(PyObject *self, PyObject *Py_UNUSED(unused))
{
    PyObject *protocol = wso_transport_of(self)->protocol;
    return Py_NewRef(protocol == NULL ? Py_None : protocol);
}

static PyObject *transport_is_closing(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(wso_transport_of(self)->closing);
}

static PyObject *transport_is_reading(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_transport *transport = wso_transport_of(self);
    return PyBool_FromLong(!transport->closing && !transport->paused);
}

static PyObject *transport_can_write_eof(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(unused))
{
    Py_RETURN_TRUE;
}

static PyObject *transport_repr(PyObject *self)
{
    struct wso_transport *transport = wso_transport_of(self);
    const char *state = transport->lost ? "closed " : transport->closing ? "closing " : "";
    PyObject *name = PyType_GetName(Py_TYPE(self));
    PyObject *text = NULL;
    if (name != NULL && transport->lost) {
        text = PyUnicode_FromFormat("<%U %sfd=%d>", name, state, transport->fd);
    } else if (name != NULL) {
        text = PyUnicode_FromFormat("<%U %sfd=%d read=%s write=<%s, bufsize=%zu>%s>", name, state,
                                    transport->fd, transport->reading ? "polling" : "idle",
                                    transport->writing ? "polling" : "idle",
                                    transport->news.unsent,
                                    transport->post == NULL ? "" : " guarded");
    }
    Py_XDECREF(name);
    return text;
}

static int transport_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct wso_transport *transport = wso_transport_of(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(transport->extra);
    Py_VISIT(transport->loop);
    Py_VISIT(transport->protocol);
    /* Not the socket: so the collector never ends it before the wire has let go of its descriptor. It
     * leads back to nothing. */
    Py_VISIT(transport->context);
    Py_VISIT(transport->on_dead);
    Py_VISIT(transport->high_water);
    Py_VISIT(transport->low_water);
    Py_VISIT(transport->rest);
    return 0;
}

static int transport_clear(PyObject *self)
{
    struct wso_transport *transport = wso_transport_of(self);
    /* A method that comes after this finds a lost connection. */
    wso_transport_give_up(transport);
    Py_CLEAR(transport->extra);
    Py_CLEAR(transport->loop);
    Py_CLEAR(transport->protocol);
    Py_CLEAR(transport->context);
    Py_CLEAR(transport->on_dead);
    Py_CLEAR(transport->rest);
    return 0;
}

static void transport_dealloc(PyObject *self)
{
    struct wso_transport *transport = wso_transport_of(self);
    if (PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (transport->weak_references != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    (void)transport_clear(self);
    Py_CLEAR(transport->high_water);
    Py_CLEAR(transport->low_water);
    if (transport->wire != NULL && !wso_transport_foreign(transport)) {
        wso_wire_release(transport->wire);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(transport_doc,
             "Transport(loop, sock, protocol, extra, /, *, role, at_upgrade, received, read_ahead,\n"
             "          read_ahead_each)\n--\n\n"
             "The native part of wsoffload.GuardedTransport. It owns the socket, which must not\n"
             "block, and begins to read in a callback of its own. connection_made is the caller's.");

PyDoc_STRVAR(start_doc,
             "_start($self, /, *, rsv1, max_message, max_fragment, ping_interval, ping_timeout,\n"
             "       max_stall, log, on_dead)\n--\n\n"
             "Guard the connection from now on. Times in seconds. Raises RuntimeError, OSError or\n"
             "MemoryError if it cannot be guarded; the transport works on.");

PyDoc_STRVAR(set_pings_doc, "_set_pings($self, ping_interval, ping_timeout, /)\n--\n\n"
                            "Other ping settings from now on, in seconds; None for none.");

PyDoc_STRVAR(counts_doc, "_counts($self, /)\n--\n\nWhat the guard did for the connection.");

PyDoc_STRVAR(notes_doc, "_take_notes($self, /)\n--\n\n"
                        "The guard's Pings and Pongs since the last call, as (sent, opcode, payload),\n"
                        "and how many more there were.");

static PyMethodDef transport_methods[] = {
    {"set_protocol", transport_set_protocol, METH_O, NULL},
    {"get_protocol", transport_get_protocol, METH_NOARGS, NULL},
    {"is_closing", transport_is_closing, METH_NOARGS, NULL},
    {"is_reading", transport_is_reading, METH_NOARGS, NULL},
    {"pause_reading", wso_transport_pause_reading, METH_NOARGS, NULL},
    {"resume_reading", wso_transport_resume_reading, METH_NOARGS, NULL},
    {"write", wso_transport_write, METH_O, NULL},
    {"writelines", wso_transport_writelines, METH_O, NULL},
    {"write_eof", wso_transport_write_eof, METH_NOARGS, NULL},
    {"can_write_eof", transport_can_write_eof, METH_NOARGS, NULL},
    {"set_write_buffer_limits", (PyCFunction)(void (*)(void))wso_transport_set_limits,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {"get_write_buffer_limits", wso_transport_limits, METH_NOARGS, NULL},
    {"get_write_buffer_size", wso_transport_buffer_size, METH_NOARGS, NULL},
    {"close", wso_transport_close, METH_NOARGS, NULL},
    {"abort", wso_transport_abort, METH_NOARGS, NULL},
    {"_start", (PyCFunction)(void (*)(void))wso_transport_start, METH_VARARGS | METH_KEYWORDS,
     start_doc},
    {"_set_pings", wso_transport_set_pings, METH_VARARGS, set_pings_doc},
    {"_counts", wso_transport_counts, METH_NOARGS, counts_doc},
    {"_take_notes", wso_transport_take_notes, METH_NOARGS, notes_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef transport_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct wso_transport, weak_references), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot transport_slots[] = {
    {Py_tp_doc, (void *)transport_doc},
    {Py_tp_new, transport_new},
    {Py_tp_init, transport_init},
    {Py_tp_methods, transport_methods},
    {Py_tp_members, transport_members},
    {Py_tp_repr, transport_repr},
    {Py_tp_traverse, transport_traverse},
    {Py_tp_clear, transport_clear},
    {Py_tp_finalize, wso_transport_finalize},
    {Py_tp_dealloc, transport_dealloc},
    {0, NULL},
};

static PyType_Spec transport_spec = {
    .name = "wsoffload._core.Transport",
    .basicsize = sizeof(struct wso_transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = transport_slots,
};

PyTypeObject *wso_transport_type_new(PyObject *module, PyObject *base)
{
    /* Our fields lie behind those of the base: its only one is the slot `_extra`. */
    if (!PyType_Check(base) || ((PyTypeObject *)base)->tp_basicsize !=
                                   (Py_ssize_t)offsetof(struct wso_transport, state)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "asyncio.Transport of this Python has other fields than the slot _extra, "
                        "which wsoffload does not know how to extend");
        return NULL;
    }
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &transport_spec, base);
}
