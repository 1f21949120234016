/* The type Pool.
 *
 * A Pool has two pools of the core: one for calls and one for streams, so that slow readers of
 * streams never stop calls. Each job holds its Pool, so a Pool that is deallocated has none left;
 * its threads end by themselves. Nothing here joins a thread while it holds the GIL.
 */
#include "module.h"

#include "clock.h"

static struct wso_pool_object *pool_of(PyObject *self)
{
    return (struct wso_pool_object *)self;
}

bool wso_pool_usable(struct wso_pool_object *pool)
{
    if (pool->streams == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Pool.__init__() was not called, or failed");
        return false;
    }
    if (pool->generation != atomic_load(&pool->state->runtime->generation)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "this pool was made before a fork and its threads exist only in the "
                        "parent: make a Pool in the child, or use wsoffload.run, which does so");
        return false;
    }
    return true;
}

void wso_pool_raise(struct wso_pool_object *pool, int status)
{
    if (status == WSO_ECLOSED && pool->state->runtime->leaving) {
        PyErr_SetString(PyExc_RuntimeError,
                        "cannot schedule new futures after interpreter shutdown");
        return;
    }
    PyObject *raised = status == WSO_ERAISED ? wso_py_thread_take_raised() : NULL;
    if (raised != NULL) {
        wso_give_exception(raised);
        return;
    }
    wso_raise(pool->state, status);
}

static PyObject *pool_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kw))
{
    struct module_state *state = wso_state_of_type(type);
    if (state == NULL) {
        return NULL;
    }
    struct wso_pool_object *pool = (struct wso_pool_object *)type->tp_alloc(type, 0);
    if (pool != NULL) {
        pool->state = state;
        pool->generation = atomic_load(&state->runtime->generation);
    }
    return (PyObject *)pool;
}

static int pool_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void pool_dealloc(PyObject *self)
{
    struct wso_pool_object *pool = pool_of(self);
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    struct wso_runtime *runtime = pool->state->runtime;
    if (pool->generation == atomic_load(&runtime->generation)) {
        wso_registry_close(runtime, pool->calls);
        wso_registry_close(runtime, pool->streams);
        wso_registry_forget_ended(runtime);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(open_doc,
             "_open($self, max_workers, max_queue, when_full, keep_alive, max_streams, /)\n--\n\n"
             "Set up; the arguments are checked in Python. max_queue 0 means no bound, when_full\n"
             "is 0 wait, 1 raise, 2 drop_oldest, keep_alive is in seconds.");

static PyObject *pool_open(PyObject *self, PyObject *args)
{
    struct wso_pool_object *pool = pool_of(self);
    unsigned workers, streams;
    Py_ssize_t max_queue;
    int when_full;
    double keep_alive;
    if (!PyArg_ParseTuple(args, "InidI:_open", &workers, &max_queue, &when_full, &keep_alive,
                          &streams)) {
        return NULL;
    }
    if (pool->calls != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Pool.__init__() was called twice");
        return NULL;
    }
    if (pool->state->runtime->leaving) {
        PyErr_SetString(PyExc_RuntimeError, "cannot make a Pool after interpreter shutdown");
        return NULL;
    }
    wso_registry_forget_ended(pool->state->runtime);
    double most = (double)(WSO_NEVER / 2 / WSO_NS_PER_S);
    struct wso_pool_config config = {
        .max_threads = workers,
        .max_queue = (size_t)max_queue,
        .when_full = (enum wso_policy)when_full,
        .keep_alive =
            keep_alive < most ? (uint64_t)(keep_alive * (double)WSO_NS_PER_S) : WSO_NEVER,
        .hooks = &wso_py_hooks,
        .owner = pool,
    };
    pool->when_full = config.when_full;
    if (wso_registry_open(pool->state, &config, &pool->calls) < 0) {
        return NULL;
    }
    config.max_threads = streams;
    if (wso_registry_open(pool->state, &config, &pool->streams) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(run_doc,
             "run($self, function, /, *args, **kwargs)\n--\n\n"
             "Call function(*args, **kwargs) on a worker thread, as asyncio.to_thread does.\n\n"
             "Returns a future of the running event loop at once; the call sees a copy of the\n"
             "current context. Cancelling the future takes a queued call off the queue; a running\n"
             "one goes on as `using(on_cancel=)` says. Raises TypeError for what cannot be called,\n"
             "RuntimeError without a running loop or on a closed pool, QueueFull as `when_full`\n"
             "says. StopIteration from the call becomes RuntimeError.");

static PyObject *pool_run(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    return wso_call_run(pool_of(self), NULL, args, nargs, kwnames);
}

PyDoc_STRVAR(submit_doc,
             "submit($self, function, /, *args, **kwargs)\n--\n\n"
             "Call function(*args, **kwargs) on a worker thread; returns a\n"
             "concurrent.futures.Future. See concurrent.futures.Executor.submit.\n\n"
             "On a full pool it does as `when_full` says, but a call from a thread that runs an\n"
             "event loop, or from a worker of this pool, is always accepted.");

static PyObject *pool_submit(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames)
{
    return wso_call_submit(pool_of(self), args, nargs, kwnames);
}

PyDoc_STRVAR(close_doc, "_close($self, cancel, /)\n--\n\n"
                        "Accept nothing more; with cancel, end what no worker took yet.");

/* In the child of a fork there is nothing of the pool to close or to wait for. */
static bool is_of_parent(struct wso_pool_object *pool)
{
    return pool->generation != atomic_load(&pool->state->runtime->generation);
}

static PyObject *pool_close(PyObject *self, PyObject *cancel)
{
    struct wso_pool_object *pool = pool_of(self);
    if (is_of_parent(pool)) {
        Py_RETURN_NONE;
    }
    if (!wso_pool_usable(pool)) {
        return NULL;
    }
    int cancels = PyObject_IsTrue(cancel);
    if (cancels < 0) {
        return NULL;
    }
    wso_pool_close(pool->calls, WSO_ECLOSED);
    wso_pool_close(pool->streams, WSO_ECLOSED);
    if (cancels) {
        pool->cancelling = true;
        wso_pool_cancel_all(pool->calls, WSO_ECANCELLED);
        wso_pool_cancel_all(pool->streams, WSO_ECANCELLED);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(break_doc, "_break($self, /)\n--\n\n"
                        "A worker could not be initialised: refuse and end all that is queued.");

static PyObject *pool_break(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_pool_object *pool = pool_of(self);
    if (!wso_pool_usable(pool)) {
        return NULL;
    }
    wso_pool_close(pool->calls, WSO_EBROKEN);
    wso_pool_close(pool->streams, WSO_EBROKEN);
    wso_pool_cancel_all(pool->calls, WSO_EBROKEN);
    wso_pool_cancel_all(pool->streams, WSO_EBROKEN);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(wait_doc, "_wait($self, /)\n--\n\n"
                       "Block, without the GIL, until a closed pool has finished.");

static PyObject *pool_wait(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_pool_object *pool = pool_of(self);
    if (is_of_parent(pool)) {
        Py_RETURN_NONE;
    }
    if (!wso_pool_usable(pool)) {
        return NULL;
    }
    struct wso_py_thread *worker = wso_py_thread_self();
    if (worker != NULL && worker->pool == pool->calls) {
        PyErr_SetString(PyExc_RuntimeError,
                        "a job cannot wait for the shutdown of its own pool: it would wait for "
                        "itself; call shutdown(wait=False)");
        return NULL;
    }
    if (wso_registry_wait(pool->state, pool->calls) < 0 ||
        wso_registry_wait(pool->state, pool->streams) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* (count, mean, p50, p90, p99, max), in seconds. */
static PyObject *durations(const struct wso_histogram *histogram)
{
    const double ns = 1e-9;
    uint64_t count = atomic_load_explicit(&histogram->count, memory_order_relaxed);
    uint64_t sum = atomic_load_explicit(&histogram->sum, memory_order_relaxed);
    uint64_t max = atomic_load_explicit(&histogram->max, memory_order_relaxed);
    return Py_BuildValue("(Kddddd)", (unsigned long long)count,
                         count == 0 ? 0.0 : (double)sum / (double)count * ns,
                         (double)wso_histogram_quantile(histogram, 0.50) * ns,
                         (double)wso_histogram_quantile(histogram, 0.90) * ns,
                         (double)wso_histogram_quantile(histogram, 0.99) * ns, (double)max * ns);
}

static PyObject *counts(struct wso_pool *core)
{
    struct wso_pool_stats s;
    wso_pool_stats(core, &s);
    return Py_BuildValue(
        "{sIsIsnsnsnsnsKsKsKsKsKsKsKsNsN}", "threads", s.threads, "idle", s.idle, "queued",
        (Py_ssize_t)s.queued, "waiting", (Py_ssize_t)s.waiting, "running", (Py_ssize_t)s.running,
        "abandoned", (Py_ssize_t)s.abandoned, "accepted", (unsigned long long)s.accepted,
        "completed", (unsigned long long)s.completed, "cancelled",
        (unsigned long long)s.cancelled, "dropped", (unsigned long long)s.dropped, "over",
        (unsigned long long)s.over, "over_max", (unsigned long long)s.over_max, "started",
        (unsigned long long)s.started, "waited", durations(wso_pool_waited(core)), "ran",
        durations(wso_pool_ran(core)));
}

PyDoc_STRVAR(counts_doc, "_counts($self, /)\n--\n\n"
                         "Two dicts, of the calls and of the streams; then the wake-ups of all\n"
                         "event loops, and the results that no loop was left to take.");

static PyObject *pool_counts(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_pool_object *pool = pool_of(self);
    if (!wso_pool_usable(pool)) {
        return NULL;
    }
    struct module_state *state = pool->state;
    return Py_BuildValue("(NNKK)", counts(pool->calls), counts(pool->streams),
                         (unsigned long long)wso_hub_rings(state),
                         (unsigned long long)state->dropped_results);
}

static PyMethodDef pool_methods[] = {
    {"_open", pool_open, METH_VARARGS, open_doc},
    {"run", (PyCFunction)(void (*)(void))pool_run, METH_FASTCALL | METH_KEYWORDS, run_doc},
    {"submit", (PyCFunction)(void (*)(void))pool_submit, METH_FASTCALL | METH_KEYWORDS, submit_doc},
    {"_close", pool_close, METH_O, close_doc},
    {"_break", pool_break, METH_NOARGS, break_doc},
    {"_wait", pool_wait, METH_NOARGS, wait_doc},
    {"_counts", pool_counts, METH_NOARGS, counts_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, (void *)"The native part of wsoffload.Pool."},
    {Py_tp_new, pool_new},
    {Py_tp_methods, pool_methods},
    {Py_tp_traverse, pool_traverse},
    {Py_tp_dealloc, pool_dealloc},
    {0, NULL},
};

PyType_Spec wso_pool_spec = {
    .name = "wsoffload._core.Pool",
    .basicsize = sizeof(struct wso_pool_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = pool_slots,
};
