/* The module wsoffload._core: its state, its types, and how it is set up in each interpreter. */
#include "module.h"

#include <stddef.h>

static struct PyModuleDef module_def;

struct module_state *wso_state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &module_def);
    return module == NULL ? NULL : PyModule_GetState(module);
}

/* Every object reference of the state, for setting up, traversing and clearing alike. */
#define STATE_OBJECTS(X)                                                                           \
    X(pool_type)                                                                                   \
    X(caller_type)                                                                                 \
    X(closing_type)                                                                                \
    X(future_type)                                                                                 \
    X(link_type)                                                                                   \
    X(hub_type)                                                                                    \
    X(stream_type)                                                                                 \
    X(ready_type)                                                                                  \
    X(transport_type)                                                                              \
    X(read_ahead_type)                                                                             \
    X(queue_full)                                                                                  \
    X(dropped)                                                                                     \
    X(broken_pool)                                                                                 \
    X(cancelled_error)                                                                             \
    X(invalid_state_error)                                                                         \
    X(get_running_loop)                                                                            \
    X(future_cancel)                                                                               \
    X(submit_future)                                                                               \
    X(no_arguments)                                                                                \
    X(buffered_protocol)                                                                           \
    X(transport_socket)                                                                            \
    X(logger)                                                                                      \
    X(rescue_report)

#define STATE_STRINGS(X)                                                                           \
    X(add_reader)                                                                                  \
    X(add_writer)                                                                                  \
    X(buffer_updated)                                                                              \
    X(call_exception_handler)                                                                      \
    X(call_later)                                                                                  \
    X(call_soon)                                                                                   \
    X(cancel)                                                                                      \
    X(close)                                                                                       \
    X(connection_lost)                                                                             \
    X(create_future)                                                                               \
    X(data_received)                                                                               \
    X(debug)                                                                                       \
    X(done)                                                                                        \
    X(eof_received)                                                                                \
    X(fileno)                                                                                      \
    X(get_buffer)                                                                                  \
    X(get_debug)                                                                                   \
    X(get_loop)                                                                                    \
    X(is_closed)                                                                                   \
    X(new_worker)                                                                                  \
    X(pause_writing)                                                                               \
    X(remove_reader)                                                                               \
    X(remove_writer)                                                                               \
    X(resume_writing)                                                                              \
    X(set_exception)                                                                               \
    X(set_result)                                                                                  \
    X(set_running_or_notify_cancel)

static int set_up_strings(struct module_state *state)
{
#define INTERN(name)                                                                               \
    state->str_##name = PyUnicode_InternFromString(#name);                                         \
    if (state->str_##name == NULL) {                                                               \
        return -1;                                                                                 \
    }
    STATE_STRINGS(INTERN)
#undef INTERN
    /* The one method of ours among them has a name that subclasses are not to meet. */
    Py_SETREF(state->str_new_worker, PyUnicode_InternFromString("_new_worker"));
    return state->str_new_worker == NULL ? -1 : 0;
}

/* A type of ours; public under `name` where that is not NULL. */
static int add_type(PyObject *module, PyTypeObject **slot, PyType_Spec *spec, bool visible)
{
    *slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (*slot == NULL) {
        return -1;
    }
    return visible ? PyModule_AddType(module, *slot) : 0;
}

static int set_up_types(PyObject *module, struct module_state *state)
{
    if (add_type(module, &state->pool_type, &wso_pool_spec, true) < 0 ||
        add_type(module, &state->caller_type, &wso_caller_spec, true) < 0 ||
        add_type(module, &state->closing_type, &wso_closing_spec, true) < 0 ||
        add_type(module, &state->link_type, &wso_link_spec, true) < 0 ||
        add_type(module, &state->stream_type, &wso_stream_spec, true) < 0 ||
        add_type(module, &state->read_ahead_type, &wso_read_ahead_spec, true) < 0 ||
        add_type(module, &state->hub_type, &wso_hub_spec, false) < 0 ||
        add_type(module, &state->ready_type, &wso_ready_spec, false) < 0) {
        return -1;
    }
    return 0;
}

static PyObject *import_attribute(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *value = module == NULL ? NULL : PyObject_GetAttrString(module, name);
    Py_XDECREF(module);
    return value;
}

/* What futures raise that are done already: those of asyncio, and those of concurrent.futures. */
static PyObject *invalid_state_errors(void)
{
    PyObject *of_loops = import_attribute("asyncio", "InvalidStateError");
    PyObject *of_threads = import_attribute("concurrent.futures", "InvalidStateError");
    PyObject *both =
        of_loops == NULL || of_threads == NULL ? NULL : PyTuple_Pack(2, of_loops, of_threads);
    Py_XDECREF(of_loops);
    Py_XDECREF(of_threads);
    return both;
}

/* What the binding takes from asyncio and concurrent.futures. */
static int set_up_imports(PyObject *module, struct module_state *state)
{
    state->cancelled_error = import_attribute("asyncio", "CancelledError");
    state->invalid_state_error = invalid_state_errors();
    state->get_running_loop = import_attribute("asyncio.events", "_get_running_loop");
    state->broken_pool = import_attribute("concurrent.futures.thread", "BrokenThreadPool");
    state->no_arguments = PyTuple_New(0);
    PyObject *future = import_attribute("asyncio", "Future");
    if (state->cancelled_error == NULL || state->invalid_state_error == NULL ||
        state->get_running_loop == NULL || state->broken_pool == NULL ||
        state->no_arguments == NULL || future == NULL) {
        Py_XDECREF(future);
        return -1;
    }
    state->future_cancel = PyObject_GetAttr(future, state->str_cancel);
    state->future_type = wso_future_type_new(module, state, future);
    Py_DECREF(future);
    if (state->future_cancel == NULL || state->future_type == NULL) {
        return -1;
    }
    return PyModule_AddType(module, state->future_type);
}

/* What the transport takes from asyncio. */
static int set_up_transport(PyObject *module, struct module_state *state)
{
    state->buffered_protocol = import_attribute("asyncio", "BufferedProtocol");
    state->transport_socket = import_attribute("asyncio.trsock", "TransportSocket");
    state->logger = import_attribute("asyncio.log", "logger");
    PyObject *base = import_attribute("asyncio", "Transport");
    if (state->buffered_protocol == NULL || state->transport_socket == NULL ||
        state->logger == NULL || base == NULL) {
        Py_XDECREF(base);
        return -1;
    }
    state->transport_type = wso_transport_type_new(module, base);
    Py_DECREF(base);
    return state->transport_type == NULL ? -1 : PyModule_AddType(module, state->transport_type);
}

static int set_up_exceptions(PyObject *module, struct module_state *state)
{
    state->queue_full = PyErr_NewExceptionWithDoc(
        "wsoffload.QueueFull", "A pool with a bound has no room for one more call.",
        PyExc_RuntimeError, NULL);
    if (state->queue_full == NULL ||
        PyModule_AddObjectRef(module, "QueueFull", state->queue_full) < 0) {
        return -1;
    }
    state->dropped = PyErr_NewExceptionWithDoc(
        "wsoffload.Dropped", "A queued call was dropped to make room for a newer one.",
        state->queue_full, NULL);
    if (state->dropped == NULL) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "Dropped", state->dropped);
}

static int module_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    wso_list_init(&state->hubs);
    /* Outlives the module: see module.h. */
    state->runtime = PyMem_RawCalloc(1, sizeof *state->runtime);
    if (state->runtime == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    state->runtime->interpreter = PyInterpreterState_Get();
    state->runtime->is_main = state->runtime->interpreter == PyInterpreterState_Main();
    wso_list_init(&state->runtime->pools);
    if (set_up_strings(state) < 0 || set_up_types(module, state) < 0 ||
        set_up_imports(module, state) < 0 || set_up_transport(module, state) < 0 ||
        set_up_exceptions(module, state) < 0) {
        return -1;
    }
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct module_state *state = PyModule_GetState(module);
#define VISIT(name) Py_VISIT(state->name);
    STATE_OBJECTS(VISIT)
#undef VISIT
    return 0;
}

static int module_clear(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
#define CLEAR(name) Py_CLEAR(state->name);
    STATE_OBJECTS(CLEAR)
#undef CLEAR
#define CLEAR(name) Py_CLEAR(state->str_##name);
    STATE_STRINGS(CLEAR)
#undef CLEAR
    return 0;
}

static void module_free(void *module)
{
    struct module_state *state = PyModule_GetState(module);
    (void)module_clear(module);
    PyMem_RawFree(state->scratch);
    if (state->runtime != NULL) {
        wso_guard_forget(state->runtime);
    }
}

PyDoc_STRVAR(set_submit_future_doc, "_set_submit_future(future_type, /)\n--\n\n"
                                    "The class of the futures that submit() returns.");

static PyObject *set_submit_future(PyObject *module, PyObject *type)
{
    struct module_state *state = PyModule_GetState(module);
    if (!PyType_Check(type) || !PyType_IsSubtype((PyTypeObject *)type, state->link_type)) {
        PyErr_SetString(PyExc_TypeError, "a subclass of _core.Link is needed");
        return NULL;
    }
    Py_XSETREF(state->submit_future, Py_NewRef(type));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(check_callable_doc,
             "_check_callable(function, caller, /)\n--\n\n"
             "Raise TypeError, naming the caller, unless the function can run on a worker.");

static PyObject *check_callable(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *function;
    const char *caller;
    if (!PyArg_ParseTuple(args, "Os:_check_callable", &function, &caller) ||
        !wso_check_callable(function, caller)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(check_cancelled_doc,
             "check_cancelled()\n--\n\n"
             "Inside a job: raise asyncio.CancelledError if nobody waits for the job any more,\n"
             "because it was cancelled, timed out, its stream was left, its loop was closed, or\n"
             "its pool was shut down with cancel_futures=True. RuntimeError outside a job.");

PyDoc_STRVAR(leave_doc, "_leave()\n--\n\n"
                        "The interpreter ends: wait for what was submitted, leave the rest.");

PyDoc_STRVAR(end_guard_doc, "_end_guard()\n--\n\n"
                            "The threads that ran event loops have ended: guard nothing any more.");

PyDoc_STRVAR(after_fork_doc, "_after_fork()\n--\n\n"
                             "This is the child of a fork: nothing made so far is ours.");

PyDoc_STRVAR(set_rescue_report_doc,
             "_set_rescue_report(function, /)\n--\n\n"
             "What is called after a stall with a list of (transport, seconds, Pings answered, Pings\n"
             "sent, bytes read), on the loop's thread; None for nothing.");

static PyMethodDef module_methods[] = {
    {"check_cancelled", wso_check_cancelled, METH_NOARGS, check_cancelled_doc},
    {"_check_callable", check_callable, METH_VARARGS, check_callable_doc},
    {"_set_submit_future", set_submit_future, METH_O, set_submit_future_doc},
    {"_set_rescue_report", wso_set_rescue_report, METH_O, set_rescue_report_doc},
    {"_leave", wso_leave, METH_NOARGS, leave_doc},
    {"_end_guard", wso_end_guard, METH_NOARGS, end_guard_doc},
    {"_after_fork", wso_after_fork, METH_NOARGS, after_fork_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "wsoffload._core",
    .m_doc = "The native part of wsoffload.",
    .m_size = sizeof(struct module_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&module_def);
}
