/* A job: the part of a piece of work that the pool knows. It is a member of what it runs.
 *
 * Its life:
 *
 *     caller ── submit ──▶ WAITING ── admitted ──▶ QUEUED ── taken ──▶ RUNNING ──▶ done(WSO_OK)
 *                            │                        │
 *                            └────── cancel, close ───┴───────▶ done(WSO_ECANCELLED)
 *                                                     ├──────── done(WSO_EDROPPED)
 *                                                     └──────── done(WSO_ETHREAD)
 *
 * A job is in one place: with its caller, in a list of its pool, or with the worker that runs it.
 * `done` is called exactly once for each job that submit accepted, with no lock held, on the thread
 * that brought the end about; it takes the job, and may free it.
 */
#ifndef WSO_JOB_H
#define WSO_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "list.h"

enum wso_job_state {
    WSO_JOB_NEW,
    WSO_JOB_WAITING, /* not admitted yet: the queue is at its bound */
    WSO_JOB_QUEUED,
    WSO_JOB_RUNNING,
};

struct wso_turn;
struct wso_worker;

struct wso_job {
    /* Set by the caller before submit. */
    void (*run)(struct wso_job *job);              /* on a worker, no lock held */
    void (*done)(struct wso_job *job, int status); /* see above */
    bool droppable; /* may be dropped to make room, when the pool's policy is to drop */
    bool kept;      /* is waited for at the end of the process; otherwise abandoned there */

    /* The pool's, under its lock. */
    struct wso_link link;
    enum wso_job_state state;
    struct wso_turn *turn;     /* who waits for this job to be admitted, or NULL */
    struct wso_worker *worker; /* who runs it; NULL before */
    uint64_t submitted_at;     /* ns, monotonic */
};

#endif
