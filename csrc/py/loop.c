/* The hub of one event loop: its mailbox, and the reader callback that settles what lies in it.
 *
 * Life: the loop's table of readers owns the hub (through the bound method given to add_reader) and
 * the hub owns the loop. Closing the loop empties that table, so the hub goes with it, and its
 * descriptor too. Jobs share the mailbox, not the hub: what they post after that is refused.
 *
 * A pass settles a bounded number of calls, so that sockets are served in between; the rest waits
 * for the next turn of the loop, for which the hub rings its own bell.
 */
#include "module.h"

#include <stddef.h>

#include "pulse.h"

/* Calls settled in one pass: about a tenth of a millisecond. */
#define MOST_PER_PASS 256

static struct wso_hub *find_hub(struct module_state *state, PyObject *loop)
{
    for (struct wso_link *link = state->hubs.head.next; link != &state->hubs.head;
         link = link->next) {
        struct wso_hub *hub = WSO_ITEM(link, struct wso_hub, link);
        if (hub->loop == loop && hub->generation == atomic_load(&state->runtime->generation)) {
            return hub;
        }
    }
    return NULL;
}

/* Have the loop call the hub when its bell rings. */
static int add_reader(struct module_state *state, struct wso_hub *hub)
{
    PyObject *drain = PyObject_GetAttrString((PyObject *)hub, "_drain");
    PyObject *fd = PyLong_FromLong(wso_mailbox_fd(hub->mailbox));
    PyObject *answer = NULL;
    if (drain != NULL && fd != NULL) {
        answer =
            PyObject_CallMethodObjArgs(hub->loop, state->str_add_reader, fd, drain, NULL);
    }
    Py_XDECREF(drain);
    Py_XDECREF(fd);
    if (answer == NULL) {
        if (PyErr_ExceptionMatches(PyExc_NotImplementedError) ||
            PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Format(PyExc_RuntimeError,
                         "the event loop %R has no add_reader(), by which wsoffload wakes it: use "
                         "asyncio's selector event loop or uvloop",
                         hub->loop);
        }
        return -1;
    }
    Py_DECREF(answer);
    if (Py_REFCNT(hub) == 1) {
        PyErr_Format(PyExc_RuntimeError,
                     "the event loop %R did not keep the callback given to add_reader(), by which "
                     "wsoffload wakes it: use asyncio's selector event loop or uvloop",
                     hub->loop);
        return -1;
    }
    return 0;
}

/* A new hub, owned by its loop; borrowed by the caller. */
static struct wso_hub *new_hub(struct module_state *state, PyObject *loop)
{
    struct wso_hub *hub = PyObject_GC_New(struct wso_hub, state->hub_type);
    if (hub == NULL) {
        return NULL;
    }
    hub->state = state;
    hub->generation = atomic_load(&state->runtime->generation);
    hub->loop = Py_NewRef(loop);
    hub->mailbox = NULL;
    hub->ward = NULL;
    hub->future_keywords = Py_BuildValue("{s:O}", "loop", loop);
    wso_list_init(&hub->taken);
    wso_list_init(&hub->listeners);
    wso_list_push_back(&state->hubs, &hub->link);
    int status = hub->future_keywords == NULL ? WSO_OK : wso_mailbox_new(&hub->mailbox);
    PyObject_GC_Track(hub);
    if (hub->future_keywords == NULL) {
        Py_DECREF(hub);
        return NULL;
    }
    if (status != WSO_OK) {
        wso_raise(state, status);
        Py_DECREF(hub);
        return NULL;
    }
    int failed = add_reader(state, hub);
    /* From here on the loop owns it, or nobody. */
    Py_DECREF(hub);
    return failed ? NULL : hub;
}

struct wso_hub *wso_hub_of_running_loop(struct module_state *state, const char *caller)
{
    PyObject *loop = PyObject_CallNoArgs(state->get_running_loop);
    if (loop == NULL) {
        return NULL;
    }
    struct wso_hub *hub = NULL;
    if (loop == Py_None) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s needs a running event loop on this thread: call it from a coroutine, or "
                     "use submit() in plain code",
                     caller);
    } else {
        hub = find_hub(state, loop);
        if (hub == NULL) {
            hub = new_hub(state, loop);
        }
    }
    Py_DECREF(loop);
    return hub;
}

int wso_loop_runs_here(struct module_state *state)
{
    PyObject *loop = PyObject_CallNoArgs(state->get_running_loop);
    if (loop == NULL) {
        return -1;
    }
    int runs = loop != Py_None;
    Py_DECREF(loop);
    return runs;
}

uint64_t wso_hub_rings(struct module_state *state)
{
    uint64_t rings = state->closed_rings;
    unsigned generation = atomic_load(&state->runtime->generation);
    for (struct wso_link *link = state->hubs.head.next; link != &state->hubs.head;
         link = link->next) {
        struct wso_hub *hub = WSO_ITEM(link, struct wso_hub, link);
        rings += hub->generation == generation ? wso_mailbox_rings(hub->mailbox) : 0;
    }
    return rings;
}

static void deliver(struct wso_link *link)
{
    struct wso_mail *mail = WSO_ITEM(link, struct wso_mail, link);
    mail->deliver(mail);
}

PyDoc_STRVAR(drain_doc, "_drain($self, /)\n--\n\n"
                        "Settle what has ended; the event loop calls it when the bell rang.");

static PyObject *hub_drain(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct wso_hub *hub = (struct wso_hub *)self;
    if (hub->generation != atomic_load(&hub->state->runtime->generation)) {
        /* The child of a fork goes on with its parent's loop: the bell is the parent's. */
        Py_RETURN_NONE;
    }
    /* Delivering runs other code, which may close the loop and with it let the hub go. */
    Py_INCREF(self);
    wso_mailbox_take(hub->mailbox, &hub->taken);
    struct wso_link *link;
    /* A Ctrl-C that comes meanwhile is let out of the loop; the rest stays for its next run. */
    for (int i = 0; i < MOST_PER_PASS && !PyErr_Occurred() &&
                    (link = wso_list_pop_front(&hub->taken)) != NULL;
         i++) {
        deliver(link);
    }
    if (!wso_list_empty(&hub->taken)) {
        wso_mailbox_ring(hub->mailbox);
    }
    Py_DECREF(self);
    if (PyErr_Occurred()) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static void tell_listeners(struct wso_hub *hub)
{
    struct wso_link *link;
    while ((link = wso_list_pop_front(&hub->listeners)) != NULL) {
        struct wso_listener *listener = WSO_ITEM(link, struct wso_listener, link);
        listener->loop_gone(listener);
    }
}

/* Those to whom the end is nothing stay: they hear of the end of their loop. */
static void gather_listeners(struct wso_hub *hub, struct wso_list *told)
{
    struct wso_link *link = hub->listeners.head.next;
    while (link != &hub->listeners.head) {
        struct wso_listener *listener = WSO_ITEM(link, struct wso_listener, link);
        link = link->next;
        if (listener->process_ends != NULL) {
            wso_link_unlink(&listener->link);
            wso_list_push_back(told, &listener->link);
        }
    }
}

void wso_hubs_process_ends(struct module_state *state)
{
    /* Gathered first, because listeners run other code, which may end them and their hubs. */
    struct wso_list told;
    wso_list_init(&told);
    for (struct wso_link *link = state->hubs.head.next; link != &state->hubs.head;
         link = link->next) {
        struct wso_hub *hub = WSO_ITEM(link, struct wso_hub, link);
        if (hub->generation == atomic_load(&state->runtime->generation)) {
            gather_listeners(hub, &told);
        }
    }
    struct wso_link *link;
    while ((link = wso_list_pop_front(&told)) != NULL) {
        struct wso_listener *listener = WSO_ITEM(link, struct wso_listener, link);
        listener->process_ends(listener);
    }
}

static int hub_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((struct wso_hub *)self)->loop);
    Py_VISIT(((struct wso_hub *)self)->future_keywords);
    return 0;
}

static int hub_clear(PyObject *self)
{
    Py_CLEAR(((struct wso_hub *)self)->loop);
    Py_CLEAR(((struct wso_hub *)self)->future_keywords);
    return 0;
}

/* Nobody will call the loop any more: what lies in the box is dropped. */
static void drop_mail(struct wso_hub *hub)
{
    wso_mailbox_close(hub->mailbox, &hub->taken);
    struct wso_link *link;
    while ((link = wso_list_pop_front(&hub->taken)) != NULL) {
        struct wso_mail *mail = WSO_ITEM(link, struct wso_mail, link);
        hub->state->dropped_results += !wso_pulse_owns(mail);
        mail->drop(mail);
    }
    hub->state->closed_rings += wso_mailbox_rings(hub->mailbox);
    wso_mailbox_release(hub->mailbox);
}

static void hub_dealloc(PyObject *self)
{
    struct wso_hub *hub = (struct wso_hub *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    wso_link_unlink(&hub->link);
    /* In the child of a fork the mailbox may be locked by a thread that is not there. */
    if (hub->mailbox != NULL &&
        hub->generation == atomic_load(&hub->state->runtime->generation)) {
        drop_mail(hub);
        tell_listeners(hub);
    }
    (void)hub_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef hub_methods[] = {
    {"_drain", hub_drain, METH_NOARGS, drain_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot hub_slots[] = {
    {Py_tp_doc, (void *)"One event loop's mailbox."},
    {Py_tp_methods, hub_methods},
    {Py_tp_traverse, hub_traverse},
    {Py_tp_clear, hub_clear},
    {Py_tp_dealloc, hub_dealloc},
    {0, NULL},
};

PyType_Spec wso_hub_spec = {
    .name = "wsoffload._core.Hub",
    .basicsize = sizeof(struct wso_hub),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = hub_slots,
};
