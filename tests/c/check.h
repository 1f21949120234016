/* A test framework in one header; check.c has the main function of every test program.
 *
 * A test checks, and the first check that fails ends the program. Where a test must wait for another
 * thread it waits for a condition, without a limit: a slow machine may take as long as it likes, and
 * a test that hangs is ended by the watchdog (WSO_TEST_LIMIT, seconds for one test).
 *
 * After each test there must be as many threads and open descriptors as before it.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "lock.h"

struct check_test {
    const char *name;
    void (*run)(void);
    struct check_test *next;
};

/* Appends a test to those that main runs. */
void check_register(struct check_test *test);

_Noreturn void check_failed(const char *file, int line, const char *text);
void check_equal(const char *file, int line, const char *text, long long left, long long right);

/* Let others run for a moment. */
void check_nap(void);

/* The number in an environment variable, or `otherwise`. */
unsigned long check_env(const char *name, unsigned long otherwise);

/* Nanoseconds of `units` units of test time: a millisecond times WSO_TEST_MS. */
uint64_t check_ms(unsigned units);

/* The entries of a directory in /proc/self, such as "fd" and "task". */
unsigned check_entries(const char *directory);

#define TEST(title)                                                                                \
    static void title(void);                                                                       \
    __attribute__((constructor)) static void register_##title(void)                                \
    {                                                                                              \
        static struct check_test test = {#title, title, NULL};                                     \
        check_register(&test);                                                                     \
    }                                                                                              \
    static void title(void)

#define CHECK(condition) ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))

/* Two integers are the same; shows both when they are not. */
#define CHECK_EQ(left, right)                                                                      \
    check_equal(__FILE__, __LINE__, #left " == " #right, (long long)(left), (long long)(right))

#define WAIT_UNTIL(condition)                                                                      \
    do {                                                                                           \
        while (!(condition)) {                                                                     \
            check_nap();                                                                           \
        }                                                                                          \
    } while (0)

/* In each function that the core calls back: this thread holds no lock of ours. Only debug builds
 * count them. */
#ifdef WSO_DEBUG
#define CHECK_NO_LOCK() CHECK_EQ(wso_locks_held, 0)
#else
#define CHECK_NO_LOCK() ((void)0)
#endif

#endif
