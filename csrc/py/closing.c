/* The type Closing: a future of the running loop that is settled when a closed pool has finished.
 *
 * Two turns, one for each of the Pool's cores, come on whichever thread ends last, without the GIL;
 * the last of them posts the mail. Until that mail is delivered, or the turns are taken back, the
 * object holds a reference to itself, because the cores and the mailbox point into it.
 */
#include "module.h"

#include <stddef.h>

enum { CORES = 2 };

struct wso_closing {
    PyObject_HEAD
    struct wso_pool_object *pool;
    struct wso_mailbox *mailbox; /* shared */
    struct wso_mail mail;
    struct wso_listener listener; /* hears of the loop's end */
    PyObject *future; /* NULL once nobody waits for it */
    atomic_int open; /* turns that have not come; whoever brings it to 0 ends the self-reference */
    struct closing_turn {
        struct wso_turn turn;
        struct wso_closing *closing;
        bool registered;
    } turns[CORES];
};

static struct wso_closing *closing_of(PyObject *self)
{
    return (struct wso_closing *)self;
}

static struct wso_pool *core_of(struct wso_closing *closing, int i)
{
    return i == 0 ? closing->pool->calls : closing->pool->streams;
}

/* Any thread, without the GIL. */
static void come(struct wso_turn *turn)
{
    struct wso_closing *closing = WSO_ITEM(turn, struct closing_turn, turn)->closing;
    if (atomic_fetch_sub(&closing->open, 1) != 1) {
        return;
    }
    struct wso_mailbox *mailbox = wso_mailbox_share(closing->mailbox);
    /* Refused where the loop has gone: the object then stays, because nothing here may touch it. */
    if (wso_mailbox_post(mailbox, &closing->mail) == WSO_OK) {
        wso_mailbox_ring(mailbox);
    }
    wso_mailbox_release(mailbox);
}

static void deliver(struct wso_mail *mail)
{
    struct wso_closing *closing = WSO_ITEM(mail, struct wso_closing, mail);
    struct module_state *state = closing->pool->state;
    if (closing->future != NULL) {
        (void)wso_settle(state, closing->future, state->str_set_result, Py_None);
    }
    Py_DECREF(closing);
}

static void drop(struct wso_mail *mail)
{
    Py_DECREF(WSO_ITEM(mail, struct wso_closing, mail));
}

/* Wait for the cores; what has finished already counts as come. */
static void wait_for_cores(struct wso_closing *closing)
{
    atomic_init(&closing->open, CORES);
    Py_INCREF(closing);
    for (int i = 0; i < CORES; i++) {
        closing->turns[i].closing = closing;
        closing->turns[i].turn.come = come;
        /* Before the turn can come. */
        closing->turns[i].registered = true;
        if (wso_pool_when_finished(core_of(closing, i), &closing->turns[i].turn)) {
            closing->turns[i].registered = false;
            come(&closing->turns[i].turn);
        }
    }
}

/* Nobody is to be told any more. */
static void take_turns_back(struct wso_closing *closing)
{
    struct wso_pool_object *pool = closing->pool;
    if (pool->generation != atomic_load(&pool->state->runtime->generation)) {
        /* In the child of a fork the turns stand in the parent's line. */
        return;
    }
    for (int i = 0; i < CORES; i++) {
        struct closing_turn *turn = &closing->turns[i];
        if (turn->registered && wso_pool_retract(core_of(closing, i), &turn->turn)) {
            turn->registered = false;
            if (atomic_fetch_sub(&closing->open, 1) == 1) {
                Py_DECREF(closing);
            }
        }
    }
}

static void loop_gone(struct wso_listener *listener)
{
    struct wso_closing *closing = WSO_ITEM(listener, struct wso_closing, listener);
    /* Taking back may drop the last reference. */
    Py_INCREF(closing);
    take_turns_back(closing);
    Py_CLEAR(closing->future);
    Py_DECREF(closing);
}

PyDoc_STRVAR(closing_doc, "Closing(pool, /)\n--\n\n"
                          "`future` is settled when the closed pool has finished.");

static PyObject *closing_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct module_state *state = wso_state_of_type(type);
    PyObject *pool;
    static char *positional[] = {"", NULL};
    if (state == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!:Closing", positional,
                                                      state->pool_type, &pool)) {
        return NULL;
    }
    struct wso_pool_object *pool_object = (struct wso_pool_object *)pool;
    if (!wso_pool_usable(pool_object)) {
        return NULL;
    }
    struct wso_hub *hub = wso_hub_of_running_loop(state, "aclose()");
    if (hub == NULL) {
        return NULL;
    }
    struct wso_closing *closing = (struct wso_closing *)type->tp_alloc(type, 0);
    if (closing == NULL) {
        return NULL;
    }
    closing->pool = (struct wso_pool_object *)Py_NewRef(pool);
    closing->mailbox = wso_mailbox_share(hub->mailbox);
    closing->mail.deliver = deliver;
    closing->mail.drop = drop;
    closing->listener.loop_gone = loop_gone;
    closing->future = PyObject_CallMethodNoArgs(hub->loop, state->str_create_future);
    if (closing->future == NULL) {
        Py_DECREF(closing);
        return NULL;
    }
    wso_list_push_back(&hub->listeners, &closing->listener.link);
    wait_for_cores(closing);
    return (PyObject *)closing;
}

PyDoc_STRVAR(cancel_doc, "cancel($self, /)\n--\n\nNobody waits for the future any more.");

static PyObject *closing_cancel(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_closing *closing = closing_of(self);
    take_turns_back(closing);
    /* An exception in it would hold the frame that holds this object. */
    Py_CLEAR(closing->future);
    Py_RETURN_NONE;
}

static PyObject *closing_future(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *future = closing_of(self)->future;
    return Py_NewRef(future == NULL ? Py_None : future);
}

static void closing_dealloc(PyObject *self)
{
    struct wso_closing *closing = closing_of(self);
    PyTypeObject *type = Py_TYPE(self);
    if (wso_link_listed(&closing->listener.link)) {
        wso_link_unlink(&closing->listener.link);
    }
    if (closing->mailbox != NULL) {
        wso_mailbox_release(closing->mailbox);
    }
    Py_XDECREF(closing->future);
    Py_XDECREF(closing->pool);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef closing_methods[] = {
    {"cancel", closing_cancel, METH_NOARGS, cancel_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef closing_getset[] = {
    {"future", closing_future, NULL, "Settled with None when the pool has finished.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot closing_slots[] = {
    {Py_tp_doc, (void *)closing_doc},
    {Py_tp_new, closing_new},
    {Py_tp_methods, closing_methods},
    {Py_tp_getset, closing_getset},
    {Py_tp_dealloc, closing_dealloc},
    {0, NULL},
};

PyType_Spec wso_closing_spec = {
    .name = "wsoffload._core.Closing",
    .basicsize = sizeof(struct wso_closing),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = closing_slots,
};
