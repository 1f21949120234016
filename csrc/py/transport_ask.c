/* The transport's ways to its wire, of which another thread may be in the way, and to its loop. */
#include "transport.h"

bool wso_transport_wait(struct wso_transport *transport)
{
    /* Whoever runs meanwhile may let the transport's share go. */
    struct wso_wire *wire = wso_wire_share(transport->wire);
    Py_BEGIN_ALLOW_THREADS
    wso_wire_wait(wire);
    Py_END_ALLOW_THREADS
    wso_wire_release(wire);
    return !transport->lost;
}

void wso_transport_take_news(struct wso_transport *transport, const struct wso_wire_news *news)
{
    /* The guard's thread may be the one whose write has failed: then what waited is gone. */
    bool waited = transport->news.unsent > 0 || transport->output_failed;
    transport->output_failed = news->write_error != 0 && waited;
    transport->news = *news;
}

bool wso_transport_ask(struct wso_transport *transport,
                       int (*call)(struct wso_wire *wire, struct wso_wire_news *news))
{
    if (transport->conn_lost > 0) {
        return false;
    }
    struct wso_wire_news news;
    int status;
    do {
        status = call(transport->wire, &news);
    } while (status == WSO_EBUSY && wso_transport_wait(transport));
    if (status != WSO_OK || transport->conn_lost > 0) {
        return false;
    }
    wso_transport_take_news(transport, &news);
    return true;
}

int wso_transport_tell_loop(struct wso_transport *transport, PyObject *method, PyObject *first,
                            PyObject *second)
{
    if (transport->loop == NULL) {
        return 0;
    }
    PyObject *loop = Py_NewRef(transport->loop);
    PyObject *answer = PyObject_CallMethodObjArgs(loop, method, first, second, NULL);
    Py_DECREF(loop);
    Py_XDECREF(answer);
    return answer == NULL ? -1 : 0;
}

bool wso_transport_lets_through(void)
{
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
           PyErr_ExceptionMatches(PyExc_SystemExit);
}

int wso_transport_report_exception(struct wso_transport *transport, const char *message,
                                   PyObject *exception)
{
    PyObject *protocol = transport->protocol == NULL ? Py_None : transport->protocol;
    PyObject *report =
        Py_BuildValue("{s:s,s:O,s:O,s:O}", "message", message, "exception", exception, "transport",
                      (PyObject *)transport, "protocol", protocol);
    int status = report == NULL ? -1
                                : wso_transport_tell_loop(
                                      transport, transport->state->str_call_exception_handler,
                                      report, NULL);
    Py_XDECREF(report);
    return status;
}

int wso_transport_report(struct wso_transport *transport, const char *message)
{
    if (wso_transport_lets_through()) {
        return -1;
    }
    PyObject *exception = wso_take_exception();
    int status = wso_transport_report_exception(transport, message, exception);
    Py_DECREF(exception);
    return status;
}

/* logger.debug(format, transport[, message], exc_info=exception) */
static PyObject *log_debug(struct wso_transport *transport, const char *message,
                           PyObject *exception)
{
    PyObject *logger = transport->state->logger;
    PyObject *method = PyObject_GetAttr(logger, transport->state->str_debug);
    PyObject *args = exception == NULL
                         ? Py_BuildValue("(sO)", message, (PyObject *)transport)
                         : Py_BuildValue("(sOs)", "%r: %s", (PyObject *)transport, message);
    PyObject *kwargs = exception == NULL ? NULL : Py_BuildValue("{s:O}", "exc_info", exception);
    PyObject *answer = NULL;
    if (method != NULL && args != NULL && (exception == NULL || kwargs != NULL)) {
        answer = PyObject_Call(method, args, kwargs);
    }
    Py_XDECREF(method);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return answer;
}

int wso_transport_debug(struct wso_transport *transport, const char *message, PyObject *exception)
{
    if (transport->loop == NULL) {
        return 0;
    }
    PyObject *loop = Py_NewRef(transport->loop);
    PyObject *answer = PyObject_CallMethodNoArgs(loop, transport->state->str_get_debug);
    Py_DECREF(loop);
    int debug = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    if (debug <= 0) {
        return debug;
    }
    answer = log_debug(transport, message, exception);
    Py_XDECREF(answer);
    return answer == NULL ? -1 : 0;
}
