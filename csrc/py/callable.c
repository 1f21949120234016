/* The job that runs a Python callable, for `run` (settled by its event loop) and for `submit`
 * (settled by the worker): what happens on the worker, and what becomes of the future.
 *
 * Ownership: a call belongs to whoever has the job (job.h), afterwards to its loop's mailbox, and is
 * freed attached. It owns its future; the future borrows it. Its Python references are touched
 * attached only. A call of `run` is settled, timed out and cancelled on its loop's thread.
 *
 * Whoever sees `ended` false while attached knows that the worker is inside the callable, because a
 * worker keeps the GIL from taking a job to its start and from its return to its `done`; the one
 * place in between where it lets go looks at `unwanted` afterwards.
 */
#include "call.h"

static struct wso_call *call_of(struct wso_job *job)
{
    return WSO_ITEM(job, struct wso_call, job);
}

static void forget_future(struct wso_call *call)
{
    if (call->kind == WSO_CALL_RUN) {
        *wso_future_call(call->pool->state, call->future) = NULL;
    } else {
        ((struct wso_link_object *)call->future)->call = NULL;
    }
}

void wso_call_free(struct wso_call *call)
{
    if (call->future != NULL) {
        forget_future(call);
    }
    if (call->mailbox != NULL) {
        wso_mailbox_release(call->mailbox);
    }
    PyObject *owned[] = {
        call->function, call->args,        call->kwargs,  call->context,
        call->future,   call->outcome,     call->message, call->timer,
        call->queue_timer, (PyObject *)call->caller, (PyObject *)call->pool,
    };
    /* Freed first: dropping the references can run any code. */
    PyMem_Free(call);
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        Py_XDECREF(owned[i]);
    }
}

static bool call_is_unwanted(struct wso_job *job)
{
    struct wso_call *call = call_of(job);
    if (call->unwanted || call->verdict != WSO_VERDICT_NONE || call->pool->cancelling) {
        return true;
    }
    if (call->kind == WSO_CALL_SUBMIT) {
        return false;
    }
    struct module_state *state = call->pool->state;
    PyObject *loop = PyObject_CallMethodNoArgs(call->future, state->str_get_loop);
    PyObject *closed = loop == NULL ? NULL : PyObject_CallMethodNoArgs(loop, state->str_is_closed);
    bool is_closed = closed != NULL && PyObject_IsTrue(closed) == 1;
    Py_XDECREF(loop);
    Py_XDECREF(closed);
    return is_closed;
}

static PyObject *call_function(struct wso_call *call)
{
    if (call->context != NULL && PyContext_Enter(call->context) < 0) {
        return NULL;
    }
    PyObject *result = PyObject_Call(call->function, call->args, call->kwargs);
    if (call->context != NULL && PyContext_Exit(call->context) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

/* Tell a future of submit that it is no longer pending: 0 if it was cancelled, which those who wait
 * for it learn by this; -1 with an error raised. */
static int tell_running(struct wso_call *call)
{
    struct module_state *state = call->pool->state;
    PyObject *answer =
        PyObject_CallMethodNoArgs(call->future, state->str_set_running_or_notify_cancel);
    if (answer == NULL) {
        return -1;
    }
    int yes = answer == Py_True;
    Py_DECREF(answer);
    return yes;
}

static void release_arguments(struct wso_call *call)
{
    Py_CLEAR(call->function);
    Py_CLEAR(call->args);
    Py_CLEAR(call->kwargs);
    Py_CLEAR(call->context);
}

void wso_call_run_job(struct wso_job *job)
{
    struct wso_call *call = call_of(job);
    struct wso_py_thread *self = wso_py_thread_self();
    wso_py_thread_enter_job(self, job, call_is_unwanted);
    /* Either may have come about where the GIL was offered just now. */
    int start = !call->unwanted && call->verdict == WSO_VERDICT_NONE;
    if (start && call->kind == WSO_CALL_SUBMIT) {
        start = tell_running(call);
        call->unwanted = start == 0;
    }
    call->outcome = start > 0 ? call_function(call) : NULL;
    if (call->outcome == NULL && start != 0) {
        call->failed = true;
        call->outcome = wso_take_exception_for_future();
    }
    wso_py_thread_leave_job(self);
    /* Dropping arguments can run any code, also code that cancels: it must find the call ended. */
    call->ended = true;
    release_arguments(call);
}

static void settle(struct wso_call *call, PyObject *method, PyObject *value)
{
    int status = wso_settle(call->pool->state, call->future, method, value);
    if (status < 0 && call->kind == WSO_CALL_SUBMIT) {
        /* There is no loop to let it out of. */
        PyErr_WriteUnraisable(call->future);
    }
}

static void settle_with_exception(struct wso_call *call, PyObject *exception)
{
    settle(call, call->pool->state->str_set_exception, exception);
    Py_XDECREF(exception);
}

static void settle_cancelled(struct wso_call *call)
{
    struct module_state *state = call->pool->state;
    PyObject *answer;
    if (call->kind == WSO_CALL_RUN) {
        PyObject *stack[] = {call->future, call->message == NULL ? Py_None : call->message};
        answer = wso_future_base_cancel(state, stack, 2, NULL);
    } else {
        answer = PyObject_CallMethodNoArgs(call->future, state->str_cancel);
        if (answer == Py_True) {
            /* wait() and as_completed() go by this. */
            Py_SETREF(answer, PyObject_CallMethodNoArgs(
                                  call->future, state->str_set_running_or_notify_cancel));
        }
    }
    if (answer == NULL) {
        PyErr_WriteUnraisable(call->future);
    }
    Py_XDECREF(answer);
}

/* The job's own exception, where something else became of the future. One that check_cancelled()
 * raised says only what is known. */
static void report_exception(struct wso_call *call)
{
    struct module_state *state = call->pool->state;
    if (!call->failed || PyErr_GivenExceptionMatches(call->outcome, state->cancelled_error)) {
        return;
    }
    PyObject *loop = PyObject_CallMethodNoArgs(call->future, state->str_get_loop);
    PyObject *context = loop == NULL ? NULL
                                     : Py_BuildValue("{s:s,s:O,s:O}", "message",
                                                     "a call raised after it was given up",
                                                     "exception", call->outcome, "future",
                                                     call->future);
    PyObject *answer =
        context == NULL
            ? NULL
            : PyObject_CallMethodOneArg(loop, state->str_call_exception_handler, context);
    if (answer == NULL) {
        PyErr_WriteUnraisable(call->future);
    }
    Py_XDECREF(loop);
    Py_XDECREF(context);
    Py_XDECREF(answer);
}

static void settle_run(struct wso_call *call)
{
    struct module_state *state = call->pool->state;
    if (call->unwanted) {
        return;
    }
    if (call->verdict == WSO_VERDICT_CANCEL) {
        report_exception(call);
        settle_cancelled(call);
    } else if (call->verdict == WSO_VERDICT_TIMEOUT) {
        report_exception(call);
        settle_with_exception(call, wso_call_timeout_error(call, false, false));
    } else if (call->status == WSO_OK) {
        settle(call, call->failed ? state->str_set_exception : state->str_set_result,
               call->outcome);
    } else if (call->status == WSO_ECANCELLED) {
        settle_cancelled(call);
    } else {
        settle_with_exception(call, wso_exception(state, call->status));
    }
}

/* On the loop's thread. */
void wso_call_deliver(struct wso_mail *mail)
{
    struct wso_call *call = WSO_ITEM(mail, struct wso_call, mail);
    forget_future(call);
    wso_call_cancel_timers(call);
    settle_run(call);
    wso_call_free(call);
}

void wso_call_drop(struct wso_mail *mail)
{
    wso_call_free(WSO_ITEM(mail, struct wso_call, mail));
}

/* `done` of a call of run: to its loop, or, if that is gone, to nobody. */
void wso_call_run_done(struct wso_job *job, int status)
{
    struct wso_call *call = call_of(job);
    call->status = (unsigned char)status;
    call->ended = true;
    if (call->unlinking) {
        /* Its own future took it off the queue, on the loop's thread. */
        wso_call_cancel_timers(call);
        wso_call_free(call);
        return;
    }
    struct module_state *state = call->pool->state;
    struct wso_mailbox *mailbox = call->mailbox;
    /* Once posted, the call is its loop's: rung through a share of our own. */
    (void)wso_mailbox_share(mailbox);
    if (wso_mailbox_post(mailbox, &call->mail) == WSO_OK) {
        wso_py_thread_ring_later(mailbox);
    } else {
        state->dropped_results++;
        wso_call_free(call);
    }
    wso_mailbox_release(mailbox);
}

/* `done` of a call of submit: settled here and now. */
void wso_call_submit_done(struct wso_job *job, int status)
{
    struct wso_call *call = call_of(job);
    struct module_state *state = call->pool->state;
    call->ended = true;
    if (call->unlinking || call->unwanted) {
        wso_call_free(call);
        return;
    }
    forget_future(call);
    if (status == WSO_OK) {
        settle(call, call->failed ? state->str_set_exception : state->str_set_result,
               call->outcome);
    } else if (status == WSO_ECANCELLED) {
        settle_cancelled(call);
    } else if (tell_running(call) != 0) {
        PyErr_Clear();
        settle_with_exception(call, wso_exception(state, status));
    }
    wso_call_free(call);
    if (status == WSO_OK) {
        wso_py_thread_end_if_forked();
    }
}

