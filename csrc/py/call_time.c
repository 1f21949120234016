/* Timeouts and cancelling of a call, all on its loop's thread but for wso_call_unlink, which any
 * attached thread may call for a future of submit.
 */
#include "call.h"

PyObject *wso_call_timeout_error(struct wso_call *call, bool in_queue, bool was_queued)
{
    struct wso_caller *caller = call->caller;
    PyObject *seconds = PyFloat_FromDouble(in_queue ? caller->queue_timeout : caller->timeout);
    if (seconds == NULL) {
        return NULL;
    }
    const char *setting = in_queue ? "queue_timeout" : "timeout";
    const char *where = was_queued ? "it was still queued" : "it was running";
    const char *end = "call timed out";
    PyObject *text =
        caller->name == Py_None
            ? PyUnicode_FromFormat("%s: %s=%S s passed while %s", end, setting, seconds, where)
            : PyUnicode_FromFormat("'%S' %s: %s=%S s passed while %s", caller->name, end, setting,
                                   seconds, where);
    Py_DECREF(seconds);
    if (text == NULL) {
        return NULL;
    }
    PyObject *error = PyObject_CallOneArg(PyExc_TimeoutError, text);
    Py_DECREF(text);
    return error;
}

static void cancel_timer(struct module_state *state, PyObject *timer)
{
    if (timer == NULL) {
        return;
    }
    PyObject *answer = PyObject_CallMethodNoArgs(timer, state->str_cancel);
    if (answer == NULL) {
        PyErr_WriteUnraisable(timer);
    }
    Py_XDECREF(answer);
}

void wso_call_cancel_timers(struct wso_call *call)
{
    if (call->timer == NULL && call->queue_timer == NULL) {
        return;
    }
    PyObject *raised = PyErr_Occurred() ? wso_take_exception() : NULL;
    cancel_timer(call->pool->state, call->timer);
    cancel_timer(call->pool->state, call->queue_timer);
    if (raised != NULL) {
        wso_give_exception(raised);
    }
}

/* Ask the loop to call the future's _timed_out(in_queue) after `seconds`. */
static PyObject *start_timer(struct module_state *state, PyObject *loop, PyObject *future,
                             double seconds, bool in_queue)
{
    PyObject *method = PyObject_GetAttrString(future, "_timed_out");
    PyObject *delay = PyFloat_FromDouble(seconds);
    PyObject *timer = NULL;
    if (method != NULL && delay != NULL) {
        timer = PyObject_CallMethodObjArgs(loop, state->str_call_later, delay, method,
                                           in_queue ? Py_True : Py_False, NULL);
    }
    Py_XDECREF(method);
    Py_XDECREF(delay);
    return timer;
}

int wso_call_start_timers(struct wso_call *call, PyObject *loop)
{
    struct wso_caller *caller = call->caller;
    struct module_state *state = call->pool->state;
    if (caller->timeout >= 0) {
        call->timer = start_timer(state, loop, call->future, caller->timeout, false);
        if (call->timer == NULL) {
            return -1;
        }
    }
    if (caller->queue_timeout >= 0) {
        call->queue_timer = start_timer(state, loop, call->future, caller->queue_timeout, true);
        if (call->queue_timer == NULL) {
            return -1;
        }
    }
    return 0;
}

/* In the child of a fork a call of before is the parent's, and so is the lock of its pool. */
static bool is_of_parent(struct wso_call *call)
{
    return call->pool->generation != atomic_load(&call->pool->state->runtime->generation);
}

bool wso_call_cancel_waits(struct wso_call *call, PyObject *message)
{
    if (is_of_parent(call)) {
        return false;
    }
    if (call->ended || call->unwanted) {
        /* Its result is on the way; the future is cancelled first and then left alone. */
        return false;
    }
    call->unlinking = true;
    if (wso_pool_cancel(call->pool->calls, &call->job, WSO_ECANCELLED)) {
        return false;
    }
    call->unlinking = false;
    if (call->caller != NULL && call->caller->wait_on_cancel) {
        if (call->verdict != WSO_VERDICT_CANCEL) {
            /* Also if its time was over before: a cancelled task must see CancelledError. */
            call->verdict = WSO_VERDICT_CANCEL;
            call->message = Py_NewRef(message);
        }
        return true;
    }
    call->unwanted = true;
    wso_pool_abandon(call->pool->calls, &call->job);
    wso_call_cancel_timers(call);
    return false;
}

bool wso_call_unlink(struct wso_call *call)
{
    if (is_of_parent(call)) {
        return false;
    }
    call->unlinking = true;
    if (wso_pool_cancel(call->pool->calls, &call->job, WSO_ECANCELLED)) {
        return true;
    }
    call->unlinking = false;
    return false;
}

void wso_call_timed_out(struct wso_call *call, bool in_queue)
{
    if (is_of_parent(call) || call->ended || call->unwanted ||
        call->verdict != WSO_VERDICT_NONE) {
        return;
    }
    if (call->job.state == WSO_JOB_RUNNING) {
        if (in_queue) {
            return;
        }
        if (call->caller->wait_on_cancel) {
            call->verdict = WSO_VERDICT_TIMEOUT;
            return;
        }
    }
    bool queued = call->job.state != WSO_JOB_RUNNING;
    struct module_state *state = call->pool->state;
    PyObject *future = Py_NewRef(call->future);
    PyObject *error = wso_call_timeout_error(call, in_queue, queued);
    if (error == NULL) {
        error = wso_take_exception();
    }
    call->unlinking = true;
    if (!wso_pool_cancel(call->pool->calls, &call->job, WSO_ECANCELLED)) {
        call->unlinking = false;
        call->unwanted = true;
        wso_pool_abandon(call->pool->calls, &call->job);
        wso_call_cancel_timers(call);
    }
    (void)wso_settle(state, future, state->str_set_exception, error);
    Py_DECREF(error);
    Py_DECREF(future);
}
