/* The type Ready: the awaitable of a stream's next item.
 *
 * Where an item is there, no future is made and the loop is not asked, which would cost more than
 * the item. Where there is none, the loop's future tells only that there is something to look at.
 * In each case the item stays in the buffer until the reader runs, so a reader that is cancelled
 * before loses none.
 */
#include "clock.h"
#include "stream.h"

struct wso_ready {
    PyObject_HEAD
    struct wso_stream *stream; /* NULL once the awaitable has had its outcome */
    PyObject *wait;            /* awaits the stream's waiter, or NULL */
    bool give_way;             /* the loop is to have its turn first */
};

PyObject *wso_ready_new(struct wso_stream *stream, bool give_way)
{
    struct wso_ready *ready = PyObject_GC_New(struct wso_ready, stream->state->ready_type);
    if (ready != NULL) {
        ready->stream = (struct wso_stream *)Py_NewRef(stream);
        ready->wait = NULL;
        ready->give_way = give_way;
        PyObject_GC_Track(ready);
    }
    return (PyObject *)ready;
}

/* Have the loop tell when the stream has something. */
static int begin_wait(struct wso_ready *ready)
{
    struct wso_feed *feed = ready->stream->feed;
    if (wso_stream_refuse_second_reader(ready->stream) < 0) {
        return -1;
    }
    PyObject *future = wso_stream_new_future(ready->stream->state);
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

/* What the stream has: an item, its error or its end; PYGEN_NEXT if it has nothing yet. */
static PySendResult look(struct wso_ready *ready, PyObject **result)
{
    struct wso_feed *feed = ready->stream->feed;
    ready->stream->gave_way = false;
    *result = wso_feed_take(feed);
    if (*result == NULL) {
        if (!wso_feed_exhausted(feed)) {
            return PYGEN_NEXT;
        }
        PyObject *error = wso_feed_take_error(feed);
        if (error != NULL) {
            wso_give_exception(error);
        } else {
            PyErr_SetNone(PyExc_StopAsyncIteration);
        }
    }
    return *result != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult ready_send(PyObject *self, PyObject *Py_UNUSED(sent), PyObject **result)
{
    struct wso_ready *ready = (struct wso_ready *)self;
    *result = NULL;
    if (ready->stream == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a stream's item was awaited twice");
        return PYGEN_ERROR;
    }
    if (ready->give_way) {
        ready->give_way = false;
        /* Also if the reader is cancelled meanwhile: its next attempt then gets the item. */
        ready->stream->gave_way = true;
        ready->stream->turn_began = wso_now();
        *result = Py_NewRef(Py_None);
        return PYGEN_NEXT;
    }
    PySendResult got = PYGEN_NEXT;
    while (got == PYGEN_NEXT) {
        if (ready->wait != NULL) {
            PySendResult waited = PyIter_Send(ready->wait, Py_None, result);
            if (waited != PYGEN_RETURN) {
                return waited;
            }
            Py_CLEAR(*result);
            Py_CLEAR(ready->wait);
            ready->stream->turn_began = wso_now();
        }
        got = look(ready, result);
        if (got == PYGEN_NEXT && begin_wait(ready) < 0) {
            return PYGEN_ERROR;
        }
    }
    /* An exception is raised where letting go of the stream may run code. */
    PyObject *raised = got == PYGEN_ERROR ? wso_take_exception() : NULL;
    Py_CLEAR(ready->stream);
    if (raised != NULL) {
        wso_give_exception(raised);
    }
    return got;
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
    return 0;
}

static int ready_clear(PyObject *self)
{
    struct wso_ready *ready = (struct wso_ready *)self;
    Py_CLEAR(ready->stream);
    Py_CLEAR(ready->wait);
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
