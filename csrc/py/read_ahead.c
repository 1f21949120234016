/* The type ReadAhead: memory for what the guard reads ahead, shared by the connections of one Guard.
 *
 * In the child of a fork the pool is the parent's, locks and all: the first who asks makes a new one.
 */
#include "module.h"
#include "pages.h"

struct read_ahead {
    PyObject_HEAD
    struct module_state *state;
    struct wso_pages *pages; /* shared */
    uint64_t total;
    unsigned generation;
};

static struct read_ahead *read_ahead_of(PyObject *self)
{
    return (struct read_ahead *)self;
}

static bool is_foreign(const struct read_ahead *ahead)
{
    return ahead->generation != atomic_load(&ahead->state->runtime->generation);
}

struct wso_pages *wso_read_ahead_pages(PyObject *self)
{
    struct read_ahead *ahead = read_ahead_of(self);
    if (ahead->pages == NULL || is_foreign(ahead)) {
        struct wso_pages *pages;
        int status = wso_pages_new(ahead->total, &pages);
        if (status != WSO_OK) {
            wso_raise(ahead->state, status);
            return NULL;
        }
        ahead->pages = pages;
        ahead->generation = atomic_load(&ahead->state->runtime->generation);
    }
    return ahead->pages;
}

PyDoc_STRVAR(read_ahead_doc, "ReadAhead(total, /)\n--\n\n"
                             "Memory for bytes that the guard reads ahead, at most `total` of it.");

static PyObject *read_ahead_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct module_state *state = wso_state_of_type(type);
    long long total;
    static char *positional[] = {"", NULL};
    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "L:ReadAhead", positional, &total)) {
        return NULL;
    }
    if (total < 0) {
        PyErr_SetString(PyExc_ValueError, "total must not be negative");
        return NULL;
    }
    struct read_ahead *ahead = (struct read_ahead *)type->tp_alloc(type, 0);
    if (ahead == NULL) {
        return NULL;
    }
    ahead->state = state;
    ahead->total = (uint64_t)total;
    if (wso_read_ahead_pages((PyObject *)ahead) == NULL) {
        Py_DECREF(ahead);
        return NULL;
    }
    return (PyObject *)ahead;
}

static PyObject *read_ahead_lent(PyObject *self, void *Py_UNUSED(closure))
{
    struct read_ahead *ahead = read_ahead_of(self);
    return PyLong_FromUnsignedLongLong(is_foreign(ahead) ? 0 : wso_pages_lent(ahead->pages));
}

static void read_ahead_dealloc(PyObject *self)
{
    struct read_ahead *ahead = read_ahead_of(self);
    PyTypeObject *type = Py_TYPE(self);
    if (ahead->pages != NULL && !is_foreign(ahead)) {
        wso_pages_release(ahead->pages);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static PyGetSetDef read_ahead_getset[] = {
    {"lent", read_ahead_lent, NULL, "Bytes of it in use.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot read_ahead_slots[] = {
    {Py_tp_doc, (void *)read_ahead_doc},
    {Py_tp_new, read_ahead_new},
    {Py_tp_getset, read_ahead_getset},
    {Py_tp_dealloc, read_ahead_dealloc},
    {0, NULL},
};

PyType_Spec wso_read_ahead_spec = {
    .name = "wsoffload._core.ReadAhead",
    .basicsize = sizeof(struct read_ahead),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = read_ahead_slots,
};
