/* wire.h against a model: what the peer sent, less the Pings and our Pongs, is what the library gets;
 * what the library wrote, with frames of ours only between its frames, is what the peer gets.
 *
 * Both under random frames, sizes of reads and writes, and orders of the two threads' calls; first in
 * one thread, so that a failure comes again, then with the guard's side in a thread of its own.
 */
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#include "random.h"
#include "sockets.h"
#include "wire_inner.h"

#define MILLISECOND UINT64_C(1000000)

struct model {
    struct link link;
    uint64_t random;   /* the loop's and the peer's thread */
    uint64_t now;      /* the guard's clock, driven by its side */
    uint64_t guard_random;
    atomic_bool ends;

    /* What the peer has yet to send. */
    uint8_t out[1 << 16];
    size_t out_from, out_size;
    bool in_message;
    uint32_t pings;
    uint32_t pongs; /* the number that is next, at least */
    uint32_t our_pings;

    /* What the library shall get, and has checked so far. */
    uint8_t expected[LINK_BYTES];
    size_t expected_size, checked;

    /* What the library writes. */
    uint8_t in[1 << 16];
    size_t in_from, in_size;
    uint32_t written, arrived; /* its frames */
};

static size_t size_of_payload(uint64_t *random)
{
    switch (random_below(random, 8)) {
    case 0: return random_below(random, 8);
    case 1: return 120 + random_below(random, 12);
    case 2: return random_below(random, 20000);
    default: return random_below(random, 300);
    }
}

static uint8_t byte_of(uint32_t number, size_t at)
{
    return (uint8_t)(number * 77 + at * 3 + at / 255);
}

/* The peer makes a frame; its model keeps what of it the library shall get. */
static void make_peer_frame(struct model *model)
{
    uint8_t payload[20000];
    size_t size = size_of_payload(&model->random);
    uint64_t kind = random_below(&model->random, 10);
    for (size_t i = 0; i < size; i++) {
        payload[i] = byte_of((uint32_t)kind, i);
    }
    size = kind < 5 && size > WSO_CONTROL_PAYLOAD ? WSO_CONTROL_PAYLOAD : size;
    uint8_t first = PONG;
    if (kind < 4) {
        uint32_t number = model->pings++;
        size = size < sizeof number ? sizeof number : size;
        memcpy(payload, &number, sizeof number);
        first = PING;
    } else if (kind == 4) {
        /* A Pong that nobody asked for; ours are 4 bytes long. */
        size = size == 4 ? 5 : size;
    } else {
        bool fin = random_below(&model->random, 2) == 0;
        first = (uint8_t)((fin ? 0x80 : 0) | (model->in_message ? 0 : 2));
        model->in_message = !fin;
    }
    size_t made = peer_make(&model->link, model->out + model->out_size, first, payload, size);
    if (first != PING) {
        CHECK(model->expected_size + made <= sizeof model->expected);
        memcpy(model->expected + model->expected_size, model->out + model->out_size, made);
        model->expected_size += made;
    }
    model->out_size += made;
}

static void peer_writes(struct model *model)
{
    if (model->out_from == model->out_size) {
        model->out_from = model->out_size = 0;
    }
    while (model->out_size < sizeof model->out / 2 && random_below(&model->random, 4) > 0 &&
           !atomic_load(&model->ends)) {
        make_peer_frame(model);
    }
    size_t most = 1 + size_of_payload(&model->random);
    size_t there = model->out_size - model->out_from;
    ssize_t sent = send(model->link.peer, model->out + model->out_from, most < there ? most : there,
                        MSG_NOSIGNAL | MSG_DONTWAIT);
    model->out_from += sent > 0 ? (size_t)sent : 0;
}

static void check_frame(struct model *model, const struct frame *frame)
{
    if (frame->first == PONG) {
        uint32_t number;
        memcpy(&number, frame->payload, sizeof number);
        /* In order, each at most once; some are left out while the output is blocked. */
        CHECK(number >= model->pongs && number < model->pings);
        model->pongs = number + 1;
    } else if (frame->first == PING) {
        CHECK_EQ(frame->size, 4);
        model->our_pings++;
        if (model->out_size + 32 <= sizeof model->out) {
            model->out_size += peer_make(&model->link, model->out + model->out_size, PONG,
                                         frame->payload, frame->size);
        }
    } else {
        CHECK(frame->first == BINARY && model->arrived < model->written);
        for (size_t i = 0; i < frame->size; i++) {
            CHECK_EQ(frame->payload[i], byte_of(model->arrived, i));
        }
        model->arrived++;
    }
}

static void peer_reads(struct model *model)
{
    struct frame frame;
    (void)peer_read(&model->link, 1 + size_of_payload(&model->random));
    while (peer_next(&model->link, &frame)) {
        check_frame(model, &frame);
    }
}

static void library_writes(struct model *model)
{
    if (model->in_from == model->in_size) {
        uint8_t payload[20000];
        size_t size = size_of_payload(&model->random);
        for (size_t i = 0; i < size; i++) {
            payload[i] = byte_of(model->written, i);
        }
        model->written++;
        model->in_from = 0;
        model->in_size = link_make(&model->link, model->in, BINARY, payload, size);
    }
    /* Whole frames mostly, as the library does. */
    size_t there = model->in_size - model->in_from;
    size_t size = random_below(&model->random, 4) > 0 || atomic_load(&model->ends)
                      ? there
                      : 1 + random_below(&model->random, there);
    size_t half = size / 2;
    struct iovec pieces[2] = {{model->in + model->in_from, half},
                              {model->in + model->in_from + half, size - half}};
    AT_WIRE(&model->link, wso_wire_send(model->link.wire, pieces, 2, &model->link.news));
    model->in_from += size;
}

static void library_reads(struct model *model)
{
    uint8_t buffer[20000];
    size_t size = WSO_RECEIVE_MIN + random_below(&model->random, sizeof buffer - WSO_RECEIVE_MIN);
    AT_WIRE(&model->link, wso_wire_receive(model->link.wire, buffer, size, &model->link.news));
    size_t got = model->link.news.received;
    CHECK(got <= size && model->checked + got <= model->expected_size);
    CHECK(memcmp(buffer, model->expected + model->checked, got) == 0);
    model->checked += got;
    CHECK(model->link.news.read_error == 0 && model->link.news.write_error == 0);
}

static void loop_side(struct model *model)
{
    switch (random_below(&model->random, 8)) {
    case 0: AT_WIRE(&model->link, wso_wire_fill(model->link.wire, &model->link.news)); break;
    case 1: AT_WIRE(&model->link, wso_wire_flush(model->link.wire, &model->link.news)); break;
    case 2: AT_WIRE(&model->link, wso_wire_look(model->link.wire, &model->link.news)); break;
    case 3:
        if (model->link.news.unsent < 50000) {
            library_writes(model);
        }
        break;
    default: library_reads(model);
    }
}

/* One Ping more would make the wire forget the oldest that has no Pong, which is then the library's. */
static bool may_ping(struct model *model)
{
    struct wso_wire *wire = model->link.wire;
    wso_lock_acquire(&wire->lock);
    bool may = wire->keepalive.count < WSO_KEEPALIVE_PINGS;
    wso_lock_release(&wire->lock);
    return may;
}

static void guard_side(struct model *model)
{
    struct wso_wire_step step;
    if (random_below(&model->guard_random, 4) == 0 && may_ping(model)) {
        model->now += MILLISECOND;
        wso_wire_tick(model->link.wire, model->now, &step);
        CHECK_EQ(step.did & WSO_DID_PROPOSE, 0);
    } else {
        wso_wire_step(model->link.wire, model->now, &step);
        CHECK_EQ(step.did & WSO_DID_PROPOSE, 0);
    }
}

static void peer_side(struct model *model)
{
    if (random_below(&model->random, 2) == 0) {
        peer_writes(model);
    } else {
        peer_reads(model);
    }
}

static struct model *begin(enum wso_role role, uint64_t seed)
{
    static struct model model;
    struct wso_wire_settings settings = link_settings;
    uint64_t reads = random_below(&seed, 3);
    settings.ping_interval = 10 * MILLISECOND;
    settings.log = reads == 0;
    memset(&model, 0, sizeof model);
    model.random = seed;
    model.guard_random = seed + 1;
    model.now = wso_now();
    link_open_with(&model.link, &(struct link_options){
                                    .role = role,
                                    .send_buffer = reads == 1 ? 1 : 20000,
                                    .read_ahead = reads == 2 ? 4096 : 0,
                                });
    CHECK_EQ(wso_wire_start(model.link.wire, &settings, model.now), WSO_OK);
    return &model;
}

/* Everybody finishes. */
static void finish(struct model *model)
{
    atomic_store(&model->ends, true);
    if (model->in_from < model->in_size) {
        library_writes(model);
    }
    do {
        peer_writes(model);
        library_reads(model);
        AT_WIRE(&model->link, wso_wire_flush(model->link.wire, &model->link.news));
        peer_reads(model);
    } while (model->out_from < model->out_size || model->arrived < model->written ||
             model->checked < model->expected_size || model->pongs < model->pings);
    peer_expect_nothing(&model->link);
    struct wso_wire_counts counts = link_counts(&model->link);
    CHECK_EQ(counts.pinged, model->our_pings);
    CHECK(counts.answered <= model->pings && counts.answered > 0);
    CHECK_EQ(counts.state, WSO_WIRE_GUARDED);
    link_close(&model->link);
}

static const enum wso_role roles[] = {WSO_SERVER, WSO_CLIENT};

TEST(bytes_are_conserved_whatever_the_order_of_calls)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct model *model = begin(roles[seed % 2], seed * 7919);
        for (int i = 0; i < 4000; i++) {
            switch (random_below(&model->random, 5)) {
            case 0: guard_side(model); break;
            case 1: loop_side(model); break;
            default: peer_side(model);
            }
        }
        finish(model);
    }
}

static void *be_guard(void *argument)
{
    struct model *model = argument;
    while (!atomic_load(&model->ends)) {
        guard_side(model);
    }
    return NULL;
}

TEST(bytes_are_conserved_while_the_guards_thread_is_at_the_wire_too)
{
    for (uint64_t seed = 1; seed <= 10; seed++) {
        pthread_t guard;
        struct model *model = begin(roles[seed % 2], seed * 104729);
        CHECK_EQ(pthread_create(&guard, NULL, be_guard, model), 0);
        for (int i = 0; i < 6000; i++) {
            if (random_below(&model->random, 3) == 0) {
                loop_side(model);
            } else {
                peer_side(model);
            }
        }
        atomic_store(&model->ends, true);
        CHECK_EQ(pthread_join(guard, NULL), 0);
        finish(model);
    }
}
