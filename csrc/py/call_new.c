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
        if (flags & CO_ASYNC_GENERATOR) {
            PyErr_Format(PyExc_TypeError,
                         "%s: %R is an async generator: use it in `async for` as it is, or pass a "
                         "plain function",
                         caller, function);
            return false;
        }
        if (flags & CO_COROUTINE) {
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
    PyObject *future = PyObject_Call(type, state->no_arguments, hub->future_keywords);
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

/* Nobody will have the future of this accepted job, because an exception is raised, and stays so. */
static void cancel_for_nobody(struct module_state *state, PyObject *future)
{
    PyObject *raised = wso_take_exception();
    PyObject *answer = PyObject_CallMethodNoArgs(future, state->str_cancel);
    if (answer == NULL) {
        PyErr_WriteUnraisable(future);
    }
    Py_XDECREF(answer);
    wso_give_exception(raised);
}

/* A signal handler raised while the job waited for admission: take it back, or, if it was admitted
 * meanwhile, cancel it. WSO_EINTR, with the handler's exception raised; WSO_OK: the job is not ours. */
static int give_up(struct wso_pool_object *pool, struct wso_call *call, PyObject *future,
                   struct wso_waiter *waiter)
{
    bool taken;
    Py_BEGIN_ALLOW_THREADS
    taken = wso_pool_take_back(pool->calls, &call->job, waiter);
    Py_END_ALLOW_THREADS
    if (taken) {
        return WSO_EINTR;
    }
    cancel_for_nobody(pool->state, future);
    return WSO_OK;
}

/* Submit from a plain thread, which may block. A signal handler that raises nothing does not cost
 * the job its place in the line. */
static int submit_blocking(struct wso_pool_object *pool, struct wso_call *call, PyObject *future)
{
    struct wso_waiter waiter;
    int status = wso_waiter_init(&waiter);
    if (status != WSO_OK) {
        return status;
    }
    status = wso_pool_submit(pool->calls, &call->job, WSO_ADMIT_BY_POLICY, &waiter.turn);
    bool waits = status == WSO_OK;
    while (waits) {
        Py_BEGIN_ALLOW_THREADS
        waits = wso_waiter_wait(&waiter) != WSO_OK;
        Py_END_ALLOW_THREADS
        if (waits && PyErr_CheckSignals() < 0) {
            status = give_up(pool, call, future, &waiter);
            waits = false;
        }
    }
    wso_waiter_destroy(&waiter);
    return status;
}

/* A thread that was made for a submit has begun when submit returns, as with Thread.start(): who
 * submits and shuts down at once may count on something having started. */
static int await_begin(PyObject *thread)
{
    PyObject *answer = PyObject_CallMethod(thread, "await_begin", NULL);
    Py_XDECREF(answer);
    return answer == NULL ? -1 : 0;
}

static int submit_by_rule(struct wso_pool_object *pool, struct wso_call *call, PyObject *future)
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
    PyObject *made = NULL;
    wso_py_thread_note_made(&made);
    int status = pool->when_full == WSO_WHEN_FULL_WAIT
                     ? submit_blocking(pool, call, future)
                     : wso_pool_submit(pool->calls, &call->job, WSO_ADMIT_BY_POLICY, NULL);
    wso_py_thread_note_made(NULL);
    if (made != NULL && status == WSO_OK && !PyErr_Occurred() && await_begin(made) < 0) {
        cancel_for_nobody(state, future);
    }
    Py_XDECREF(made);
    return status;
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
    int status = submit_by_rule(pool, call, future);
    if (status == WSO_OK) {
        if (PyErr_Occurred()) {
            Py_CLEAR(future);
        }
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
