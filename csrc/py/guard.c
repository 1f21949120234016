/* The guard and the loops: a ward of the core for each loop with guarded connections, and what the
 * guard's thread has to say to them.
 *
 * Life: the first connection that is guarded makes the guard, whose thread ends at exit; the first of a
 * loop makes its ward, which goes silent with the loop's hub. Connections share the ward. A post of the
 * ward points to its transport, which removes it before it goes.
 */
#include "guard.h"
#include "transport.h"

#include "clock.h"

struct wso_loop_ward {
    struct wso_listener listener; /* of the hub */
    struct module_state *state;
    struct wso_hub *hub; /* borrowed; NULL once the loop is gone */
    struct wso_ward *ward;
    unsigned shares; /* of the hub and of transports; the GIL guards it */
};

static void release(struct wso_loop_ward *ward)
{
    if (--ward->shares == 0) {
        wso_ward_release(ward->ward);
        PyMem_RawFree(ward);
    }
}

static void loop_gone(struct wso_listener *listener)
{
    struct wso_loop_ward *ward = WSO_ITEM(listener, struct wso_loop_ward, listener);
    ward->hub->ward = NULL;
    ward->hub = NULL;
    wso_ward_close(ward->ward);
    release(ward);
}

static struct wso_guard *guard_of(struct module_state *state)
{
    struct wso_runtime *runtime = state->runtime;
    if (runtime->guard == NULL) {
        int status = wso_guard_new(&runtime->guard);
        if (status != WSO_OK) {
            wso_raise(state, status);
        }
    }
    return runtime->guard;
}

int wso_guard_time(struct module_state *state, uint64_t *now)
{
    struct wso_guard *guard = guard_of(state);
    if (guard == NULL) {
        return -1;
    }
    *now = wso_guard_now(guard);
    return 0;
}

/* Run one part of what a transport is told, in the context of its own. */
static void run_in_context(struct wso_transport *transport,
                           int (*part)(struct wso_transport *transport))
{
    PyObject *context = Py_XNewRef(transport->context);
    bool entered = context != NULL && PyContext_Enter(context) == 0;
    if (!entered) {
        /* A loop within a callback of the connection: this is its context already. */
        PyErr_Clear();
    }
    if (part(transport) < 0 &&
        wso_transport_report(transport, "Exception in a callback of a guarded connection") < 0 &&
        !wso_transport_lets_through()) {
        PyErr_WriteUnraisable((PyObject *)transport);
    }
    if (entered) {
        PyObject *raised = PyErr_Occurred() ? wso_take_exception() : NULL;
        (void)PyContext_Exit(context);
        if (raised != NULL) {
            wso_give_exception(raised);
        }
    }
    Py_XDECREF(context);
}

/* The peer seems dead: look once more, and tell who wants to know. */
static int confirm_dead(struct wso_transport *transport)
{
    uint64_t now;
    bool dead = false;
    if (transport->post == NULL || wso_guard_time(transport->state, &now) < 0) {
        return transport->post == NULL ? 0 : -1;
    }
    int status;
    do {
        status = wso_wire_confirm_dead(transport->wire, now, &dead);
    } while (status == WSO_EBUSY && wso_transport_wait(transport));
    PyObject *on_dead = transport->on_dead;
    if (status != WSO_OK || !dead || on_dead == NULL) {
        return 0;
    }
    transport->on_dead = NULL;
    PyObject *answer = PyObject_CallNoArgs(on_dead);
    Py_DECREF(on_dead);
    Py_XDECREF(answer);
    return answer == NULL ? -1 : 0;
}

/* Put what was done for this transport on the list, which is made if need be. */
static int note_rescue(PyObject **rescues, PyObject *transport, const struct wso_rescue *rescue)
{
    PyObject *row = Py_BuildValue(
        "(OdKKK)", transport, (double)rescue->duration / 1e9,
        (unsigned long long)rescue->answered, (unsigned long long)rescue->pinged,
        (unsigned long long)rescue->read);
    if (*rescues == NULL) {
        *rescues = PyList_New(0);
    }
    int status = row == NULL || *rescues == NULL ? -1 : PyList_Append(*rescues, row);
    Py_XDECREF(row);
    return status;
}

/* Say what was done in the stall. */
static void report_rescues(struct wso_loop_ward *ward, PyObject *rescues)
{
    PyObject *report = ward->state->rescue_report;
    if (report == NULL || rescues == NULL) {
        return;
    }
    report = Py_NewRef(report);
    PyObject *answer = PyObject_CallOneArg(report, rescues);
    if (answer == NULL) {
        PyObject *first = PyTuple_GET_ITEM(PyList_GET_ITEM(rescues, 0), 0);
        if (wso_transport_report(wso_transport_of(first), "the report of a rescue failed") < 0 &&
            !wso_transport_lets_through()) {
            PyErr_WriteUnraisable(report);
        }
    }
    Py_XDECREF(answer);
    Py_DECREF(report);
}

/* The ward has something to say. On the loop's thread, as hub mail: what stays raised leaves the loop. */
static void deliver(void *owner)
{
    struct wso_loop_ward *ward = owner;
    PyObject *rescues = NULL;
    unsigned words = 0;
    struct wso_rescue rescue;
    void *post_owner;
    ward->shares++;
    while (!PyErr_Occurred() && ward->hub != NULL &&
           (post_owner = wso_ward_next(ward->ward, &words, &rescue)) != NULL) {
        PyObject *transport = Py_NewRef((PyObject *)post_owner);
        if (words & WSO_WORD_RESCUE && note_rescue(&rescues, transport, &rescue) < 0) {
            PyErr_WriteUnraisable(transport);
        }
        if (words & WSO_WORD_READY) {
            run_in_context(wso_transport_of(transport), wso_transport_read_ready);
        }
        if (words & WSO_WORD_DEAD && !PyErr_Occurred()) {
            run_in_context(wso_transport_of(transport), confirm_dead);
        }
        Py_DECREF(transport);
    }
    PyObject *raised = PyErr_Occurred() ? wso_take_exception() : NULL;
    report_rescues(ward, rescues);
    Py_XDECREF(rescues);
    if (raised != NULL) {
        if (PyErr_Occurred()) {
            PyErr_WriteUnraisable(NULL);
        }
        wso_give_exception(raised);
    }
    release(ward);
}

/* The ward of this loop, made if need be. */
static struct wso_loop_ward *ward_of(struct module_state *state, struct wso_hub *hub)
{
    struct wso_guard *guard = guard_of(state);
    if (guard == NULL || hub->ward != NULL) {
        return guard == NULL ? NULL : hub->ward;
    }
    struct wso_loop_ward *made = PyMem_RawCalloc(1, sizeof *made);
    int status = made == NULL
                     ? WSO_ENOMEM
                     : wso_ward_new(guard, hub->mailbox, deliver, made, &made->ward);
    if (status != WSO_OK) {
        wso_raise(state, status);
        PyMem_RawFree(made);
        return NULL;
    }
    made->state = state;
    made->hub = hub;
    made->shares = 1;
    made->listener.loop_gone = loop_gone;
    /* At the end of the process the loop may still turn, and what was read ahead waits for it. */
    made->listener.process_ends = NULL;
    wso_list_push_back(&hub->listeners, &made->listener.link);
    hub->ward = made;
    return made;
}

int wso_transport_enter_ward(struct wso_transport *transport, struct wso_hub *hub,
                             uint64_t max_stall)
{
    struct wso_loop_ward *ward = ward_of(transport->state, hub);
    if (ward == NULL) {
        return -1;
    }
    int status = wso_ward_add(ward->ward, transport->wire, transport->fd, max_stall, transport,
                              &transport->post);
    if (status == WSO_ECLOSED) {
        PyErr_SetString(PyExc_RuntimeError, "the guard has ended");
        return -1;
    }
    if (status != WSO_OK) {
        wso_raise(transport->state, status);
        return -1;
    }
    ward->shares++;
    transport->ward = ward;
    return 0;
}

bool wso_transport_is_served(const struct wso_transport *transport)
{
    return transport->ward != NULL && transport->ward->hub != NULL &&
           !transport->state->runtime->guard_ended;
}

void wso_transport_look_soon(struct wso_transport *transport)
{
    wso_ward_look(transport->post);
}

void wso_transport_leave_ward(struct wso_transport *transport, bool detached)
{
    struct wso_post *post = transport->post;
    struct wso_loop_ward *ward = transport->ward;
    if (post == NULL) {
        return;
    }
    transport->post = NULL;
    transport->ward = NULL;
    if (wso_ward_remove_try(post) == WSO_EBUSY) {
        if (detached) {
            Py_BEGIN_ALLOW_THREADS
            wso_ward_remove(post);
            Py_END_ALLOW_THREADS
        } else {
            wso_ward_remove(post);
        }
    }
    release(ward);
}

PyObject *wso_set_rescue_report(PyObject *module, PyObject *function)
{
    struct module_state *state = PyModule_GetState(module);
    if (function != Py_None && !PyCallable_Check(function)) {
        PyErr_SetString(PyExc_TypeError, "a callable or None is needed");
        return NULL;
    }
    Py_XSETREF(state->rescue_report, function == Py_None ? NULL : Py_NewRef(function));
    Py_RETURN_NONE;
}

PyObject *wso_end_guard(PyObject *module, PyObject *Py_UNUSED(unused))
{
    struct module_state *state = PyModule_GetState(module);
    struct wso_guard *guard = state->runtime->guard;
    state->runtime->guard_ended = true;
    if (guard != NULL) {
        Py_BEGIN_ALLOW_THREADS
        wso_guard_stop(guard);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

void wso_guard_forget(struct wso_runtime *runtime)
{
    struct wso_guard *guard = runtime->guard;
    runtime->guard = NULL;
    if (guard != NULL) {
        /* Its thread needs no GIL; at exit it has ended long ago. */
        wso_guard_stop(guard);
        wso_guard_release(guard);
    }
}
