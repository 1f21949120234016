/* The type Caller: a pool together with settings for the calls made through it. */
#include "module.h"

static struct wso_caller *caller_of(PyObject *self)
{
    return (struct wso_caller *)self;
}

PyDoc_STRVAR(caller_doc,
             "Caller(pool, timeout, queue_timeout, wait_on_cancel, name, future_type, /)\n--\n\n"
             "The native part of wsoffload.Caller. Timeouts are in seconds, negative for none.");

static PyObject *caller_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct module_state *state = wso_state_of_type(type);
    if (state == NULL) {
        return NULL;
    }
    PyObject *pool, *name, *future_type;
    double timeout, queue_timeout;
    int wait_on_cancel;
    static char *positional[] = {"", "", "", "", "", "", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!ddpOO!:Caller", positional,
                                     state->pool_type, &pool, &timeout, &queue_timeout,
                                     &wait_on_cancel, &name, &PyType_Type, &future_type)) {
        return NULL;
    }
    if (!PyType_IsSubtype((PyTypeObject *)future_type, state->future_type)) {
        PyErr_SetString(PyExc_TypeError, "future_type must be a subclass of _core.Future");
        return NULL;
    }
    struct wso_caller *caller = (struct wso_caller *)type->tp_alloc(type, 0);
    if (caller != NULL) {
        caller->state = state;
        caller->pool = (struct wso_pool_object *)Py_NewRef(pool);
        caller->timeout = timeout;
        caller->queue_timeout = queue_timeout;
        caller->wait_on_cancel = wait_on_cancel;
        caller->name = Py_NewRef(name);
        caller->future_type = Py_NewRef(future_type);
    }
    return (PyObject *)caller;
}

static int caller_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct wso_caller *caller = caller_of(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(caller->pool);
    Py_VISIT(caller->name);
    Py_VISIT(caller->future_type);
    return 0;
}

static int caller_clear(PyObject *self)
{
    struct wso_caller *caller = caller_of(self);
    Py_CLEAR(caller->pool);
    Py_CLEAR(caller->name);
    Py_CLEAR(caller->future_type);
    return 0;
}

static void caller_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)caller_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(run_doc, "run($self, function, /, *args, **kwargs)\n--\n\n"
                      "As Pool.run, with this caller's settings.");

static PyObject *caller_run(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    struct wso_caller *caller = caller_of(self);
    return wso_call_run(caller->pool, caller, args, nargs, kwnames);
}

static PyMethodDef caller_methods[] = {
    {"run", (PyCFunction)(void (*)(void))caller_run, METH_FASTCALL | METH_KEYWORDS, run_doc},
    {NULL, NULL, 0, NULL},
};

static PyObject *caller_pool(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(caller_of(self)->pool);
}

static PyGetSetDef caller_getset[] = {
    {"pool", caller_pool, NULL, "The pool that runs the calls.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot caller_slots[] = {
    {Py_tp_doc, (void *)caller_doc},
    {Py_tp_new, caller_new},
    {Py_tp_methods, caller_methods},
    {Py_tp_getset, caller_getset},
    {Py_tp_traverse, caller_traverse},
    {Py_tp_clear, caller_clear},
    {Py_tp_dealloc, caller_dealloc},
    {0, NULL},
};

PyType_Spec wso_caller_spec = {
    .name = "wsoffload._core.Caller",
    .basicsize = sizeof(struct wso_caller),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = caller_slots,
};
