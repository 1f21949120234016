/* The type Stream: a stream's reader, an asynchronous iterator over a feed.
 *
 * So that a quick producer cannot starve the loop, the reader gives way to it once in a while.
 */
#include "clock.h"
#include "stream.h"

/* How long a reader may go on from item to item before the loop gets its turn. */
#define GIVE_WAY_AFTER (2 * WSO_NS_PER_S / 1000)

static struct wso_stream *stream_of(PyObject *self)
{
    return (struct wso_stream *)self;
}

PyObject *wso_stream_new_future(struct module_state *state)
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

int wso_stream_refuse_second_reader(struct wso_stream *stream)
{
    int awaited = is_awaited(stream);
    if (awaited > 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        "another task already waits for this stream's next item");
    }
    return awaited == 0 ? 0 : -1;
}

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
    struct wso_feed *feed = stream->feed;
    if (!wso_pool_usable(feed->pool)) {
        return NULL;
    }
    if (!stream->started) {
        PyErr_SetString(PyExc_RuntimeError, "the stream was not started: use it in `async for`");
        return NULL;
    }
    if (wso_stream_refuse_second_reader(stream) < 0) {
        return NULL;
    }
    bool give_way = !stream->gave_way && wso_feed_has_item(feed) &&
                    wso_now() - stream->turn_began > GIVE_WAY_AFTER;
    return wso_ready_new(stream, give_way);
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
    PyObject *future = wso_stream_new_future(stream->state);
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
