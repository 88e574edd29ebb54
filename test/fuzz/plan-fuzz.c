/*
 * Throws damaged plans at the decoder, and walks what it lets pass the way the executor would. Built with the address
 * and undefined-behaviour sanitizers, which end the program at the first wrong access.
 *
 *     plan-fuzz ROUNDS SEED PLAN ...       prints how many of the damaged plans still decoded
 */
#include "../../src/native/shim/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static uint64_t state;

static uint64_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

struct bytes {
    uint8_t *data;
    size_t length;
};

static struct bytes read_file(const char *path)
{
    struct stat st;
    FILE *file = fopen(path, "rb");
    struct bytes bytes = {0};
    if (!file || fstat(fileno(file), &st) < 0)
        exit(2);
    bytes.length = (size_t)st.st_size;
    bytes.data = malloc(bytes.length);
    if (!bytes.data || fread(bytes.data, 1, bytes.length, file) != bytes.length)
        exit(2);
    fclose(file);
    return bytes;
}

static const uint64_t interesting[] = {0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0xffffffff, 0xfffffff0, 80, 32};

/* One change, at a place where changes hurt: header, records more often than data. */
static void damage(struct bytes *plan)
{
    size_t records = plan->length < 2000 ? plan->length : plan->length * 2 / 3;
    size_t at = next_random() % (next_random() % 4 ? records : plan->length);
    uint64_t value = interesting[next_random() % (sizeof interesting / sizeof interesting[0])];
    size_t width = (size_t)1 << next_random() % 4;
    switch (next_random() % 5) {
    case 0:
        plan->data[at] ^= (uint8_t)(1 << next_random() % 8);
        break;
    case 1:
        plan->data[at] = (uint8_t)next_random();
        break;
    case 2:
        at &= ~(width - 1);
        memcpy(plan->data + at, &value, at + width <= plan->length ? width : 1);
        break;
    case 3: /* copy a record over another */
        if (plan->length > 32 + 160) {
            size_t count = (plan->length - 32) / 80, from = next_random() % count, to = next_random() % count;
            memmove(plan->data + 32 + to * 80, plan->data + 32 + from * 80, 80);
        }
        break;
    default:
        if (next_random() % 8 == 0 && plan->length > 1)
            plan->length -= next_random() % plan->length;
    }
}

static uint64_t sum;

static void touch(const void *data, size_t length)
{
    for (size_t i = 0; i < length; i++)
        sum += ((const uint8_t *)data)[i];
}

/* Every string to its end, every list item, every record: what the executor relies on. */
static void walk(const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->outer_count + plan->inner_count; i++) {
        const struct plan_step *step = &plan->steps[i];
        for (int r = 0; r < 4; r++) {
            touch(plan->data + step->s[r].offset, step->s[r].length);
            int list = (step->op == OP_EXEC) || (step->op == OP_CLONE && r == 3) ||
                       (step->op == OP_OVERLAY && r == 0) ||
                       ((step->op == OP_OVERLAY || step->op == OP_MOUNT || step->op == OP_FS_SOURCE) && r == 3);
            int records = (step->op == OP_CLONE && r < 2) || (step->op == OP_BIND_SOURCE && r > 1) ||
                          step->op == OP_USER || step->op == OP_SECCOMP;
            if (list)
                for (const char *at = NULL; (at = plan_next(plan, step->s[r], at));)
                    touch(at, strlen(at) + 1);
            else if (!records && step->s[r].length)
                touch(plan_string(plan, step->s[r]), strlen(plan_string(plan, step->s[r])) + 1);
        }
        if (step->slot >= PLAN_SLOTS)
            abort();
    }
}

int main(int argc, char **argv)
{
    long rounds = argc > 3 ? atol(argv[1]) : 0, passed = 0;
    state = argc > 3 ? strtoull(argv[2], NULL, 10) | 1 : 1;
    for (long i = 0; i < rounds; i++) {
        struct plan plan;
        struct plan_error error;
        static struct bytes seeds[64];
        int which = (int)(next_random() % (uint64_t)(argc - 3));
        if (!seeds[which].data)
            seeds[which] = read_file(argv[3 + which]);
        /* A block of its very length, so that the first byte behind it is caught. */
        struct bytes copy = {malloc(seeds[which].length), seeds[which].length};
        if (!copy.data)
            return 2;
        memcpy(copy.data, seeds[which].data, copy.length);
        for (uint64_t changes = next_random() % 4 + (i > argc); changes; changes--)
            damage(&copy);
        uint8_t *exact = malloc(copy.length ? copy.length : 1);
        if (!exact)
            return 2;
        memcpy(exact, copy.data, copy.length);
        if (plan_decode(exact, copy.length, &plan, &error) == 0) {
            walk(&plan);
            passed++;
        }
        free(exact);
        free(copy.data);
    }
    printf("%ld of %ld decoded (%llu)\n", passed, rounds, (unsigned long long)(sum & 1));
    return 0;
}
