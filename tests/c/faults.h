/* Makes the nth call of one function of the system fail, and counts allocations
 * and mappings.
 *
 * The linker sends the calls of the core and of the tests through faults.c.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include <stdbool.h>

enum fault {
    FAULT_ALLOCATION,
    FAULT_THREAD,
    FAULT_DESCRIPTOR,
    FAULT_SEMAPHORE,
    FAULT_MUTEX,
    FAULT_CONDITION,
    FAULT_ATTRIBUTES, /* of threads and conditions */
    FAULT_MAPPING,
    FAULT_UNMAPPING,
    FAULT_KINDS,
};

/* The nth call of this kind from now on fails, and all after it if `lasting`. */
void fault_arm(enum fault kind, int nth, bool lasting);

/* Disarm; how many calls failed. */
int fault_disarm(void);

/* Allocations that were not freed yet. */
long fault_allocated(void);

/* Mappings of the core that were not unmapped yet. */
long fault_mapped(void);

#endif
