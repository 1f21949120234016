/* bell.h: one write per wake-up, and nothing after the close. The interleavings of ring and hush are
 * told in test_stories.c. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bell.h"
#include "check.h"

static struct wso_bell bell;

static bool readable(int fd)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    return poll(&poller, 1, 0) == 1;
}

static uint64_t rings(void)
{
    return atomic_load(&bell.rings);
}

TEST(a_new_bell_is_silent)
{
    CHECK_EQ(wso_bell_open(&bell), WSO_OK);
    int fd = wso_bell_fd(&bell);
    CHECK(fd >= 0 && !readable(fd));
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    CHECK_EQ(rings(), 0);
    wso_bell_destroy(&bell);
}

TEST(many_rings_are_one_write)
{
    CHECK_EQ(wso_bell_open(&bell), WSO_OK);
    for (int i = 0; i < 1000; i++) {
        wso_bell_ring(&bell);
    }
    CHECK(readable(wso_bell_fd(&bell)));
    CHECK_EQ(rings(), 1);
    wso_bell_hush(&bell);
    CHECK(!readable(wso_bell_fd(&bell)));
    wso_bell_ring(&bell);
    CHECK(readable(wso_bell_fd(&bell)));
    CHECK_EQ(rings(), 2);
    wso_bell_destroy(&bell);
}

TEST(a_hush_without_a_ring_changes_nothing)
{
    CHECK_EQ(wso_bell_open(&bell), WSO_OK);
    wso_bell_hush(&bell);
    wso_bell_hush(&bell);
    wso_bell_ring(&bell);
    CHECK(readable(wso_bell_fd(&bell)));
    wso_bell_destroy(&bell);
}

TEST(a_closed_bell_does_nothing)
{
    CHECK_EQ(wso_bell_open(&bell), WSO_OK);
    wso_bell_close(&bell);
    wso_bell_close(&bell);
    CHECK_EQ(wso_bell_fd(&bell), -1);
    wso_bell_ring(&bell);
    wso_bell_hush(&bell);
    wso_bell_ring(&bell);
    CHECK_EQ(rings(), 0);
    wso_bell_destroy(&bell);
}

TEST(no_descriptor_is_an_error_with_its_errno)
{
    struct rlimit before, none;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    errno = 0;
    int status = wso_bell_open(&bell);
    int error = errno;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK_EQ(status, WSO_EDESCRIPTOR);
    CHECK_EQ(error, EMFILE);
}

/* Threads that ring without end. */
static atomic_bool stop;
static atomic_ulong calls;

static void *ring_on(void *argument)
{
    (void)argument;
    while (!atomic_load(&stop)) {
        wso_bell_ring(&bell);
        atomic_fetch_add(&calls, 1);
    }
    return NULL;
}

static void wait_for_calls(unsigned long more)
{
    unsigned long so_far = atomic_load(&calls);
    WAIT_UNTIL(atomic_load(&calls) >= so_far + more);
}

/* After the close the number of the descriptor belongs to a pipe, which must get no byte. */
static void close_under_ringers(void)
{
    enum { RINGERS = 3 };
    pthread_t threads[RINGERS];
    int pipes[2];
    CHECK_EQ(wso_bell_open(&bell), WSO_OK);
    CHECK_EQ(pipe2(pipes, O_NONBLOCK), 0);
    atomic_store(&stop, false);
    for (int i = 0; i < RINGERS; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, ring_on, NULL), 0);
    }
    int fd = wso_bell_fd(&bell);
    for (int i = 0; i < 5; i++) {
        wait_for_calls(10);
        wso_bell_hush(&bell);
    }
    wso_bell_close(&bell);
    CHECK_EQ(dup3(pipes[1], fd, 0), fd);
    wait_for_calls(100);
    wso_bell_hush(&bell);
    wait_for_calls(100);
    atomic_store(&stop, true);
    for (int i = 0; i < RINGERS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
    char byte;
    CHECK(read(pipes[0], &byte, 1) < 0 && errno == EAGAIN);
    wso_bell_close(&bell);
    CHECK(fcntl(fd, F_GETFD) >= 0);
    wso_bell_destroy(&bell);
    CHECK_EQ(close(fd) | close(pipes[0]) | close(pipes[1]), 0);
}

TEST(gone_means_gone)
{
    for (int round = 0; round < 30; round++) {
        close_under_ringers();
    }
}
