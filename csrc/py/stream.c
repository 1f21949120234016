/* The types of a stream's reader: Stream, an asynchronous iterator over a feed, and Ready, the
 * awaitable of its next item.
 *
 * Where items are there, no future is made and the loop is not asked, which would cost more than
 * the item. So that a quick producer cannot starve the loop that way, the reader gives way to it
 * once in a while. Where there is none, the loop's future tells only that there is something to
 * look at: the item stays in the buffer until the reader runs, so a reader that is cancelled in
 * between loses none.
 */
#include "clock.h"
#include "feed.h"

/* How long a reader may go on from item to item before the loop gets its turn. */
#define GIVE_WAY_AFTER (2 * WSO_NS_PER_S / 1000)

struct wso_stream {
    PyObject_HEAD
    struct module_state *state;
    struct wso_feed *feed;
    bool started;
    uint64_t turn_began; /* ns, when the loop last had its turn */
};

struct wso_ready {
    PyObject_HEAD
    struct wso_stream *stream; /* to be looked at before there is an outcome; NULL otherwise */
    PyObject *wait;            /* awaits the stream's waiter, or NULL */
    PyObject *value;
    PyObject *error;
    bool gave_way;
};

static struct wso_stream *stream_of(PyObject *self)
{
    return (struct wso_stream *)self;
}

/* A future of the running loop. */
static PyObject *new_future(struct module_state *state)
{
    PyObject *loop = PyObject_CallNoArgs(state->get_running_loop);
    if (loop == NULL) {
        return NULL;
    }
    PyObject *future = PyObject_CallMethodNoArgs(loop, state->str_create_future);
    Py_DECREF(loop);
    return future;
}

/* Does another task wait for the next item? -1 on error. */
static int is_awaited(struct wso_stream *stream)
{
    if (stream->feed->waiter == NULL) {
        return 0;
    }
    PyObject *done = PyObject_CallMethodNoArgs(stream->feed->waiter, stream->state->str_done);
    if (done == NULL) {
        return -1;
    }
    int awaited = done != Py_True;
    Py_DECREF(done);
    return awaited;
}

static int refuse_second_reader(struct wso_stream *stream)
{
    int awaited = is_awaited(stream);
    if (awaited > 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        "another task already waits for this stream's next item");
    }
    return awaited == 0 ? 0 : -1;
}

/* --- Ready --- */

/* An awaitable of this value or error, or of what the stream will have; takes the references. */
static PyObject *new_ready(struct module_state *state, struct wso_stream *stream, PyObject *value,
                           PyObject *error)
{
    struct wso_ready *ready = PyObject_GC_New(struct wso_ready, state->ready_type);
    if (ready == NULL) {
        Py_XDECREF(value);
        Py_XDECREF(error);
        return NULL;
    }
    ready->stream = (struct wso_stream *)Py_XNewRef(stream);
    ready->wait = NULL;
    ready->value = value;
    ready->error = error;
    ready->gave_way = false;
    PyObject_GC_Track(ready);
    return (PyObject *)ready;
}

/* Have the loop tell when the stream has something. */
static int begin_wait(struct wso_ready *ready)
{
    struct wso_feed *feed = ready->stream->feed;
    if (refuse_second_reader(ready->stream) < 0) {
        return -1;
    }
    PyObject *future = new_future(ready->stream->state);
    if (future == NULL) {
        return -1;
    }
    ready->wait = PyObject_GetIter(future);
    if (ready->wait == NULL) {
        Py_DECREF(future);
        return -1;
    }
    Py_XSETREF(feed->waiter, future);
    return 0;
}

/* The loop had its turn: take what the stream has, or wait for it. */
static int look(struct wso_ready *ready)
{
    struct wso_feed *feed = ready->stream->feed;
    ready->stream->turn_began = wso_now();
    ready->value = wso_feed_take(feed);
    if (ready->value == NULL) {
        if (!wso_feed_exhausted(feed)) {
            return begin_wait(ready);
        }
        ready->error = wso_feed_take_error(feed);
    }
    Py_CLEAR(ready->stream);
    return 0;
}

/* Go on until there is an outcome or the loop is to have its turn. */
static PySendResult advance(struct wso_ready *ready, PyObject **result)
{
    while (ready->stream != NULL) {
        if (ready->wait != NULL) {
            PySendResult sent = PyIter_Send(ready->wait, Py_None, result);
            if (sent != PYGEN_RETURN) {
                return sent;
            }
            Py_CLEAR(*result);
            Py_CLEAR(ready->wait);
        } else if (!ready->gave_way) {
            ready->gave_way = true;
            *result = Py_NewRef(Py_None);
            return PYGEN_NEXT;
        }
        if (look(ready) < 0) {
            *result = NULL;
            return PYGEN_ERROR;
        }
    }
    return PYGEN_RETURN;
}

static PySendResult ready_send(PyObject *self, PyObject *Py_UNUSED(sent), PyObject **result)
{
    struct wso_ready *ready = (struct wso_ready *)self;
    PySendResult advanced = advance(ready, result);
    if (advanced != PYGEN_RETURN) {
        return advanced;
    }
    *result = ready->value;
    ready->value = NULL;
    if (*result != NULL) {
        return PYGEN_RETURN;
    }
    if (ready->error != NULL) {
        PyObject *error = ready->error;
        ready->error = NULL;
        wso_give_exception(error);
    } else {
        PyErr_SetNone(PyExc_StopAsyncIteration);
    }
    return PYGEN_ERROR;
}

static PyObject *ready_next(PyObject *self)
{
    PyObject *result;
    switch (ready_send(self, Py_None, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN: {
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
        Py_DECREF(result);
        if (stop != NULL) {
            wso_give_exception(stop);
        }
        return NULL;
    }
    default:
        return NULL;
    }
}

static int ready_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct wso_ready *ready = (struct wso_ready *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(ready->stream);
    Py_VISIT(ready->wait);
    Py_VISIT(ready->value);
    Py_VISIT(ready->error);
    return 0;
}

static int ready_clear(PyObject *self)
{
    struct wso_ready *ready = (struct wso_ready *)self;
    Py_CLEAR(ready->stream);
    Py_CLEAR(ready->wait);
    Py_CLEAR(ready->value);
    Py_CLEAR(ready->error);
    return 0;
}

static void ready_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)ready_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyType_Slot ready_slots[] = {
    {Py_tp_doc, (void *)"The awaitable of a stream's next item."},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, ready_send},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, ready_next},
    {Py_tp_traverse, ready_traverse},
    {Py_tp_clear, ready_clear},
    {Py_tp_dealloc, ready_dealloc},
    {0, NULL},
};

PyType_Spec wso_ready_spec = {
    .name = "wsoffload._core.Ready",
    .basicsize = sizeof(struct wso_ready),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ready_slots,
};

/* --- Stream --- */

PyDoc_STRVAR(stream_doc, "Stream(pool, max_items, source, args, kwargs, /)\n--\n\n"
                         "The native part of wsoffload.Stream. args None: the source is iterated\n"
                         "and not called.");

static PyObject *stream_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct module_state *state = wso_state_of_type(type);
    if (state == NULL) {
        return NULL;
    }
    PyObject *pool, *source, *call_args, *call_kwargs;
    Py_ssize_t max_items;
    static char *positional[] = {"", "", "", "", "", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!nOOO:Stream", positional, state->pool_type,
                                     &pool, &max_items, &source, &call_args, &call_kwargs)) {
        return NULL;
    }
    struct wso_pool_object *pool_object = (struct wso_pool_object *)pool;
    if (!wso_pool_usable(pool_object)) {
        return NULL;
    }
    struct wso_stream *stream = (struct wso_stream *)type->tp_alloc(type, 0);
    if (stream == NULL) {
        return NULL;
    }
    stream->state = state;
    stream->feed = wso_feed_new(pool_object, (size_t)max_items);
    if (stream->feed == NULL) {
        Py_DECREF(stream);
        return NULL;
    }
    stream->feed->source = Py_NewRef(source);
    stream->feed->args = call_args == Py_None ? NULL : Py_NewRef(call_args);
    stream->feed->kwargs = call_kwargs == Py_None ? NULL : Py_NewRef(call_kwargs);
    return (PyObject *)stream;
}

static int stream_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct wso_feed *feed = stream_of(self)->feed;
    Py_VISIT(Py_TYPE(self));
    /* While a job shares the feed, what the feed owns is reached from outside. */
    if (feed != NULL && feed->shares == 1) {
        Py_VISIT(feed->pool);
        Py_VISIT(feed->source);
        Py_VISIT(feed->args);
        Py_VISIT(feed->kwargs);
        Py_VISIT(feed->context);
        Py_VISIT(feed->error);
        Py_VISIT(feed->waiter);
        Py_VISIT(feed->close_waiters);
        for (size_t i = 0; i < feed->count; i++) {
            Py_VISIT(feed->items[(feed->first + i) % feed->capacity]);
        }
    }
    return 0;
}

static int stream_clear(PyObject *self)
{
    struct wso_feed *feed = stream_of(self)->feed;
    if (feed != NULL && feed->shares == 1) {
        Py_CLEAR(feed->source);
        Py_CLEAR(feed->args);
        Py_CLEAR(feed->kwargs);
        Py_CLEAR(feed->context);
        Py_CLEAR(feed->error);
        Py_CLEAR(feed->waiter);
        Py_CLEAR(feed->close_waiters);
        PyObject *item;
        while ((item = wso_feed_take(feed)) != NULL) {
            Py_DECREF(item);
        }
    }
    return 0;
}

static void stream_dealloc(PyObject *self)
{
    struct wso_stream *stream = stream_of(self);
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    struct wso_feed *feed = stream->feed;
    /* An exception that leaves `async for` drops the stream while it is still raised. */
    PyObject *raised = PyErr_Occurred() ? wso_take_exception() : NULL;
    /* What is of before a fork belongs to the parent, locks and all. */
    if (feed != NULL &&
        feed->pool->generation == atomic_load(&stream->state->runtime->generation)) {
        if (stream->started) {
            wso_feed_leave(feed, NULL, true);
        }
        wso_feed_release(feed);
    }
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(NULL);
    }
    if (raised != NULL) {
        wso_give_exception(raised);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(start_doc, "_start($self, /)\n--\n\n"
                        "Hand the source to a worker. Raises as Pool.run does.");

static PyObject *stream_start(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_stream *stream = stream_of(self);
    struct wso_feed *feed = stream->feed;
    if (stream->started) {
        PyErr_SetString(PyExc_RuntimeError, "a stream can be iterated only once");
        return NULL;
    }
    if (!wso_pool_usable(feed->pool)) {
        return NULL;
    }
    struct wso_hub *hub = wso_hub_of_running_loop(stream->state, "iterate()");
    if (hub == NULL || wso_feed_start(feed, hub) < 0) {
        return NULL;
    }
    stream->started = true;
    stream->turn_began = wso_now();
    Py_RETURN_NONE;
}

static PyObject *stream_anext(PyObject *self)
{
    struct wso_stream *stream = stream_of(self);
    struct module_state *state = stream->state;
    struct wso_feed *feed = stream->feed;
    if (!wso_pool_usable(feed->pool)) {
        return NULL;
    }
    if (!stream->started) {
        PyErr_SetString(PyExc_RuntimeError, "the stream was not started: use it in `async for`");
        return NULL;
    }
    if (refuse_second_reader(stream) < 0) {
        return NULL;
    }
    if (wso_feed_has_item(feed) && wso_now() - stream->turn_began > GIVE_WAY_AFTER) {
        return new_ready(state, stream, NULL, NULL);
    }
    PyObject *item = wso_feed_take(feed);
    if (item != NULL) {
        return new_ready(state, NULL, item, NULL);
    }
    if (wso_feed_exhausted(feed)) {
        return new_ready(state, NULL, NULL, wso_feed_take_error(feed));
    }
    PyObject *ready = new_ready(state, stream, NULL, NULL);
    if (ready != NULL) {
        /* It waits for the loop in any case. */
        ((struct wso_ready *)ready)->gave_way = true;
    }
    return ready;
}

PyDoc_STRVAR(leave_doc, "_leave($self, error, abandon, /)\n--\n\n"
                        "Stop reading, with an error for whoever reads on, or None.");

static PyObject *stream_leave(PyObject *self, PyObject *args)
{
    PyObject *error;
    int abandon;
    if (!PyArg_ParseTuple(args, "Op:_leave", &error, &abandon)) {
        return NULL;
    }
    struct wso_stream *stream = stream_of(self);
    if (!wso_pool_usable(stream->feed->pool)) {
        return NULL;
    }
    if (stream->started) {
        wso_feed_leave(stream->feed, error == Py_None ? NULL : Py_NewRef(error), abandon);
    }
    if (PyErr_Occurred()) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(closed_doc, "_closed($self, /)\n--\n\n"
                         "A future that is settled when the source is closed; None if it is.");

static PyObject *stream_closed(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_stream *stream = stream_of(self);
    struct wso_feed *feed = stream->feed;
    if (!stream->started || feed->job_over) {
        Py_RETURN_NONE;
    }
    if (feed->close_waiters == NULL && (feed->close_waiters = PyList_New(0)) == NULL) {
        return NULL;
    }
    PyObject *future = new_future(stream->state);
    if (future != NULL && PyList_Append(feed->close_waiters, future) < 0) {
        Py_CLEAR(future);
    }
    return future;
}

PyDoc_STRVAR(queued_doc, "_queued($self, /)\n--\n\n"
                         "Whether the stream was started and no worker has taken it yet.");

static PyObject *stream_queued(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_stream *stream = stream_of(self);
    enum wso_job_state job = stream->feed->job.state;
    return PyBool_FromLong(stream->started && (job == WSO_JOB_WAITING || job == WSO_JOB_QUEUED));
}

static PyObject *stream_started(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(stream_of(self)->started);
}

static PyMethodDef stream_methods[] = {
    {"_start", stream_start, METH_NOARGS, start_doc},
    {"_leave", stream_leave, METH_VARARGS, leave_doc},
    {"_closed", stream_closed, METH_NOARGS, closed_doc},
    {"_queued", stream_queued, METH_NOARGS, queued_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "See PEP 585."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef stream_getset[] = {
    {"_started", stream_started, NULL, "Whether the source was handed to a worker.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot stream_slots[] = {
    {Py_tp_doc, (void *)stream_doc},
    {Py_tp_new, stream_new},
    {Py_am_anext, stream_anext},
    {Py_tp_methods, stream_methods},
    {Py_tp_getset, stream_getset},
    {Py_tp_traverse, stream_traverse},
    {Py_tp_clear, stream_clear},
    {Py_tp_dealloc, stream_dealloc},
    {0, NULL},
};

PyType_Spec wso_stream_spec = {
    .name = "wsoffload._core.Stream",
    .basicsize = sizeof(struct wso_stream),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = stream_slots,
};
