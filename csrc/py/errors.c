/* The one translator from the core's statuses to Python exceptions, and from raised exceptions to
 * objects that can be handed to a future. */
#include "module.h"

static const struct {
    enum wso_kind kind;
    const char *text;
} statuses[] = {
#define WSO_AS_ROW(code, kind, text) [code] = {kind, text},
    WSO_STATUS_TABLE(WSO_AS_ROW)
#undef WSO_AS_ROW
};

static PyObject *type_of(struct module_state *state, enum wso_kind kind)
{
    switch (kind) {
    case WSO_KIND_MEMORY:
        return PyExc_MemoryError;
    case WSO_KIND_OS:
        return PyExc_OSError;
    case WSO_KIND_FULL:
        return state->queue_full;
    case WSO_KIND_DROPPED:
        return state->dropped;
    case WSO_KIND_BROKEN:
        return state->broken_pool;
    case WSO_KIND_CANCELLED:
        return state->cancelled_error;
    default:
        return PyExc_RuntimeError;
    }
}

PyObject *wso_exception(struct module_state *state, int status)
{
    return PyObject_CallFunction(type_of(state, statuses[status].kind), "s",
                                 statuses[status].text);
}

void wso_raise(struct module_state *state, int status)
{
    if (statuses[status].kind == WSO_KIND_OS) {
        /* errno says more than our text. */
        PyErr_SetFromErrno(PyExc_OSError);
        return;
    }
    PyErr_SetString(type_of(state, statuses[status].kind), statuses[status].text);
}

PyObject *wso_take_exception(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        (void)PyException_SetTraceback(value, traceback);
        Py_DECREF(traceback);
    }
    Py_XDECREF(type);
    return value;
#endif
}

void wso_give_exception(PyObject *exception)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exception);
#else
    PyErr_Restore(Py_NewRef(Py_TYPE(exception)), exception, PyException_GetTraceback(exception));
#endif
}

/* PEP 479's reason: thrown into a coroutine such an exception would end it as if it had returned, or
 * end the reader's loop as if the source had. */
static PyObject *instead_of(PyObject *raised, const char *caller)
{
    PyErr_Format(PyExc_RuntimeError, "the %s raised %s", caller, Py_TYPE(raised)->tp_name);
    PyObject *instead = wso_take_exception();
    PyException_SetCause(instead, Py_NewRef(raised));
    PyException_SetContext(instead, raised);
    return instead;
}

PyObject *wso_take_exception_for_future(void)
{
    PyObject *raised = wso_take_exception();
    bool unfit = PyErr_GivenExceptionMatches(raised, PyExc_StopIteration);
    return unfit ? instead_of(raised, "call") : raised;
}

PyObject *wso_take_exception_for_stream(void)
{
    PyObject *raised = wso_take_exception();
    bool unfit = PyErr_GivenExceptionMatches(raised, PyExc_StopIteration) ||
                 PyErr_GivenExceptionMatches(raised, PyExc_StopAsyncIteration);
    return unfit ? instead_of(raised, "source") : raised;
}
