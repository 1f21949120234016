/* The futures that carry a call: a subclass of asyncio.Future for `run`, and a base class for the
 * futures of `submit`.
 *
 * Both know the call that will settle them, so that cancelling takes the call off the queue. The
 * pointer is borrowed: the call owns its future and clears the pointer before it goes.
 */
#include "module.h"

#include <stddef.h>

struct wso_call **wso_future_call(struct module_state *state, PyObject *future)
{
    return (struct wso_call **)(void *)((char *)future + state->future_offset);
}

PyObject *wso_future_base_cancel(struct module_state *state, PyObject *const *args,
                                 Py_ssize_t nargs, PyObject *kwnames)
{
    return PyObject_Vectorcall(state->future_cancel, args, (size_t)nargs, kwnames);
}

/* The message of cancel(msg=None), borrowed. Raises and answers NULL for other arguments, before
 * anything is cancelled. */
static PyObject *message_of(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (nargs + named > 1) {
        PyErr_SetString(PyExc_TypeError, "cancel() takes at most one argument (msg)");
        return NULL;
    }
    if (named == 1 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "msg") != 0) {
        PyErr_Format(PyExc_TypeError, "cancel() takes no argument %R, only msg",
                     PyTuple_GET_ITEM(kwnames, 0));
        return NULL;
    }
    return nargs + named == 1 ? args[0] : Py_None;
}

PyDoc_STRVAR(cancel_doc, "cancel($self, /, msg=None)\n--\n\n"
                         "Cancel the call as its pool's settings say; see asyncio.Future.cancel.\n\n"
                         "A queued call never runs. A running one goes on: with\n"
                         "on_cancel=\"abandon\" the future is cancelled at once, with\n"
                         "on_cancel=\"wait\" when the call has ended.");

static PyObject *future_cancel(PyObject *self, PyTypeObject *defining, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *kwnames)
{
    struct module_state *state = PyType_GetModuleState(defining);
    PyObject *message = message_of(args, nargs, kwnames);
    if (message == NULL) {
        return NULL;
    }
    struct wso_call *call = *wso_future_call(state, self);
    if (call != NULL && wso_call_cancel_waits(call, message)) {
        Py_RETURN_TRUE;
    }
    PyObject *stack[] = {self, message};
    return wso_future_base_cancel(state, stack, 2, NULL);
}

static PyObject *future_timed_out(PyObject *self, PyTypeObject *defining, PyObject *const *args,
                                  Py_ssize_t nargs, PyObject *Py_UNUSED(kwnames))
{
    struct module_state *state = PyType_GetModuleState(defining);
    struct wso_call *call = *wso_future_call(state, self);
    if (call != NULL) {
        wso_call_timed_out(call, nargs == 1 && args[0] == Py_True);
        if (PyErr_Occurred()) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

static PyMethodDef future_methods[] = {
    {"cancel", (PyCFunction)(void (*)(void))future_cancel,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, cancel_doc},
    {"_timed_out", (PyCFunction)(void (*)(void))future_timed_out,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

/* The nearest base that is not ours; instances may be of a subclass made in Python. */
static PyTypeObject *base_of(PyObject *self, traverseproc ours)
{
    PyTypeObject *base = Py_TYPE(self);
    while (base->tp_traverse != ours) {
        base = base->tp_base;
    }
    while (base->tp_traverse == ours) {
        base = base->tp_base;
    }
    return base;
}

static int future_traverse(PyObject *self, visitproc visit, void *arg)
{
    PyTypeObject *base = base_of(self, future_traverse);
    if (!(base->tp_flags & Py_TPFLAGS_HEAPTYPE)) {
        /* A static base does not visit the type of its heap subclass (Python 3.11). */
        Py_VISIT(Py_TYPE(self));
    }
    return base->tp_traverse(self, visit, arg);
}

static int future_clear(PyObject *self)
{
    return base_of(self, future_traverse)->tp_clear(self);
}

PyTypeObject *wso_future_type_new(PyObject *module, struct module_state *state, PyObject *base)
{
    PyTypeObject *base_type = (PyTypeObject *)base;
    size_t align = _Alignof(struct wso_call *);
    size_t offset = ((size_t)base_type->tp_basicsize + align - 1) / align * align;
    state->future_offset = (Py_ssize_t)offset;
    PyType_Slot slots[] = {
        {Py_tp_doc, (void *)"The future of a call that a wsoffload pool runs."},
        {Py_tp_methods, future_methods},
        {Py_tp_traverse, future_traverse},
        {Py_tp_clear, future_clear},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = "wsoffload._core.Future",
        .basicsize = (int)(offset + sizeof(struct wso_call *)),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
        .slots = slots,
    };
    PyObject *bases = PyTuple_Pack(1, base);
    if (bases == NULL) {
        return NULL;
    }
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, bases);
    Py_DECREF(bases);
    return (PyTypeObject *)type;
}

PyDoc_STRVAR(unlink_doc, "_unlink($self, /)\n--\n\n"
                         "Take the call off the queue, because its future was cancelled. False if\n"
                         "it was on none.");

static PyObject *link_unlink(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_call *call = ((struct wso_link_object *)self)->call;
    return PyBool_FromLong(call != NULL && wso_call_unlink(call));
}

static int link_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void link_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef link_methods[] = {
    {"_unlink", link_unlink, METH_NOARGS, unlink_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot link_slots[] = {
    {Py_tp_doc, (void *)"What a future of concurrent.futures needs to know its call."},
    {Py_tp_methods, link_methods},
    {Py_tp_traverse, link_traverse},
    {Py_tp_dealloc, link_dealloc},
    {0, NULL},
};

PyType_Spec wso_link_spec = {
    .name = "wsoffload._core.Link",
    .basicsize = sizeof(struct wso_link_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = link_slots,
};
