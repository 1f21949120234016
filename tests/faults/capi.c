/* Makes the Nth call of the binding that can fail for want of memory, threads or descriptors do so.
 *
 * Linked into a copy of the extension with -Wl,--wrap for each name below; the copy is then armed
 * from Python through ctypes. Only the extension's own calls are counted, not the interpreter's.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>

#define EXPORTED __attribute__((visibility("default")))

/* Calls until the one that fails; 0 when nothing is to fail. */
static atomic_long countdown;
static atomic_long failures;

EXPORTED void fault_arm(long n)
{
    atomic_store(&failures, 0);
    atomic_store(&countdown, n);
}

/* Stop; how many calls were made to fail: 0 or 1. */
EXPORTED long fault_disarm(void)
{
    atomic_store(&countdown, 0);
    return atomic_load(&failures);
}

static int fails(void)
{
    long left = atomic_load(&countdown);
    while (left > 0) {
        if (atomic_compare_exchange_weak(&countdown, &left, left - 1)) {
            if (left == 1) {
                atomic_fetch_add(&failures, 1);
                return 1;
            }
            return 0;
        }
    }
    return 0;
}

static PyObject *no_memory(void)
{
    return PyErr_NoMemory();
}

#define WRAP(result, name, parameters, arguments, failed)                                          \
    result __real_##name parameters;                                                               \
    result __wrap_##name parameters;                                                               \
    result __wrap_##name parameters                                                                \
    {                                                                                              \
        return fails() ? (failed) : __real_##name arguments;                                       \
    }
#define WRAP_OBJECT(name, parameters, arguments)                                                   \
    WRAP(PyObject *, name, parameters, arguments, no_memory())
#define WRAP_INT(name, parameters, arguments)                                                      \
    WRAP(int, name, parameters, arguments, (no_memory(), -1))

WRAP_OBJECT(PyContext_CopyCurrent, (void), ())
WRAP_OBJECT(PyDict_New, (void), ())
WRAP_INT(PyDict_SetItem, (PyObject * d, PyObject *k, PyObject *v), (d, k, v))
WRAP_OBJECT(PyFloat_FromDouble, (double d), (d))
WRAP_INT(PyList_Append, (PyObject * l, PyObject *o), (l, o))
WRAP_OBJECT(PyList_New, (Py_ssize_t n), (n))
WRAP_OBJECT(PyLong_FromLong, (long n), (n))
WRAP_OBJECT(PyObject_Call, (PyObject * o, PyObject *a, PyObject *k), (o, a, k))
WRAP_OBJECT(PyObject_CallNoArgs, (PyObject * o), (o))
WRAP_OBJECT(PyObject_CallOneArg, (PyObject * o, PyObject *a), (o, a))
WRAP_OBJECT(PyObject_GetAttr, (PyObject * o, PyObject *n), (o, n))
WRAP_OBJECT(PyObject_GetAttrString, (PyObject * o, const char *n), (o, n))
WRAP_OBJECT(PyObject_GetIter, (PyObject * o), (o))
WRAP_OBJECT(PyObject_Vectorcall, (PyObject * o, PyObject *const *a, size_t n, PyObject *k),
            (o, a, n, k))
WRAP_OBJECT(PyObject_VectorcallMethod, (PyObject * m, PyObject *const *a, size_t n, PyObject *k),
            (m, a, n, k))
WRAP_OBJECT(PyTuple_New, (Py_ssize_t n), (n))
WRAP_OBJECT(_PyObject_GC_New, (PyTypeObject * t), (t))
WRAP(void *, PyMem_Calloc, (size_t n, size_t s), (n, s), NULL)
WRAP(void *, PyMem_RawCalloc, (size_t n, size_t s), (n, s), NULL)
WRAP(PyThreadState *, PyThreadState_New, (PyInterpreterState * i), (i), NULL)
WRAP(void *, calloc, (size_t n, size_t s), (n, s), NULL)
WRAP(int, eventfd, (unsigned n, int f), (n, f), (errno = EMFILE, -1))
WRAP(int, pthread_create,
     (pthread_t * t, const pthread_attr_t *a, void *(*f)(void *), void *x), (t, a, f, x), EAGAIN)
WRAP(int, pthread_mutex_init, (pthread_mutex_t * m, const pthread_mutexattr_t *a), (m, a), ENOMEM)
WRAP(int, pthread_cond_init, (pthread_cond_t * c, const pthread_condattr_t *a), (c, a), ENOMEM)
WRAP(int, sem_init, (sem_t * s, int p, unsigned v), (s, p, v), (errno = ENOSPC, -1))

/* The variadic ones, for as many arguments as the extension gives. */
PyObject *__wrap_PyObject_CallMethodObjArgs(PyObject *object, PyObject *name, ...);
PyObject *__wrap_PyObject_CallMethodObjArgs(PyObject *object, PyObject *name, ...)
{
    PyObject *stack[8] = {object};
    size_t n = 1;
    va_list arguments;
    va_start(arguments, name);
    while (n < 8 && (stack[n] = va_arg(arguments, PyObject *)) != NULL) {
        n++;
    }
    va_end(arguments);
    return fails() ? no_memory() : PyObject_VectorcallMethod(name, stack, n, NULL);
}

PyObject *__wrap__Py_BuildValue_SizeT(const char *format, ...);
PyObject *__wrap__Py_BuildValue_SizeT(const char *format, ...)
{
    if (fails()) {
        return no_memory();
    }
    va_list arguments;
    va_start(arguments, format);
    PyObject *value = Py_VaBuildValue(format, arguments);
    va_end(arguments);
    return value;
}

PyObject *__wrap_PyUnicode_FromFormat(const char *format, ...);
PyObject *__wrap_PyUnicode_FromFormat(const char *format, ...)
{
    if (fails()) {
        return no_memory();
    }
    va_list arguments;
    va_start(arguments, format);
    PyObject *value = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    return value;
}
