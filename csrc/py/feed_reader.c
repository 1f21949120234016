/* A stream's reader's side of the feed, on the loop's thread: what it takes, how it is told that there
 * is something, and how it goes. See feed.h for who owns what.
 */
#include "feed.h"

PyObject *wso_feed_take(struct wso_feed *feed)
{
    PyObject *item = NULL;
    wso_lock_acquire(&feed->lock);
    if (feed->count > 0) {
        item = feed->items[feed->first];
        feed->first = (feed->first + 1) % feed->capacity;
        feed->count--;
        /* Half empty, so that the two threads do not take turns item by item. */
        if (feed->producer_waits && feed->count <= feed->capacity / 2) {
            wso_cond_signal(&feed->space);
        }
    } else {
        feed->reader_waits = true;
    }
    wso_lock_release(&feed->lock);
    return item;
}

bool wso_feed_has_item(struct wso_feed *feed)
{
    wso_lock_acquire(&feed->lock);
    bool has = feed->count > 0;
    wso_lock_release(&feed->lock);
    return has;
}

bool wso_feed_exhausted(struct wso_feed *feed)
{
    wso_lock_acquire(&feed->lock);
    bool exhausted = feed->count == 0 && (feed->ended || feed->left);
    wso_lock_release(&feed->lock);
    return exhausted;
}

PyObject *wso_feed_take_error(struct wso_feed *feed)
{
    wso_lock_acquire(&feed->lock);
    PyObject *error = feed->error;
    feed->error = NULL;
    wso_lock_release(&feed->lock);
    return error;
}

static void wake(struct wso_feed *feed, PyObject *future)
{
    struct module_state *state = feed->pool->state;
    /* Of two that must be let out of the loop, the first. */
    PyObject *raised = PyErr_Occurred() ? wso_take_exception() : NULL;
    (void)wso_settle(state, future, state->str_set_result, Py_None);
    if (raised != NULL) {
        PyErr_Clear();
        wso_give_exception(raised);
    }
}

/* Tell the waiting reader that there is something to look at. */
static void serve_waiter(struct wso_feed *feed)
{
    if (!wso_feed_has_item(feed) && !wso_feed_exhausted(feed)) {
        return;
    }
    PyObject *waiter = feed->waiter;
    feed->waiter = NULL;
    wake(feed, waiter);
    Py_DECREF(waiter);
}

void wso_feed_deliver(struct wso_mail *mail)
{
    struct wso_feed *feed = WSO_ITEM(mail, struct wso_feed, mail);
    wso_lock_acquire(&feed->lock);
    feed->posted = false;
    wso_lock_release(&feed->lock);
    if (feed->waiter != NULL) {
        serve_waiter(feed);
    }
    PyObject *waiters = feed->close_waiters;
    if (feed->job_over && waiters != NULL) {
        feed->close_waiters = NULL;
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(waiters); i++) {
            wake(feed, PyList_GET_ITEM(waiters, i));
        }
        Py_DECREF(waiters);
    }
    wso_feed_release(feed);
}

void wso_feed_drop(struct wso_mail *mail)
{
    wso_feed_release(WSO_ITEM(mail, struct wso_feed, mail));
}

/* As wso_feed_leave, but for the waiting reader. */
static void leave(struct wso_feed *feed, PyObject *error, bool abandon)
{
    struct wso_pool *core = feed->pool->streams;
    wso_lock_acquire(&feed->lock);
    /* What has ended and is empty is not cut short; otherwise the reader learns of this error only,
     * and where it leaves by itself, of none. */
    bool cut_short = !feed->left && (!feed->ended || feed->count > 0);
    PyObject *before = NULL;
    if (cut_short || error == NULL) {
        before = feed->error;
        feed->error = error;
        error = NULL;
    }
    bool running = !feed->ended;
    feed->left = true;
    wso_cond_signal(&feed->space);
    wso_lock_release(&feed->lock);
    Py_XDECREF(error);
    Py_XDECREF(before);
    /* The buffer is ours alone now: a producer that finds `left` puts nothing in. */
    PyObject *item;
    while ((item = wso_feed_take(feed)) != NULL) {
        Py_DECREF(item);
    }
    if (running && !wso_pool_cancel(core, &feed->job, WSO_ECANCELLED) && abandon) {
        feed->abandoned = true;
        wso_pool_abandon(core, &feed->job);
    }
}

void wso_feed_loop_gone(struct wso_listener *listener)
{
    struct wso_feed *feed = WSO_ITEM(listener, struct wso_feed, listener);
    /* A future cannot be settled on a closed loop. */
    feed->shares++;
    Py_CLEAR(feed->waiter);
    leave(feed, NULL, true);
    wso_feed_release(feed);
}

/* On whichever thread ends the process: a waiting reader is told on its own. */
void wso_feed_process_ends(struct wso_listener *listener)
{
    struct wso_feed *feed = WSO_ITEM(listener, struct wso_feed, listener);
    if (feed->ended) {
        return;
    }
    PyErr_SetString(PyExc_RuntimeError, "the stream was cut short by interpreter shutdown");
    feed->shares++;
    leave(feed, wso_take_exception(), true);
    wso_feed_post(feed, true);
    wso_feed_release(feed);
}

void wso_feed_leave(struct wso_feed *feed, PyObject *error, bool abandon)
{
    leave(feed, error, abandon);
    if (feed->waiter != NULL) {
        serve_waiter(feed);
    }
}
