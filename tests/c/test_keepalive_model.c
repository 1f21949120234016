/* keepalive.h: random histories, against a model that keeps every Ping ever sent and asks them all. */
#include "check.h"
#include "keepalive.h"
#include "random.h"

enum { HISTORY = 300 };

struct model {
    uint64_t interval, timeout;
    uint64_t begun; /* when Pings were last switched on, or set while they were off */
    struct {
        uint64_t at;
        uint64_t waits_from; /* at, or when it was forgiven */
        uint32_t payload;
        bool settled, byte_since;
    } pings[HISTORY];
    int count;
    bool measured;
    uint64_t latency;
};

/* `span` ns have passed from `from` to `now`; without a sum that may not fit. */
static bool passed(uint64_t from, uint64_t span, uint64_t now)
{
    return now >= from && now - from >= span;
}

static bool model_due(const struct model *model, uint64_t now)
{
    uint64_t from = model->begun;
    for (int i = 0; i < model->count; i++) {
        from = model->pings[i].at > from ? model->pings[i].at : from;
    }
    return model->interval != WSO_NEVER && passed(from, model->interval, now);
}

static bool model_dead(const struct model *model, uint64_t now)
{
    for (int i = 0; i < model->count; i++) {
        if (!model->pings[i].byte_since && model->interval != WSO_NEVER &&
            model->timeout != WSO_NEVER &&
            passed(model->pings[i].waits_from, model->timeout, now)) {
            return true;
        }
    }
    return false;
}

/* The index of the Ping that this payload answers, or -1. */
static int model_answered(const struct model *model, uint32_t payload)
{
    int oldest = model->count > WSO_KEEPALIVE_PINGS ? model->count - WSO_KEEPALIVE_PINGS : 0;
    for (int i = oldest; i < model->count; i++) {
        if (!model->pings[i].settled && model->pings[i].payload == payload) {
            return i;
        }
    }
    return -1;
}

static uint64_t random_span(uint64_t *random)
{
    switch (random_below(random, 6)) {
    case 0:
        return WSO_NEVER;
    case 1:
        return UINT64_MAX - random_below(random, 100);
    case 2:
        return random_below(random, 4);
    default:
        return random_below(random, 40);
    }
}

static void do_set(struct wso_keepalive *keepalive, struct model *model, uint64_t *random,
                   uint64_t now)
{
    if (model->interval == WSO_NEVER) {
        model->begun = now;
    }
    /* Often only one of them changes. */
    if (random_below(random, 2) == 0) {
        model->interval = random_span(random);
    }
    if (random_below(random, 2) == 0) {
        model->timeout = random_span(random);
    }
    wso_keepalive_set(keepalive, model->interval, model->timeout, now);
}

static void do_ping(struct wso_keepalive *keepalive, struct model *model, uint64_t *random,
                    uint64_t now)
{
    uint32_t payload = (uint32_t)random_below(random, 50) * UINT32_C(0x01020304);
    model->pings[model->count].at = model->pings[model->count].waits_from = now;
    model->pings[model->count++].payload = payload;
    wso_keepalive_pinged(keepalive, payload, now);
}

static void do_pong(struct wso_keepalive *keepalive, struct model *model, uint64_t *random,
                    uint64_t now)
{
    uint32_t payload = (uint32_t)random_below(random, 50) * UINT32_C(0x01020304);
    if (model->count > 0 && random_below(random, 2) == 0) {
        int back = (int)random_below(random, 12);
        payload = model->pings[back < model->count ? model->count - 1 - back : 0].payload;
    }
    int answered = model_answered(model, payload);
    uint64_t at = 1234;
    CHECK_EQ(wso_keepalive_pong(keepalive, (const uint8_t *)&payload, sizeof payload, now, &at),
             answered >= 0);
    CHECK_EQ(at, answered >= 0 ? model->pings[answered].at : 1234);
    for (int i = 0; i <= answered; i++) {
        model->pings[i].settled = true;
    }
    if (answered >= 0) {
        model->measured = true;
        model->latency = now - model->pings[answered].at;
    }
}

static void do_heard(struct wso_keepalive *keepalive, struct model *model)
{
    for (int i = 0; i < model->count; i++) {
        model->pings[i].byte_since = true;
    }
    wso_keepalive_heard(keepalive);
}

static void do_forgive(struct wso_keepalive *keepalive, struct model *model, uint64_t now)
{
    for (int i = 0; i < model->count; i++) {
        model->pings[i].waits_from = now;
    }
    wso_keepalive_forgive(keepalive, now);
}

static void compare(const struct wso_keepalive *keepalive, const struct model *model, uint64_t now)
{
    CHECK_EQ(wso_keepalive_ping_due(keepalive, now), model_due(model, now));
    CHECK_EQ(wso_keepalive_dead(keepalive, now), model_dead(model, now));
    CHECK_EQ(keepalive->measured, model->measured);
    CHECK(keepalive->latency == model->latency);
    /* The next moment is the first at which something is to be done. */
    uint64_t next = wso_keepalive_next(keepalive);
    uint64_t last = next == WSO_NEVER ? UINT64_MAX - 1 : next;
    CHECK_EQ(model_due(model, last) || model_dead(model, last), next != WSO_NEVER);
    CHECK(next == WSO_NEVER || next == 0 ||
          !(model_due(model, next - 1) || model_dead(model, next - 1)));
}

static void run_history(uint64_t seed)
{
    uint64_t random = seed;
    struct wso_keepalive keepalive;
    struct model model = {.interval = WSO_NEVER, .timeout = WSO_NEVER};
    wso_keepalive_init(&keepalive);
    /* Some histories are near the end of time. */
    uint64_t now = random_below(&random, 3) == 0 ? UINT64_MAX - 3000 : random_below(&random, 100);
    for (int step = 0; step < HISTORY; step++) {
        now += random_below(&random, 10);
        switch (random_below(&random, 10)) {
        case 0:
            do_set(&keepalive, &model, &random, now);
            break;
        case 1:
            do_forgive(&keepalive, &model, now);
            break;
        case 2:
        case 3:
            do_heard(&keepalive, &model);
            break;
        case 4:
        case 5:
        case 6:
            do_pong(&keepalive, &model, &random, now);
            break;
        default:
            do_ping(&keepalive, &model, &random, now);
            break;
        }
        compare(&keepalive, &model, now);
        compare(&keepalive, &model, now + random_below(&random, 100));
    }
}

TEST(random_histories_go_as_the_model_says)
{
    for (uint64_t seed = 1; seed <= 1000; seed++) {
        run_history(seed * UINT64_C(0x9e3779b97f4a7c15));
    }
}
