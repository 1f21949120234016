/* How a thread of the core runs Python: its own PyThreadState, its threading.Thread, and when it
 * holds the GIL.
 *
 * A worker attaches when it is about to look for work and detaches when it found none, so a burst
 * of short jobs costs one hand-over of the GIL and not one each. It rings the loop's bell after it
 * has let the GIL go, because the loop would only wake up to wait for it.
 *
 * Locks: no hook is called with a lock held, and none is held here while waiting for the GIL.
 * After the exit hook no thread of ours attaches any more: it parks, and ends with the process.
 */
#include "module.h"

#include <pthread.h>
#include <unistd.h>

#include "clock.h"

/* C functions run back to back never reach the interpreter's own check for a waiting thread, so a
 * worker offers the GIL between jobs after this long. It must be longer than the interpreter's switch
 * interval of 5 ms: each offer starts the waiting thread's interval anew, and only a thread that has
 * waited for a whole one is let in before the worker takes the GIL again. */
#define OFFER_GIL_AFTER (WSO_NS_PER_S / 100)

/* How long to wait before asking again for the memory of a PyThreadState. */
#define MEMORY_RETRY_US 10000

static _Thread_local struct wso_py_thread *this_thread;

/* Where a submit of this thread that wants to know puts the thread that it makes. */
static _Thread_local PyObject **made_here;

void wso_py_thread_note_made(PyObject **made)
{
    made_here = made;
}

/* What the preparation of a thread raised, until this thread's submit has failed with it. */
static _Thread_local PyObject *raised_here;

PyObject *wso_py_thread_take_raised(void)
{
    PyObject *raised = raised_here;
    raised_here = NULL;
    return raised;
}

struct wso_py_thread *wso_py_thread_self(void)
{
    return this_thread;
}

static void park(void)
{
    for (;;) {
        (void)pause();
    }
}

void wso_py_thread_attach(struct wso_py_thread *self)
{
    if (atomic_load(&self->runtime->exited)) {
        park();
    }
    PyEval_RestoreThread(self->tstate);
    self->attached = true;
    self->attached_at = wso_now();
}

static void ring(struct wso_py_thread *self)
{
    struct wso_mailbox *mailbox = self->to_ring;
    if (mailbox != NULL) {
        self->to_ring = NULL;
        wso_mailbox_ring(mailbox);
        wso_mailbox_release(mailbox);
    }
}

void wso_py_thread_detach(struct wso_py_thread *self)
{
    self->attached = false;
    (void)PyEval_SaveThread();
    ring(self);
}

void wso_py_thread_ring_later(struct wso_mailbox *mailbox)
{
    struct wso_py_thread *self = this_thread;
    if (self == NULL || self->current != NULL) {
        /* A job that ends other calls, by a shutdown say, may run on or wait for what comes of it. */
        wso_mailbox_ring(mailbox);
        return;
    }
    if (self->to_ring == mailbox) {
        return;
    }
    ring(self);
    self->to_ring = wso_mailbox_share(mailbox);
}

void wso_py_thread_enter_job(struct wso_py_thread *self, struct wso_job *job,
                             bool (*is_unwanted)(struct wso_job *job))
{
    /* The job may be long: what was posted before must not wait for its end. */
    ring(self);
    if (wso_now() - self->attached_at > OFFER_GIL_AFTER) {
        wso_py_thread_detach(self);
        wso_py_thread_attach(self);
    }
    self->current = job;
    self->is_unwanted = is_unwanted;
}

void wso_py_thread_end_if_forked(void)
{
    struct wso_py_thread *self = this_thread;
    if (self != NULL && self->generation != atomic_load(&self->runtime->generation)) {
        (void)PyEval_SaveThread();
        pthread_exit(NULL);
    }
}

void wso_py_thread_leave_job(struct wso_py_thread *self)
{
    self->current = NULL;
    wso_py_thread_end_if_forked();
}

static PyObject *call(PyObject *thread, const char *method)
{
    PyObject *name = PyUnicode_InternFromString(method);
    PyObject *answer = name == NULL ? NULL : PyObject_CallMethodNoArgs(thread, name);
    Py_XDECREF(name);
    return answer;
}

/* Call a method of the thread's representative; its errors concern nobody else. */
static void tell(PyObject *thread, const char *method)
{
    PyObject *answer = call(thread, method);
    if (answer == NULL && PyErr_ExceptionMatches(PyExc_MemoryError)) {
        /* Once more, because whoever joins the thread waits to be told of its end. */
        PyErr_Clear();
        answer = call(thread, method);
    }
    if (answer == NULL) {
        PyErr_WriteUnraisable(thread);
    }
    Py_XDECREF(answer);
}

static int prepare(void *owner, void **user, const char **name)
{
    *user = NULL;
    struct wso_pool_object *pool = owner;
    if (pool == NULL) {
        return WSO_ETHREAD;
    }
    struct module_state *state = pool->state;
    struct wso_py_thread *self = PyMem_RawCalloc(1, sizeof *self);
    if (self == NULL) {
        return WSO_ENOMEM;
    }
    self->runtime = state->runtime;
    self->generation = pool->generation;
    self->pool = pool->calls;
    self->thread = PyObject_CallMethodNoArgs((PyObject *)pool, state->str_new_worker);
    *name = "wsoffload";
    if (self->thread != NULL) {
        PyObject *label = PyObject_GetAttrString(self->thread, "os_name");
        if (label != NULL) {
            /* The thread object keeps its label alive. */
            *name = PyBytes_AsString(label);
            Py_DECREF(label);
        }
    }
    if (PyErr_Occurred() || *name == NULL) {
        /* Kept for whoever called submit on this thread: it may be a Ctrl-C. */
        Py_XSETREF(raised_here, wso_take_exception());
        Py_XDECREF(self->thread);
        PyMem_RawFree(self);
        return WSO_ERAISED;
    }
    *user = self;
    if (made_here != NULL) {
        Py_XSETREF(*made_here, Py_NewRef(self->thread));
    }
    return WSO_OK;
}

static void unprepare(void *user)
{
    struct wso_py_thread *self = user;
    tell(self->thread, "give_up");
    Py_DECREF(self->thread);
    PyMem_RawFree(self);
}

static void begin(void *user)
{
    struct wso_py_thread *self = user;
    this_thread = self;
    if (atomic_load(&self->runtime->exited)) {
        park();
    }
    /* A job was accepted on the promise of this thread, so it waits for memory. */
    while ((self->tstate = PyThreadState_New(self->runtime->interpreter)) == NULL) {
        (void)usleep(MEMORY_RETRY_US);
    }
    wso_py_thread_attach(self);
    tell(self->thread, "begin");
    wso_py_thread_end_if_forked();
}

static void end(void *user)
{
    struct wso_py_thread *self = user;
    if (!self->attached) {
        wso_py_thread_attach(self);
    }
    tell(self->thread, "end");
    Py_DECREF(self->thread);
    PyThreadState_Clear(self->tstate);
    /* Clearing can run finalizers, which may still ask which worker this is. */
    this_thread = NULL;
    PyThreadState_DeleteCurrent();
    PyMem_RawFree(self);
}

static void rest(void *user)
{
    wso_py_thread_detach(user);
}

static void wake(void *user)
{
    wso_py_thread_attach(user);
}

const struct wso_pool_hooks wso_py_hooks = {
    .prepare = prepare,
    .unprepare = unprepare,
    .begin = begin,
    .end = end,
    .rest = rest,
    .wake = wake,
};

PyObject *wso_check_cancelled(PyObject *module, PyObject *Py_UNUSED(unused))
{
    struct module_state *state = PyModule_GetState(module);
    struct wso_py_thread *self = this_thread;
    if (self == NULL || self->runtime != state->runtime || self->current == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "check_cancelled() must be called inside a job of a wsoffload pool");
        return NULL;
    }
    if (self->is_unwanted(self->current)) {
        PyErr_SetString(state->cancelled_error, "nobody waits for this job any more");
        return NULL;
    }
    if (PyErr_Occurred()) {
        return NULL;
    }
    Py_RETURN_NONE;
}
