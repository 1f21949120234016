/* The outbox: see outbox.h. */
#include "outbox.h"

#include <stdlib.h>
#include <string.h>

#include "error.h"

/* The least that a block can hold, so that small writes share one. */
#define BLOCK_BYTES 4096

/* Never empty: it is freed with its last byte. */
struct wso_outbox_block {
    struct wso_outbox_block *next;
    size_t start; /* of what is in it */
    size_t end;
    size_t most; /* what it can hold */
    uint8_t bytes[];
};

void wso_outbox_init(struct wso_outbox *outbox)
{
    *outbox = (struct wso_outbox){0};
}

/* A block for at least so many bytes, with none in it; NULL if there is no memory. */
static struct wso_outbox_block *new_block(size_t size)
{
    struct wso_outbox_block *block;
    size_t most = size > BLOCK_BYTES ? size : BLOCK_BYTES;
    /* Not zeroed: it may be large, and is filled at once. */
    block = malloc(sizeof *block + most);
    if (block != NULL) {
        *block = (struct wso_outbox_block){.most = most};
    }
    return block;
}

static void fill(struct wso_outbox_block *block, const uint8_t *bytes, size_t size)
{
    memcpy(block->bytes + block->end, bytes, size);
    block->end += size;
}

static void append(struct wso_outbox *outbox, struct wso_outbox_block *block)
{
    if (outbox->last == NULL) {
        outbox->first = block;
    } else {
        outbox->last->next = block;
    }
    outbox->last = block;
}

int wso_outbox_put(struct wso_outbox *outbox, const uint8_t *bytes, size_t size)
{
    struct wso_outbox_block *last = outbox->last;
    size_t room = last == NULL ? 0 : last->most - last->end;
    size_t here = size < room ? size : room;
    if (size > here) {
        /* First of all, so that nothing has changed if it fails. */
        struct wso_outbox_block *block = new_block(size - here);
        if (block == NULL) {
            return WSO_ENOMEM;
        }
        fill(block, bytes + here, size - here);
        append(outbox, block);
    }
    if (here > 0) {
        fill(last, bytes, here);
    }
    outbox->size += size;
    return WSO_OK;
}

int wso_outbox_peek(const struct wso_outbox *outbox, struct iovec *pieces, int count)
{
    int found = 0;
    for (struct wso_outbox_block *block = outbox->first; block != NULL && found < count;
         block = block->next) {
        pieces[found++] = (struct iovec){
            .iov_base = block->bytes + block->start,
            .iov_len = block->end - block->start,
        };
    }
    return found;
}

void wso_outbox_drop(struct wso_outbox *outbox, size_t size)
{
    outbox->size -= size;
    while (size > 0) {
        struct wso_outbox_block *block = outbox->first;
        size_t there = block->end - block->start;
        if (size < there) {
            block->start += size;
            return;
        }
        size -= there;
        outbox->first = block->next;
        if (outbox->first == NULL) {
            outbox->last = NULL;
        }
        free(block);
    }
}

void wso_outbox_clear(struct wso_outbox *outbox)
{
    wso_outbox_drop(outbox, outbox->size);
}
