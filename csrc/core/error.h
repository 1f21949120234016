/* The core's statuses: one table of code, text and the kind of Python exception each becomes.
 *
 * A core function returns 0 or one of these. The core never prints, aborts or exits: it tells its
 * caller, and csrc/py/errors.c is the one place that turns a status into an exception.
 */
#ifndef WSO_ERROR_H
#define WSO_ERROR_H

/* X(code, kind, text) */
#define WSO_STATUS_TABLE(X)                                                                        \
    X(WSO_OK, WSO_KIND_NONE, "success")                                                            \
    X(WSO_ENOMEM, WSO_KIND_MEMORY, "out of memory")                                                \
    X(WSO_ETHREAD, WSO_KIND_RUNTIME, "can't start new thread")                                     \
    X(WSO_EDESCRIPTOR, WSO_KIND_OS, "no file descriptor can be made")                              \
    X(WSO_ECLOSED, WSO_KIND_RUNTIME, "cannot schedule new futures after shutdown")                 \
    X(WSO_EFULL, WSO_KIND_FULL, "the pool's queue is full")                                        \
    X(WSO_EDROPPED, WSO_KIND_DROPPED, "dropped from a full queue to make room for a newer call")   \
    X(WSO_EBROKEN, WSO_KIND_BROKEN,                                                                \
      "A thread initializer failed, the thread pool is not usable anymore")                        \
    X(WSO_ECANCELLED, WSO_KIND_CANCELLED, "cancelled")                                             \
    X(WSO_ERAISED, WSO_KIND_RUNTIME, "can't start new thread: its owner failed to prepare it")     \
    X(WSO_EINTR, WSO_KIND_NONE, "interrupted by a signal")                                         \
    X(WSO_EBUSY, WSO_KIND_NONE, "another thread is at the wire")                                   \
    X(WSO_EUNGUARDABLE, WSO_KIND_RUNTIME, "the connection cannot be guarded")

enum wso_status {
#define WSO_AS_CODE(code, kind, text) code,
    WSO_STATUS_TABLE(WSO_AS_CODE)
#undef WSO_AS_CODE
};

/* Which kind of Python exception a status becomes. */
enum wso_kind {
    WSO_KIND_NONE,
    WSO_KIND_MEMORY,
    WSO_KIND_OS,
    WSO_KIND_RUNTIME,
    WSO_KIND_FULL,
    WSO_KIND_DROPPED,
    WSO_KIND_BROKEN,
    WSO_KIND_CANCELLED,
};

#endif
