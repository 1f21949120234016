/* The main function of every test program: runs the tests named on the command line, or all. */
#include "check.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct check_test *tests;
static struct check_test **tests_end = &tests;
static const char *running = "";

void check_register(struct check_test *test)
{
    *tests_end = test;
    tests_end = &test->next;
}

void check_failed(const char *file, int line, const char *text)
{
    printf("FAILED %s\n%s:%d: %s\n", running, file, line, text);
    (void)fflush(stdout);
    _exit(1);
}

void check_equal(const char *file, int line, const char *text, long long left, long long right)
{
    if (left != right) {
        char both[400];
        (void)snprintf(both, sizeof both, "%s, but %lld is not %lld", text, left, right);
        check_failed(file, line, both);
    }
}

void check_nap(void)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = 50 * 1000}, NULL);
}

unsigned long check_env(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);
    return text == NULL ? otherwise : strtoul(text, NULL, 10);
}

uint64_t check_ms(unsigned units)
{
    return (uint64_t)units * check_env("WSO_TEST_MS", 1) * UINT64_C(1000000);
}

unsigned check_entries(const char *directory)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/%s", directory);
    DIR *open = opendir(path);
    CHECK(open != NULL);
    unsigned count = 0;
    while (readdir(open) != NULL) {
        count++;
    }
    (void)closedir(open);
    return count;
}

/* Only what a signal handler may call; points.c may make the first attempts fail. */
static void say(const char *text)
{
    while (write(STDOUT_FILENO, text, strlen(text)) < 0) {
    }
}

static void give_up(int signal)
{
    (void)signal;
    say("HANGS: ");
    say(running);
    say("\n");
    _exit(2);
}

static void run(struct check_test *test)
{
    running = test->name;
    (void)alarm((unsigned)check_env("WSO_TEST_LIMIT", 600));
    unsigned descriptors = check_entries("fd");
    unsigned threads = check_entries("task");
    test->run();
    CHECK_EQ(check_entries("fd"), descriptors);
    /* A thread that was joined may stay listed for a moment. */
    WAIT_UNTIL(check_entries("task") == threads);
    printf("ok %s\n", test->name);
    (void)fflush(stdout);
}

static bool is_wanted(const struct check_test *test, int count, char **names)
{
    for (int i = 1; i < count; i++) {
        if (strcmp(names[i], test->name) == 0) {
            return true;
        }
    }
    return count < 2;
}

static void *nothing(void *argument)
{
    return argument;
}

/* ThreadSanitizer starts a thread of its own with the first of ours, which is not to be counted. */
static void start_first_thread(void)
{
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, nothing, NULL), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
}

int main(int count, char **names)
{
    (void)sigaction(SIGALRM, &(struct sigaction){.sa_handler = give_up}, NULL);
    start_first_thread();
    int ran = 0;
    for (struct check_test *test = tests; test != NULL; test = test->next) {
        if (is_wanted(test, count, names)) {
            run(test);
            ran++;
        }
    }
    return ran > 0 ? 0 : 3;
}
