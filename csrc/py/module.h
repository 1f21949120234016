/* What the files of the binding know of each other. No .c file of this folder includes another's
 * header: they meet here.
 *
 * The GIL guards every field below that has no guard of its own ("attached" means holding it). The
 * core's locks are taken attached and for a moment only; whoever holds one never waits for the GIL.
 */
#ifndef WSO_MODULE_H
#define WSO_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdatomic.h>
#include <stdbool.h>

#include "error.h"
#include "list.h"
#include "mailbox.h"
#include "pool.h"

struct wso_guard;
struct wso_pages;

/* What must outlive the module, because threads inside abandoned jobs outlive it: one for each
 * interpreter, never freed. */
struct wso_runtime {
    PyInterpreterState *interpreter;
    bool is_main;
    atomic_uint generation; /* grows in the child of a fork: what was made before is not ours */
    atomic_bool exited;     /* past the exit hook: a thread of ours that wants the GIL parks */
    bool leaving;           /* the exit hook has begun: no new work */
    bool guard_ended;       /* no connection is guarded any more */
    struct wso_list pools;  /* the register of lifecycle.c */
    struct wso_guard *guard; /* NULL until something is guarded */
};

struct module_state {
    struct wso_runtime *runtime;
    PyTypeObject *pool_type;
    PyTypeObject *caller_type;
    PyTypeObject *closing_type;
    PyTypeObject *future_type; /* a subclass of asyncio.Future */
    PyTypeObject *link_type;   /* a base for futures of concurrent.futures */
    PyTypeObject *hub_type;
    PyTypeObject *stream_type;
    PyTypeObject *ready_type;
    PyTypeObject *transport_type; /* a subclass of asyncio.Transport */
    PyTypeObject *read_ahead_type;
    Py_ssize_t future_offset; /* where the future type keeps its call */

    PyObject *queue_full;
    PyObject *dropped;
    PyObject *broken_pool;
    PyObject *cancelled_error;
    PyObject *invalid_state_error; /* a tuple of the two that there are */
    PyObject *get_running_loop; /* None where there is none */
    PyObject *future_cancel;    /* asyncio.Future.cancel */
    PyObject *submit_future;    /* the class of submit's futures; set from Python */
    PyObject *no_arguments;     /* () */
    PyObject *buffered_protocol; /* asyncio.BufferedProtocol */
    PyObject *transport_socket;  /* asyncio.trsock.TransportSocket */
    PyObject *logger;            /* asyncio's */
    PyObject *rescue_report;     /* called after a stall; set from Python, or NULL */

    PyObject *str_add_reader;
    PyObject *str_add_writer;
    PyObject *str_buffer_updated;
    PyObject *str_call_exception_handler;
    PyObject *str_call_later;
    PyObject *str_call_soon;
    PyObject *str_cancel;
    PyObject *str_connection_lost;
    PyObject *str_create_future;
    PyObject *str_data_received;
    PyObject *str_debug;
    PyObject *str_done;
    PyObject *str_eof_received;
    PyObject *str_fileno;
    PyObject *str_get_buffer;
    PyObject *str_get_debug;
    PyObject *str_get_loop;
    PyObject *str_is_closed;
    PyObject *str_new_worker;
    PyObject *str_pause_writing;
    PyObject *str_remove_reader;
    PyObject *str_remove_writer;
    PyObject *str_resume_writing;
    PyObject *str_set_exception;
    PyObject *str_set_result;
    PyObject *str_set_running_or_notify_cancel;
    PyObject *str_close;

    uint8_t *scratch; /* WSO_SCRATCH_SIZE bytes of transport_read.c's; NULL until a transport is made */

    struct wso_list hubs;
    uint64_t closed_rings;    /* of loops that are gone */
    uint64_t dropped_results; /* of jobs whose loop was gone when they ended */
};

/* module.c */
struct module_state *wso_state_of_type(PyTypeObject *type);

/* errors.c: the one translator of core statuses. */
PyObject *wso_exception(struct module_state *state, int status);
void wso_raise(struct module_state *state, int status);
/* The raised exception, normalised, with its traceback; the error indicator is cleared. */
PyObject *wso_take_exception(void);
/* Raise an exception that was taken; takes the reference. */
void wso_give_exception(PyObject *exception);
/* As wso_take_exception, for a future that must not be given a StopIteration. */
PyObject *wso_take_exception_for_future(void);
/* The same for the reader of a stream, which must not be given a StopAsyncIteration either. */
PyObject *wso_take_exception_for_stream(void);

/* settle.c. Attached, on the future's own thread. `value` NULL: making it failed, as is raised. -1:
 * what is raised now is no Exception but a KeyboardInterrupt, say. */
int wso_settle(struct module_state *state, PyObject *future, PyObject *method, PyObject *value);

/* threads.c: the worker's own PyThreadState. */
struct wso_py_thread {
    struct wso_runtime *runtime;
    unsigned generation;
    PyObject *thread;  /* the threading.Thread that stands for it */
    PyThreadState *tstate;
    bool attached;
    uint64_t attached_at;        /* ns, when it last got the GIL from us */
    struct wso_mailbox *to_ring; /* shared; posted to, not rung yet */
    struct wso_pool *pool;       /* the calls of its Pool; identity only */
    /* The job that runs, for check_cancelled. */
    struct wso_job *current;
    bool (*is_unwanted)(struct wso_job *job);
};
extern const struct wso_pool_hooks wso_py_hooks;
/* The calling thread's, or NULL if it is not a worker. */
struct wso_py_thread *wso_py_thread_self(void);
/* Until it is called with NULL: put the representative of a thread that a submit of this thread makes
 * there, as a reference of its own. */
void wso_py_thread_note_made(PyObject **made);
/* What a submit of this thread failed with as WSO_ERAISED; NULL if there is nothing. */
PyObject *wso_py_thread_take_raised(void);
/* On a worker, attached: before and after a job's Python code. */
void wso_py_thread_enter_job(struct wso_py_thread *self, struct wso_job *job,
                             bool (*is_unwanted)(struct wso_job *job));
void wso_py_thread_leave_job(struct wso_py_thread *self);
/* After code of others on a worker: if it forked and this is the child, whose only thread this is,
 * then nothing of the pool here is ours. As with any thread of Python's, the child ends with it. */
void wso_py_thread_end_if_forked(void);
/* Posted to this mailbox: ring when this thread has let the GIL go, or now if it is no worker. */
void wso_py_thread_ring_later(struct wso_mailbox *mailbox);
/* Let the GIL go and take it back around a wait of a worker. */
void wso_py_thread_detach(struct wso_py_thread *self);
void wso_py_thread_attach(struct wso_py_thread *self);
PyObject *wso_check_cancelled(PyObject *module, PyObject *unused);

/* loop.c: one event loop and its mailbox. */
/* Who wants to hear of a loop's end; attached. */
struct wso_listener {
    struct wso_link link;
    /* The loop has gone; once. The link is unlinked before. */
    void (*loop_gone)(struct wso_listener *listener);
    /* The process ends, while the loop may still turn in some thread; NULL where that is nothing. */
    void (*process_ends)(struct wso_listener *listener);
};
struct wso_hub {
    PyObject_HEAD
    struct module_state *state;
    struct wso_link link; /* in the state's hubs */
    PyObject *loop;
    PyObject *future_keywords; /* {"loop": loop}, for making futures */
    struct wso_mailbox *mailbox;
    struct wso_list taken; /* mail beyond the bound of one pass */
    struct wso_list listeners;
    struct wso_loop_ward *ward; /* guard.c's; NULL until something on this loop is guarded */
    unsigned generation;
};
/* Borrowed; raises RuntimeError where no loop runs on this thread or it cannot be woken. */
struct wso_hub *wso_hub_of_running_loop(struct module_state *state, const char *caller);
/* -1 on error, else whether this thread runs an event loop. */
int wso_loop_runs_here(struct module_state *state);
uint64_t wso_hub_rings(struct module_state *state);
void wso_hubs_process_ends(struct module_state *state);
extern PyType_Spec wso_hub_spec;

/* pool.c */
struct wso_pool_object {
    PyObject_HEAD
    struct module_state *state;
    struct wso_pool *calls;
    struct wso_pool *streams;
    unsigned generation;
    enum wso_policy when_full;
    bool cancelling; /* shutdown(cancel_futures=True) */
};
struct wso_caller {
    PyObject_HEAD
    struct module_state *state;
    struct wso_pool_object *pool;
    double timeout;       /* s; negative means none */
    double queue_timeout; /* likewise */
    bool wait_on_cancel;
    PyObject *name;        /* str or None */
    PyObject *future_type; /* what run returns */
};
/* Raises and answers false if the pool cannot be used: not set up, or of before a fork. */
bool wso_pool_usable(struct wso_pool_object *pool);
/* Raise for a status of submit, in the pool's words. */
void wso_pool_raise(struct wso_pool_object *pool, int status);
extern PyType_Spec wso_pool_spec;
extern PyType_Spec wso_caller_spec;

/* lifecycle.c */
/* A new core, registered; raises and answers -1 on error. */
int wso_registry_open(struct module_state *state, const struct wso_pool_config *config,
                      struct wso_pool **core);
/* The Pool goes: its core may live on until its threads have ended. `core` may be NULL. */
void wso_registry_close(struct wso_runtime *runtime, struct wso_pool *core);
/* Forget the cores whose Pool is gone and whose threads have ended. */
void wso_registry_forget_ended(struct wso_runtime *runtime);
/* Wait, without the GIL, for a closed core to finish; -1 if a signal handler raised. */
int wso_registry_wait(struct module_state *state, struct wso_pool *core);
/* Called at exit, and in the child of a fork. */
PyObject *wso_leave(PyObject *module, PyObject *unused);
PyObject *wso_after_fork(PyObject *module, PyObject *unused);

/* callable.c, call_new.c, call_time.c: the job that runs a Python callable. */
struct wso_call;
/* Raises TypeError unless the object can be called on a worker. */
bool wso_check_callable(PyObject *function, const char *caller);
PyObject *wso_call_run(struct wso_pool_object *pool, struct wso_caller *caller,
                       PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *wso_call_submit(struct wso_pool_object *pool, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames);
/* For future.c, all attached and on the loop's thread. */
/* The base's cancel with these arguments. */
PyObject *wso_future_base_cancel(struct module_state *state, PyObject *const *args,
                                 Py_ssize_t nargs, PyObject *kwnames);
struct wso_call **wso_future_call(struct module_state *state, PyObject *future);
/* The future is to be cancelled: true if its job goes on and the future waits for it. */
bool wso_call_cancel_waits(struct wso_call *call, PyObject *message);
/* Its time is over. */
void wso_call_timed_out(struct wso_call *call, bool in_queue);
/* A future of submit was cancelled: take its job off the queue; false if a worker has it. */
bool wso_call_unlink(struct wso_call *call);

/* future.c */
struct wso_link_object {
    PyObject_HEAD
    struct wso_call *call;
};
extern PyType_Spec wso_link_spec;
PyTypeObject *wso_future_type_new(PyObject *module, struct module_state *state, PyObject *base);

/* closing.c */
extern PyType_Spec wso_closing_spec;

/* stream.c, ready.c */
extern PyType_Spec wso_stream_spec;
extern PyType_Spec wso_ready_spec;

/* transport.c */
/* asyncio.Transport with our C fields behind its own. */
PyTypeObject *wso_transport_type_new(PyObject *module, PyObject *base);

/* read_ahead.c */
extern PyType_Spec wso_read_ahead_spec;
/* Borrowed; NULL with an exception. In the child of a fork a new pool takes the parent's place. */
struct wso_pages *wso_read_ahead_pages(PyObject *read_ahead);

/* guard.c */
PyObject *wso_set_rescue_report(PyObject *module, PyObject *function);
/* Called at exit: the guard's thread ends; what it guarded works on. */
PyObject *wso_end_guard(PyObject *module, PyObject *unused);
/* The module goes. */
void wso_guard_forget(struct wso_runtime *runtime);

#endif
