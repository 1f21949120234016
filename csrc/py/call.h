/* A call: the job that runs a Python callable. See callable.c for who owns it and when.
 */
#ifndef WSO_CALL_H
#define WSO_CALL_H

#include "module.h"

enum wso_call_kind { WSO_CALL_RUN, WSO_CALL_SUBMIT };

/* What is decided about a running call whose future waits for its end. */
enum wso_verdict { WSO_VERDICT_NONE, WSO_VERDICT_CANCEL, WSO_VERDICT_TIMEOUT };

struct wso_call {
    struct wso_job job;
    struct wso_mail mail;
    struct wso_pool_object *pool;
    struct wso_caller *caller;   /* NULL: no settings */
    struct wso_mailbox *mailbox; /* shared; NULL for submit */
    PyObject *function;
    PyObject *args;
    PyObject *kwargs;
    PyObject *context;
    PyObject *future;
    PyObject *outcome; /* the result or the exception */
    PyObject *message; /* of cancel, while the future waits */
    PyObject *timer;
    PyObject *queue_timer;
    unsigned char kind;
    unsigned char verdict;
    unsigned char status;
    bool failed;    /* the outcome is an exception */
    bool ended;     /* the callable has returned or will not be called */
    bool unlinking; /* taken off the queue by its own future: nobody is to be told */
    bool unwanted;  /* the future is done already */
};

/* callable.c. Attached. */
void wso_call_free(struct wso_call *call);
void wso_call_run_job(struct wso_job *job);
void wso_call_run_done(struct wso_job *job, int status);
void wso_call_submit_done(struct wso_job *job, int status);
void wso_call_deliver(struct wso_mail *mail);
void wso_call_drop(struct wso_mail *mail);

/* call_time.c. On the loop's thread. */
int wso_call_start_timers(struct wso_call *call, PyObject *loop);
/* The error indicator is kept. */
void wso_call_cancel_timers(struct wso_call *call);
PyObject *wso_call_timeout_error(struct wso_call *call, bool in_queue, bool was_queued);

#endif
