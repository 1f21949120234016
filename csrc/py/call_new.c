/* How a call comes to be: the checks, the arguments, the future, and the way into the pool, for
 * `run` and for `submit`.
 */
#include "call.h"

bool wso_check_callable(PyObject *function, const char *caller)
{
    if (!PyCallable_Check(function)) {
        PyErr_Format(PyExc_TypeError, "%s: the first argument must be callable, got %R", caller,
                     function);
        return false;
    }
    PyObject *plain = PyMethod_Check(function) ? PyMethod_GET_FUNCTION(function) : function;
    if (PyFunction_Check(plain)) {
        int flags = ((PyCodeObject *)PyFunction_GET_CODE(plain))->co_flags;
        if (flags & (CO_COROUTINE | CO_ASYNC_GENERATOR)) {
            PyErr_Format(PyExc_TypeError,
                         "%s: %R is an async function: await it on the event loop, or pass a "
                         "plain function",
                         caller, function);
            return false;
        }
    }
    return true;
}

static bool pack_arguments(struct wso_call *call, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames)
{
    call->function = Py_NewRef(args[0]);
    call->args = PyTuple_New(nargs - 1);
    if (call->args == NULL) {
        return false;
    }
    for (Py_ssize_t i = 1; i < nargs; i++) {
        PyTuple_SET_ITEM(call->args, i - 1, Py_NewRef(args[i]));
    }
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (named == 0) {
        return true;
    }
    call->kwargs = PyDict_New();
    for (Py_ssize_t i = 0; call->kwargs != NULL && i < named; i++) {
        if (PyDict_SetItem(call->kwargs, PyTuple_GET_ITEM(kwnames, i), args[nargs + i]) < 0) {
            return false;
        }
    }
    return call->kwargs != NULL;
}

static struct wso_call *new_call(struct wso_pool_object *pool, struct wso_caller *caller,
                                 enum wso_call_kind kind)
{
    struct wso_call *call = PyMem_Calloc(1, sizeof *call);
    if (call == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    call->kind = (unsigned char)kind;
    call->job.run = wso_call_run_job;
    call->job.done = kind == WSO_CALL_RUN ? wso_call_run_done : wso_call_submit_done;
    call->job.droppable = true;
    call->job.kept = kind == WSO_CALL_SUBMIT;
    call->mail.deliver = wso_call_deliver;
    call->mail.drop = wso_call_drop;
    call->pool = (struct wso_pool_object *)Py_NewRef(pool);
    call->caller = (struct wso_caller *)Py_XNewRef(caller);
    return call;
}

/* The checks that `run` and `submit` share. */
static bool accepts(struct wso_pool_object *pool, PyObject *const *args, Py_ssize_t nargs,
                    const char *caller)
{
    if (nargs == 0) {
        PyErr_Format(PyExc_TypeError, "%s needs a callable as its first argument", caller);
        return false;
    }
    return wso_pool_usable(pool) && wso_check_callable(args[0], caller);
}

PyObject *wso_call_run(struct wso_pool_object *pool, struct wso_caller *caller,
                       PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    struct module_state *state = pool->state;
    if (!accepts(pool, args, nargs, "run()")) {
        return NULL;
    }
    struct wso_hub *hub = wso_hub_of_running_loop(state, "run()");
    if (hub == NULL) {
        return NULL;
    }
    struct wso_call *call = new_call(pool, caller, WSO_CALL_RUN);
    if (call == NULL) {
        return NULL;
    }
    if (!pack_arguments(call, args, nargs, kwnames)) {
        goto fail;
    }
    call->context = PyContext_CopyCurrent();
    if (call->context == NULL) {
        goto fail;
    }
    PyObject *type = caller == NULL ? (PyObject *)state->future_type : caller->future_type;
    PyObject *future = PyObject_Vectorcall(type, &hub->loop, 0, state->loop_keyword);
    if (future == NULL) {
        goto fail;
    }
    call->future = future;
    call->mailbox = wso_mailbox_share(hub->mailbox);
    *wso_future_call(state, future) = call;
    /* Timers come before the job, so that an error still finds it ours. */
    if (caller != NULL && wso_call_start_timers(call, hub->loop) < 0) {
        goto fail;
    }
    Py_INCREF(future);
    wso_pool_set_stack_size(pool->calls, PyThread_get_stacksize());
    int status = wso_pool_submit(pool->calls, &call->job, WSO_ADMIT_BY_POLICY, NULL);
    if (status == WSO_OK) {
        return future;
    }
    Py_DECREF(future);
    wso_pool_raise(pool, status);
fail:
    wso_call_cancel_timers(call);
    wso_call_free(call);
    return NULL;
}

/* Wait, without the GIL, until the job is admitted. */
static int await_admission(struct wso_pool_object *pool, struct wso_call *call,
                           struct wso_waiter *waiter)
{
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = wso_pool_await_admission(pool->calls, &call->job, waiter);
    Py_END_ALLOW_THREADS
    return status;
}

/* Submit from a plain thread, which may block. A job that a signal handler interrupts is taken back,
 * and stands in line again if the handler raised nothing. */
static int submit_blocking(struct wso_pool_object *pool, struct wso_call *call)
{
    for (;;) {
        struct wso_waiter waiter;
        int status = wso_waiter_init(&waiter);
        if (status != WSO_OK) {
            return status;
        }
        status = wso_pool_submit(pool->calls, &call->job, WSO_ADMIT_BY_POLICY, &waiter.turn);
        if (status == WSO_OK) {
            status = await_admission(pool, call, &waiter);
        }
        wso_waiter_destroy(&waiter);
        if (status != WSO_EINTR || PyErr_CheckSignals() < 0) {
            return status;
        }
    }
}

static int submit_by_rule(struct wso_pool_object *pool, struct wso_call *call)
{
    struct module_state *state = pool->state;
    struct wso_py_thread *self = wso_py_thread_self();
    int loop_here = wso_loop_runs_here(state);
    if (loop_here < 0) {
        return WSO_EINTR;
    }
    wso_pool_set_stack_size(pool->calls, PyThread_get_stacksize());
    if (loop_here || (self != NULL && self->pool == pool->calls)) {
        /* A loop must not block, and a worker that waits for a worker could wait for itself. */
        call->job.droppable = false;
        return wso_pool_submit(pool->calls, &call->job, WSO_ADMIT_ALWAYS, NULL);
    }
    if (pool->when_full == WSO_WHEN_FULL_WAIT) {
        return submit_blocking(pool, call);
    }
    return wso_pool_submit(pool->calls, &call->job, WSO_ADMIT_BY_POLICY, NULL);
}

PyObject *wso_call_submit(struct wso_pool_object *pool, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    struct module_state *state = pool->state;
    if (!accepts(pool, args, nargs, "submit()")) {
        return NULL;
    }
    struct wso_call *call = new_call(pool, NULL, WSO_CALL_SUBMIT);
    if (call == NULL) {
        return NULL;
    }
    if (!pack_arguments(call, args, nargs, kwnames)) {
        goto fail;
    }
    PyObject *future = PyObject_CallNoArgs(state->submit_future);
    if (future == NULL) {
        goto fail;
    }
    call->future = future;
    ((struct wso_link_object *)future)->call = call;
    Py_INCREF(future);
    int status = submit_by_rule(pool, call);
    if (status == WSO_OK) {
        return future;
    }
    Py_DECREF(future);
    if (status != WSO_EINTR) {
        wso_pool_raise(pool, status);
    }
fail:
    wso_call_free(call);
    return NULL;
}
