/* Points at which a test can stop a thread inside the core, and act before it goes on.
 *
 * The linker sends the core's calls of some functions of the system through points.c. A test arms one
 * kind of point: the thread that reaches it for the nth time calls the test's action first. Actions
 * must not need a lock that the stopped thread holds.
 */
#ifndef POINTS_H
#define POINTS_H

#include <stdbool.h>

enum point {
    POINT_LOCK,       /* before a lock is taken */
    POINT_READ,       /* before a descriptor is read */
    POINT_READ_DONE,  /* after it */
    POINT_WRITE,      /* before a descriptor is written; the bell's lock is held */
    POINT_TIMEOUT,    /* a thread has slept for as long as it may, and does not know it yet */
};

void point_arm(enum point kind, int nth, void (*action)(void *argument), void *argument);

/* The same, where only the calling thread counts. */
void point_arm_mine(enum point kind, int nth, void (*action)(void *argument), void *argument);

/* Disarm; true if the action was called. */
bool point_was_reached(void);

/* Let the next calls of read, write, sem_wait and sem_clockwait fail with EINTR. */
void points_interrupt(int calls);

/* How many of them are still to come. */
int points_interruptions_left(void);

#endif
