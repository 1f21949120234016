/* The one way in which a future is handed its end.
 *
 * A future that is done already is left alone. One that cannot be handed its end, for want of memory,
 * is handed that error instead, so that whoever waits for it does not wait for ever. A Ctrl-C that
 * comes meanwhile is no error of the future's: it is left raised, for the loop to let out.
 */
#include "module.h"

/* Answers false, with the error raised, if the future was not handed anything. */
static bool hand(struct module_state *state, PyObject *future, PyObject *method, PyObject *value)
{
    PyObject *answer =
        value == NULL ? NULL : PyObject_CallMethodOneArg(future, method, value);
    if (answer == NULL && value != NULL && PyErr_ExceptionMatches(state->invalid_state_error)) {
        PyErr_Clear();
        return true;
    }
    Py_XDECREF(answer);
    return answer != NULL;
}

int wso_settle(struct module_state *state, PyObject *future, PyObject *method, PyObject *value)
{
    if (hand(state, future, method, value)) {
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyObject *error = wso_take_exception();
    int status = 0;
    if (!hand(state, future, state->str_set_exception, error)) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) {
            status = -1;
        } else {
            PyErr_WriteUnraisable(future);
        }
    }
    Py_DECREF(error);
    return status;
}
