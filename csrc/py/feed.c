/* A stream's producer: it calls, iterates and closes its source on one worker, and waits without
 * the GIL when the reader is slow. See feed.h for who owns what.
 */
#include "feed.h"

static struct wso_feed *feed_of(struct wso_job *job)
{
    return WSO_ITEM(job, struct wso_feed, job);
}

void wso_feed_release(struct wso_feed *feed)
{
    if (--feed->shares > 0) {
        return;
    }
    if (wso_link_listed(&feed->listener.link)) {
        wso_link_unlink(&feed->listener.link);
    }
    if (feed->mailbox != NULL) {
        wso_mailbox_release(feed->mailbox);
    }
    while (feed->count > 0) {
        Py_DECREF(feed->items[feed->first]);
        feed->first = (feed->first + 1) % feed->capacity;
        feed->count--;
    }
    PyObject *owned[] = {
        feed->source, feed->args,          feed->kwargs, feed->context,
        feed->waiter, feed->close_waiters, feed->error,  (PyObject *)feed->pool,
    };
    wso_cond_destroy(&feed->space);
    wso_lock_destroy(&feed->lock);
    PyMem_Free(feed->items);
    PyMem_Free(feed);
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        Py_XDECREF(owned[i]);
    }
}

void wso_feed_post(struct wso_feed *feed, bool ring_now)
{
    wso_lock_acquire(&feed->lock);
    bool first = !feed->posted;
    feed->posted = true;
    feed->reader_waits = false;
    wso_lock_release(&feed->lock);
    if (!first) {
        return;
    }
    feed->shares++;
    if (wso_mailbox_post(feed->mailbox, &feed->mail) != WSO_OK) {
        /* The loop has gone, and with it the reader. */
        wso_lock_acquire(&feed->lock);
        feed->posted = false;
        feed->left = true;
        wso_lock_release(&feed->lock);
        wso_feed_release(feed);
    } else if (ring_now) {
        wso_mailbox_ring(feed->mailbox);
    } else {
        wso_py_thread_ring_later(feed->mailbox);
    }
}

/* Wait for room in the buffer; false when the reader has gone. */
static bool wait_for_space(struct wso_feed *feed, struct wso_py_thread *self)
{
    wso_lock_acquire(&feed->lock);
    bool must_wait = feed->count == feed->capacity && !feed->left;
    wso_lock_release(&feed->lock);
    if (must_wait) {
        struct wso_pool *core = feed->pool->streams;
        wso_py_thread_detach(self);
        /* A pause is no work: closing does not wait for a reader that may never come. */
        wso_pool_abandon(core, &feed->job);
        wso_lock_acquire(&feed->lock);
        feed->producer_waits = true;
        while (feed->count == feed->capacity && !feed->left) {
            wso_cond_wait(&feed->space, &feed->lock, WSO_NEVER);
        }
        feed->producer_waits = false;
        wso_lock_release(&feed->lock);
        wso_py_thread_attach(self);
        if (!feed->abandoned) {
            wso_pool_reclaim(core, &feed->job);
        }
    }
    wso_lock_acquire(&feed->lock);
    bool left = feed->left;
    wso_lock_release(&feed->lock);
    return !left;
}

/* Put an item into the buffer, which has room; takes the reference. */
static void put(struct wso_feed *feed, PyObject *item)
{
    wso_lock_acquire(&feed->lock);
    bool left = feed->left;
    bool reader_waits = feed->reader_waits && !left;
    if (!left) {
        feed->items[(feed->first + feed->count) % feed->capacity] = item;
        feed->count++;
    }
    wso_lock_release(&feed->lock);
    if (left) {
        Py_DECREF(item);
    } else if (reader_waits) {
        /* Now, because the next item may take its time. */
        wso_feed_post(feed, true);
    }
}

/* The iterator of the source, called first if it is to be. */
static PyObject *open_source(struct wso_feed *feed)
{
    if (feed->args == NULL) {
        return PyObject_GetIter(feed->source);
    }
    PyObject *iterable = PyObject_Call(feed->source, feed->args, feed->kwargs);
    if (iterable == NULL) {
        return NULL;
    }
    PyObject *iterator = PyObject_GetIter(iterable);
    bool iterates = Py_TYPE(iterable)->tp_iter != NULL || PySequence_Check(iterable);
    if (iterator == NULL && !iterates) {
        PyErr_Format(PyExc_TypeError, "iterate(): %R returned %R, which cannot be iterated",
                     feed->source, iterable);
    }
    Py_DECREF(iterable);
    return iterator;
}

/* Generators are closed on the thread that ran them; other iterators are only let go there. */
static void close_iterator(struct module_state *state, PyObject *iterator)
{
    PyObject *close = PyObject_GetAttr(iterator, state->str_close);
    if (close == NULL) {
        PyErr_Clear();
        return;
    }
    PyObject *answer = PyObject_CallNoArgs(close);
    if (answer == NULL) {
        PyErr_WriteUnraisable(close);
    }
    Py_DECREF(close);
    Py_XDECREF(answer);
}

/* All that happens on the worker; an exception of the source is left raised. */
static void produce(struct wso_feed *feed, struct wso_py_thread *self)
{
    PyObject *iterator = open_source(feed);
    if (iterator == NULL) {
        return;
    }
    PyObject *item;
    /* Room comes first, so that the source is never asked for more than the buffer holds. */
    while (wait_for_space(feed, self) && (item = PyIter_Next(iterator)) != NULL) {
        put(feed, item);
    }
    PyObject *raised = PyErr_Occurred() ? wso_take_exception() : NULL;
    close_iterator(feed->pool->state, iterator);
    Py_DECREF(iterator);
    if (raised != NULL) {
        wso_give_exception(raised);
    }
}

static bool feed_is_unwanted(struct wso_job *job)
{
    struct wso_feed *feed = feed_of(job);
    wso_lock_acquire(&feed->lock);
    bool left = feed->left;
    wso_lock_release(&feed->lock);
    return left || feed->pool->cancelling || wso_mailbox_closed(feed->mailbox);
}

/* No more items; `error` (or NULL) comes after those before it. Takes the reference. */
static void end(struct wso_feed *feed, PyObject *error)
{
    wso_lock_acquire(&feed->lock);
    bool keep = error != NULL && feed->error == NULL && !feed->left;
    if (keep) {
        feed->error = error;
    }
    feed->ended = true;
    wso_lock_release(&feed->lock);
    if (!keep) {
        Py_XDECREF(error);
    }
}

static void run_feed(struct wso_job *job)
{
    struct wso_feed *feed = feed_of(job);
    struct wso_py_thread *self = wso_py_thread_self();
    wso_py_thread_enter_job(self, job, feed_is_unwanted);
    PyObject *error = NULL;
    if (PyContext_Enter(feed->context) == 0) {
        produce(feed, self);
        error = PyErr_Occurred() ? wso_take_exception_for_stream() : NULL;
        /* It was entered here, so leaving it cannot fail. */
        (void)PyContext_Exit(feed->context);
    } else {
        error = wso_take_exception();
    }
    wso_py_thread_leave_job(self);
    Py_CLEAR(feed->source);
    Py_CLEAR(feed->args);
    Py_CLEAR(feed->kwargs);
    Py_CLEAR(feed->context);
    end(feed, error);
}

static void feed_done(struct wso_job *job, int status)
{
    struct wso_feed *feed = feed_of(job);
    if (status != WSO_OK) {
        end(feed, wso_exception(feed->pool->state, status));
    }
    feed->job_over = true;
    wso_feed_post(feed, false);
    wso_feed_release(feed);
}

struct wso_feed *wso_feed_new(struct wso_pool_object *pool, size_t capacity)
{
    struct wso_feed *feed = PyMem_Calloc(1, sizeof *feed);
    if (feed == NULL) {
        goto fail;
    }
    feed->items = PyMem_Calloc(capacity, sizeof *feed->items);
    if (feed->items == NULL || wso_lock_init(&feed->lock) != WSO_OK) {
        goto fail_items;
    }
    if (wso_cond_init(&feed->space) != WSO_OK) {
        goto fail_lock;
    }
    feed->capacity = capacity;
    feed->shares = 1;
    feed->pool = (struct wso_pool_object *)Py_NewRef(pool);
    feed->job.run = run_feed;
    feed->job.done = feed_done;
    feed->job.droppable = true;
    feed->mail.deliver = wso_feed_deliver;
    feed->mail.drop = wso_feed_drop;
    feed->listener.loop_gone = wso_feed_loop_gone;
    feed->listener.process_ends = wso_feed_process_ends;
    return feed;

fail_lock:
    wso_lock_destroy(&feed->lock);
fail_items:
    PyMem_Free(feed->items);
    PyMem_Free(feed);
fail:
    PyErr_NoMemory();
    return NULL;
}

int wso_feed_start(struct wso_feed *feed, struct wso_hub *hub)
{
    struct wso_pool *core = feed->pool->streams;
    feed->context = PyContext_CopyCurrent();
    if (feed->context == NULL) {
        return -1;
    }
    feed->mailbox = wso_mailbox_share(hub->mailbox);
    wso_list_push_back(&hub->listeners, &feed->listener.link);
    feed->shares++;
    wso_pool_set_stack_size(core, PyThread_get_stacksize());
    int status = wso_pool_submit(core, &feed->job, WSO_ADMIT_BY_POLICY, NULL);
    if (status == WSO_OK) {
        return 0;
    }
    /* As if it had not been tried: the stream may be started again later. */
    feed->shares--;
    wso_link_unlink(&feed->listener.link);
    wso_mailbox_release(feed->mailbox);
    feed->mailbox = NULL;
    Py_CLEAR(feed->context);
    wso_pool_raise(feed->pool, status);
    return -1;
}
