/* The one way in which a future is handed its end.
 *
 * A future that is done already is left alone. One that cannot be handed its end, for want of memory,
 * is handed that error instead, so that whoever waits for it does not wait for ever.
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

void wso_settle(struct module_state *state, PyObject *future, PyObject *method, PyObject *value)
{
    if (hand(state, future, method, value)) {
        return;
    }
    PyObject *error = wso_take_exception();
    if (!hand(state, future, state->str_set_exception, error)) {
        PyErr_WriteUnraisable(future);
    }
    Py_DECREF(error);
}
