/* The end of a process's pools and its guard: at exit, and in the child of a fork; and the register of
 * all cores, by which the exit finds them. A core stays registered until its threads have ended, also
 * when its Pool is gone.
 */
#include "module.h"

struct registered {
    struct wso_link link;
    struct wso_pool *core; /* shared */
    bool orphan;           /* its Pool is gone; may be forgotten once its threads are */
};

static void forget(struct registered *entry)
{
    wso_link_unlink(&entry->link);
    wso_pool_release(entry->core);
    PyMem_RawFree(entry);
}

void wso_registry_forget_ended(struct wso_runtime *runtime)
{
    struct wso_link *link = runtime->pools.head.next;
    while (link != &runtime->pools.head) {
        struct registered *entry = WSO_ITEM(link, struct registered, link);
        link = link->next;
        struct wso_pool_stats stats;
        wso_pool_stats(entry->core, &stats);
        if (entry->orphan && stats.threads == 0) {
            forget(entry);
        }
    }
}

int wso_registry_open(struct module_state *state, const struct wso_pool_config *config,
                     struct wso_pool **core)
{
    struct registered *entry = PyMem_RawCalloc(1, sizeof *entry);
    int status = entry == NULL ? WSO_ENOMEM : wso_pool_new(config, core);
    if (status != WSO_OK) {
        PyMem_RawFree(entry);
        wso_raise(state, status);
        return -1;
    }
    entry->core = wso_pool_share(*core);
    wso_list_push_back(&state->runtime->pools, &entry->link);
    return 0;
}

void wso_registry_close(struct wso_runtime *runtime, struct wso_pool *core)
{
    if (core == NULL) {
        return;
    }
    wso_pool_disown(core);
    wso_pool_close(core, WSO_ECLOSED);
    for (struct wso_link *link = runtime->pools.head.next; link != &runtime->pools.head;
         link = link->next) {
        struct registered *entry = WSO_ITEM(link, struct registered, link);
        entry->orphan = entry->orphan || entry->core == core;
    }
    wso_pool_release(core);
}

int wso_registry_wait(struct module_state *state, struct wso_pool *core)
{
    int status;
    do {
        Py_BEGIN_ALLOW_THREADS
        status = wso_pool_wait(core);
        Py_END_ALLOW_THREADS
        if (status == WSO_EINTR && PyErr_CheckSignals() < 0) {
            return -1;
        }
    } while (status == WSO_EINTR);
    if (status != WSO_OK) {
        wso_raise(state, status);
        return -1;
    }
    return 0;
}

PyObject *wso_leave(PyObject *module, PyObject *Py_UNUSED(unused))
{
    struct module_state *state = PyModule_GetState(module);
    struct wso_runtime *runtime = state->runtime;
    runtime->leaving = true;
    wso_hubs_process_ends(state);
    /* All are told before any is waited for: a job of one may wait for a job of another. */
    struct wso_list pools;
    wso_list_init(&pools);
    wso_list_take_all(&pools, &runtime->pools);
    for (struct wso_link *link = pools.head.next; link != &pools.head; link = link->next) {
        wso_pool_leave(WSO_ITEM(link, struct registered, link)->core, !runtime->is_main);
        PyObject *raised = wso_py_thread_take_raised();
        if (raised != NULL) {
            wso_give_exception(raised);
            PyErr_WriteUnraisable(NULL);
        }
    }
    struct wso_link *link;
    int status = 0;
    while (status == 0 && (link = wso_list_first(&pools)) != NULL) {
        struct registered *entry = WSO_ITEM(link, struct registered, link);
        status = wso_registry_wait(state, entry->core);
        forget(entry);
    }
    /* Also after Ctrl-C: what still runs is left behind. */
    atomic_store(&runtime->exited, true);
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *wso_after_fork(PyObject *module, PyObject *Py_UNUSED(unused))
{
    struct module_state *state = PyModule_GetState(module);
    /* No lock is taken and nothing is freed: what was made before belongs to the parent, and is
     * known by its generation. */
    atomic_fetch_add(&state->runtime->generation, 1);
    wso_list_init(&state->runtime->pools);
    state->runtime->guard = NULL;
    Py_RETURN_NONE;
}
