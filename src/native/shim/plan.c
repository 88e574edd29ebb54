/* Decoding is checking: a plan that passes here can be executed without looking at a bound again. */
#include "plan.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <string.h>

#define MAX_PATH      4095
#define MAX_MAP_LINES 340 /* UID_GID_MAP_MAX_EXTENTS, Linux 4.15 */
#define MAX_GROUPS    65536

/* What a reference of a step may hold. */
enum ref_kind {
    NONE,    /* absent */
    TEXT,    /* a string, also an empty one */
    WORD,    /* a string of at least one byte */
    NAME,    /* a word without slashes */
    PATH,    /* an absolute path */
    MAYBE,   /* an absolute path or '' */
    SYSCTL,  /* relative path without . and .. */
    LIST,    /* strings, each ended by a zero byte */
    PATHS,   /* absolute paths, likewise */
    OPTIONS, /* `key` or `key=value`, likewise; a key has 1 to 255 bytes */
    ARGS,    /* at least one string, likewise */
    ENV,     /* `key=value`, likewise */
    MAPS,    /* struct plan_id_map, aligned to 4 */
    GROUPS,  /* uint32_t, aligned to 4 */
    FILTER   /* struct sock_filter, aligned to 8 */
};

enum slot_use { NO_SLOT, FILLS, TAKES, MAYBE_TAKES };

struct step_rule {
    uint8_t known;
    uint8_t slot;   /* enum slot_use */
    uint8_t words;  /* how many of w are used; the others are 0 */
    uint8_t flags;  /* allowed ones */
    uint8_t ref[4]; /* enum ref_kind */
};

#define RULE(op_, slot_, words_, flags_, ...) [op_] = {1, slot_, words_, flags_, {__VA_ARGS__}}

static const struct step_rule rules[] = {
    RULE(OP_OVERLAY, FILLS, 1, 0, PATHS, MAYBE, MAYBE, OPTIONS),
    RULE(OP_BIND_SOURCE, FILLS, 4, STEP_RECURSIVE | STEP_CREATE | STEP_DEEP_ATTRS | STEP_DEEP_IDMAP, PATH, TEXT, MAPS,
         MAPS),
    RULE(OP_FS_SOURCE, FILLS, 1, 0, NAME, TEXT, NONE, OPTIONS),
    RULE(OP_HOLD_MOUNT, TAKES, 0, 0, NAME),
    RULE(OP_HELD_SOURCE, FILLS, 3, STEP_RECURSIVE, NAME),
    RULE(OP_OPEN, FILLS, 1, 0, PATH),
    RULE(OP_ENTER, NO_SLOT, 2, 0, TEXT),
    RULE(OP_CLONE, NO_SLOT, 1, 0, MAPS, MAPS, MAYBE, PATHS),
    RULE(OP_HOLD_NAMESPACES, NO_SLOT, 1, 0, NONE),
    RULE(OP_PIN_NAMESPACE, NO_SLOT, 1, 0, PATH),
    RULE(OP_IMAGE_SOURCE, FILLS, 4, 0, PATHS, MAYBE, TEXT, OPTIONS),
    RULE(OP_LOCK_SOURCE, TAKES, 3, 0, TEXT),

    RULE(OP_PROPAGATION, NO_SLOT, 1, 0, NONE),
    RULE(OP_ATTACH_ROOT, TAKES, 1, 0, PATH),
    RULE(OP_ATTACH, TAKES, 1, STEP_COPY_UP, PATH),
    RULE(OP_MOUNT, NO_SLOT, 2, STEP_COPY_UP, NAME, TEXT, PATH, OPTIONS),
    RULE(OP_BIND_INSIDE, NO_SLOT, 3, STEP_DEEP_ATTRS, PATH, PATH),
    RULE(OP_SET_ATTRIBUTES, NO_SLOT, 3, STEP_RECURSIVE, PATH),
    RULE(OP_MKDIR, NO_SLOT, 1, 0, PATH),
    RULE(OP_SYMLINK, NO_SLOT, 0, 0, PATH, WORD),
    RULE(OP_DEVICE, MAYBE_TAKES, 5, 0, PATH),
    RULE(OP_MASK, NO_SLOT, 0, 0, PATH),
    RULE(OP_READONLY_PATH, NO_SLOT, 0, 0, PATH),
    RULE(OP_PIVOT, NO_SLOT, 0, 0, NONE),
    RULE(OP_ROOT_READONLY, NO_SLOT, 0, 0, NONE),
    RULE(OP_HOSTNAME, NO_SLOT, 0, 0, TEXT),
    RULE(OP_DOMAINNAME, NO_SLOT, 0, 0, TEXT),
    RULE(OP_SYSCTL, NO_SLOT, 0, 0, SYSCTL, TEXT),
    RULE(OP_LOOPBACK, NO_SLOT, 0, 0, NONE),
    RULE(OP_RLIMIT, NO_SLOT, 3, STEP_CLAMP, NONE),
    RULE(OP_OOM_SCORE, NO_SLOT, 1, STEP_CLAMP, NONE),
    RULE(OP_UMASK, NO_SLOT, 1, 0, NONE),
    RULE(OP_SESSION_KEYRING, NO_SLOT, 0, 0, TEXT),
    RULE(OP_SESSION, NO_SLOT, 0, STEP_TERMINAL | STEP_CONSOLE, NONE),
    RULE(OP_CHOWN_STDIO, NO_SLOT, 3, 0, NONE),
    RULE(OP_USER, NO_SLOT, 2, 0, GROUPS),
    RULE(OP_CAPABILITIES, NO_SLOT, 5, 0, NONE),
    RULE(OP_NO_NEW_PRIVILEGES, NO_SLOT, 0, 0, NONE),
    RULE(OP_CWD, NO_SLOT, 0, STEP_CREATE, PATH),
    RULE(OP_APPARMOR, NO_SLOT, 0, 0, WORD),
    RULE(OP_SELINUX, NO_SLOT, 0, 0, WORD),
    RULE(OP_SECCOMP, NO_SLOT, 1, 0, FILTER),
    RULE(OP_UNSHARE_CGROUP, NO_SLOT, 0, 0, NONE),
    RULE(OP_ENTER_MOUNT, NO_SLOT, 2, 0, TEXT),
    RULE(OP_EXEC, NO_SLOT, 0, 0, ARGS, ENV),
    RULE(OP_PAUSE, NO_SLOT, 0, 0, NONE),
    RULE(OP_HOLD, NO_SLOT, 0, 0, NONE),
};

const char *plan_next(const struct plan *plan, struct plan_ref list, const char *at)
{
    const char *end = plan_string(plan, list) + list.length;
    at = at ? at + strlen(at) + 1 : plan_string(plan, list);
    return at < end ? at : NULL;
}

static int absolute(const char *text, size_t length)
{
    return length > 0 && length <= MAX_PATH && text[0] == '/';
}

static const char *check_string(enum ref_kind kind, const char *text, size_t length)
{
    if (text[length] != 0 || memchr(text, 0, length))
        return "a string does not end where it says";
    if (kind == WORD && length == 0)
        return "a string is empty";
    if (kind == NAME && (length == 0 || length > 255 || memchr(text, '/', length)))
        return "not a name";
    if (kind == PATH && !absolute(text, length))
        return "not an absolute path";
    if (kind == MAYBE && length > 0 && !absolute(text, length))
        return "not an absolute path";
    if (kind == SYSCTL && (length == 0 || length > 255 || text[0] == '/' || strstr(text, "..")))
        return "not a sysctl name";
    return NULL;
}

static const char *check_item(enum ref_kind kind, const char *item, size_t length)
{
    const char *equals = memchr(item, '=', length);
    size_t key = equals ? (size_t)(equals - item) : length;
    if (kind == PATHS && !absolute(item, length))
        return "not an absolute path";
    if (kind == OPTIONS && (key == 0 || key > 255))
        return "an option's name is empty or too long";
    return NULL;
}

static const char *check_list(enum ref_kind kind, const char *text, size_t length)
{
    if (length == 0)
        return kind == ARGS ? "no arguments" : NULL;
    if (text[length - 1] != 0)
        return "a list does not end where it says";
    for (size_t at = 0; at < length;) {
        size_t item = strlen(text + at);
        const char *bad = check_item(kind, text + at, item);
        if (bad)
            return bad;
        at += item + 1;
    }
    return NULL;
}

static const char *check_maps(const struct plan_id_map *map, size_t count)
{
    if (count > MAX_MAP_LINES)
        return "too many lines in an id map";
    for (size_t i = 0; i < count; i++) {
        uint64_t inside = (uint64_t)map[i].inside + map[i].count, outside = (uint64_t)map[i].outside + map[i].count;
        if (map[i].count == 0 || inside > UINT32_MAX || outside > UINT32_MAX)
            return "an id map leaves the range of ids";
    }
    return NULL;
}

static const char *check_records(enum ref_kind kind, const uint8_t *data, struct plan_ref ref)
{
    size_t size = kind == MAPS ? sizeof(struct plan_id_map) : kind == GROUPS ? 4 : sizeof(struct sock_filter);
    size_t count = ref.length / size;
    if (ref.length % size || ref.offset % (kind == FILTER ? 8 : 4))
        return "a list of records is cut or badly aligned";
    if (kind == GROUPS && count > MAX_GROUPS)
        return "too many groups";
    if (kind == FILTER && (count == 0 || count > BPF_MAXINSNS))
        return "a filter has no or too many instructions";
    return kind == MAPS ? check_maps((const void *)(data + ref.offset), count) : NULL;
}

static const char *check_ref(const struct plan *plan, enum ref_kind kind, struct plan_ref ref)
{
    const char *text = plan_string(plan, ref);
    if (kind == NONE)
        return ref.offset || ref.length ? "a reference that the step does not have" : NULL;
    if (ref.offset > plan->data_length || ref.length > plan->data_length - ref.offset)
        return "a reference leaves the data";
    if (kind >= MAPS)
        return check_records(kind, plan->data, ref);
    if (kind >= LIST)
        return check_list(kind, text, ref.length);
    if (ref.length == plan->data_length - ref.offset)
        return "a reference leaves the data";
    return check_string(kind, text, ref.length);
}

static int fits(uint64_t value, uint64_t limit)
{
    return value <= limit;
}

static int source_fits(const struct plan_step *step, uint64_t from)
{
    return fits(from, SOURCE_PATH) && (from == SOURCE_POD) == (step->s[0].length == 0);
}

/* Numbers that the executor uses as an index, a narrower type or a choice. */
static const char *check_words(const struct plan_step *step)
{
    const uint64_t *w = step->w;
    int good = 1;
    switch (step->op) {
    case OP_OVERLAY:
        good = fits(w[0], IDMAP_POD) && step->s[0].length > 0 && (step->s[1].length == 0) == (step->s[2].length == 0);
        break;
    case OP_BIND_SOURCE:
        good = fits(w[2], UINT32_MAX) && fits(w[3], IDMAP_GIVEN);
        break;
    case OP_IMAGE_SOURCE:
        good = fits(w[2], UINT32_MAX) && fits(w[3], IDMAP_POD) && step->s[0].length > 0;
        break;
    case OP_LOCK_SOURCE:
        good = fits(w[2], UINT32_MAX);
        break;
    case OP_FS_SOURCE:
    case OP_OPEN:
    case OP_MOUNT:
    case OP_PROPAGATION:
    case OP_ATTACH_ROOT:
    case OP_SECCOMP:
        good = fits(w[0], UINT32_MAX) && fits(w[1], UINT32_MAX);
        break;
    case OP_ENTER:
        good = fits(w[0], NAMESPACE_KINDS - 1) && source_fits(step, w[1]);
        break;
    case OP_ENTER_MOUNT:
        good = w[0] == NAMESPACE_MNT && source_fits(step, w[1]);
        break;
    case OP_CLONE:
    case OP_HOLD_NAMESPACES:
        good = fits(w[0], (1 << NAMESPACE_KINDS) - 1);
        break;
    case OP_PIN_NAMESPACE:
        good = fits(w[0], NAMESPACE_KINDS - 1);
        break;
    case OP_ATTACH:
        good = fits(w[0], TARGET_FILE);
        break;
    case OP_MKDIR:
    case OP_UMASK:
        good = fits(w[0], 07777);
        break;
    case OP_DEVICE:
        good = (fits(w[0], UINT16_MAX) && fits(w[1], UINT32_MAX) && fits(w[2], UINT32_MAX) && fits(w[3], UINT32_MAX) &&
                fits(w[4], UINT32_MAX));
        break;
    case OP_RLIMIT:
        good = fits(w[0], 15) && w[1] <= w[2];
        break;
    case OP_OOM_SCORE:
        good = (int64_t)w[0] >= -1000 && (int64_t)w[0] <= 1000;
        break;
    case OP_CHOWN_STDIO:
        good = fits(w[0], UINT32_MAX - 1) && fits(w[1], UINT32_MAX - 1) && fits(w[2], UINT32_MAX - 1);
        break;
    case OP_USER:
        good = fits(w[0], UINT32_MAX - 1) && fits(w[1], UINT32_MAX - 1);
        break;
    case OP_CAPABILITIES:
        good = (w[2] & ~w[1]) == 0 && (w[4] & ~(w[1] & w[3])) == 0;
        break;
    case OP_HOLD_MOUNT:
    case OP_HELD_SOURCE:
        good = step->s[0].length < sizeof((struct held_mount *)0)->name;
        break;
    case OP_HOSTNAME:
    case OP_DOMAINNAME:
        good = step->s[0].length <= 64;
        break;
    default:
        break;
    }
    return good ? NULL : "a number is out of range";
}

static const char *check_slot(const struct plan_step *step, enum slot_use use, uint8_t filled[PLAN_SLOTS])
{
    if (use == NO_SLOT || (use == MAYBE_TAKES && step->slot == PLAN_NO_SLOT))
        return step->slot == PLAN_NO_SLOT ? NULL : "a slot that the step does not have";
    if (step->slot < 0 || step->slot >= PLAN_SLOTS)
        return "no such slot";
    if (use == FILLS && filled[step->slot])
        return "a slot is filled twice";
    if (use != FILLS && !filled[step->slot])
        return "a slot is used before it is filled";
    filled[step->slot] = 1;
    return NULL;
}

static const char *check_step(const struct plan *plan, const struct plan_step *step, int outer,
                              uint8_t filled[PLAN_SLOTS])
{
    if (step->op >= sizeof rules / sizeof rules[0])
        return "unknown step";
    const struct step_rule *rule = &rules[step->op];
    if (!rule->known || (step->op < OP_PROPAGATION) != outer)
        return "unknown step";
    if (step->flags & ~(uint32_t)rule->flags)
        return "unknown flag";
    for (int i = rule->words; i < 5; i++)
        if (step->w[i])
            return "a number that the step does not have";
    for (int i = 0; i < 4; i++) {
        const char *bad = check_ref(plan, rule->ref[i], step->s[i]);
        if (bad)
            return bad;
    }
    const char *bad = check_words(step);
    return bad ? bad : check_slot(step, rule->slot, filled);
}

/* Order between steps: what the executor would otherwise have to check at every step. */
struct order {
    int cloned, rooted, ended;
};

static const char *check_order(const struct plan *plan, const struct plan_step *step, struct order *order)
{
    int beneath_root = step->op >= OP_ATTACH && step->op <= OP_ROOT_READONLY;
    int keeps = step->op == OP_HOLD_NAMESPACES || step->op == OP_PIN_NAMESPACE || step->op == OP_HOLD_MOUNT;
    int last = step->op >= OP_EXEC;
    if (order->ended)
        return "a step after the last one";
    if (keeps && (plan->kind != PLAN_SANDBOX || !order->cloned))
        return "only a sandbox plan keeps namespaces and mounts, after its clone";
    if (step->op < OP_PROPAGATION && order->cloned && !keeps)
        return "an outer step after the clone";
    if (step->op == OP_ENTER_MOUNT && plan->kind != PLAN_JOIN)
        return "only a join plan enters a mount namespace";
    if (beneath_root && !order->rooted)
        return "a step beneath the root before there is a root";
    if (last && (step->op == OP_EXEC) == (plan->kind == PLAN_SANDBOX))
        return "the last step does not suit the kind of plan";
    order->cloned |= step->op == OP_CLONE;
    order->rooted |= step->op == OP_ATTACH_ROOT || step->op == OP_ENTER_MOUNT;
    order->ended |= last;
    return NULL;
}

static const char *check_header(const uint8_t *bytes, size_t length, struct plan *out)
{
    const struct plan_header *header = (const void *)bytes;
    if ((uintptr_t)bytes % 8)
        return "the plan is not aligned";
    if (length < sizeof *header || header->magic != PLAN_MAGIC)
        return "not a launch plan";
    if (header->version != PLAN_VERSION)
        return "a version of launch plans that this shim does not know";
    if (header->kind < PLAN_SANDBOX || header->kind > PLAN_JOIN || header->reserved)
        return "unknown kind of plan";
    if (header->outer_count > PLAN_MAX_STEPS || header->inner_count > PLAN_MAX_STEPS - header->outer_count)
        return "too many steps";
    uint64_t steps = (uint64_t)(header->outer_count + header->inner_count) * sizeof(struct plan_step);
    if (header->data_offset != sizeof *header + steps || header->data_length > length ||
        (uint64_t)header->data_offset + header->data_length != length)
        return "the plan's length is not what its header says";
    *out = (struct plan){.bytes = bytes,
                         .length = length,
                         .kind = header->kind,
                         .outer_count = header->outer_count,
                         .inner_count = header->inner_count,
                         .steps = (const void *)(bytes + sizeof *header),
                         .data = bytes + header->data_offset,
                         .data_length = header->data_length};
    return NULL;
}

int plan_decode(const uint8_t *bytes, size_t length, struct plan *out, struct plan_error *error)
{
    uint8_t filled[PLAN_SLOTS] = {0};
    struct order order = {0};
    error->step = UINT32_MAX;
    error->what = check_header(bytes, length, out);
    if (error->what)
        return -EINVAL;
    for (uint32_t i = 0; i < out->outer_count + out->inner_count; i++) {
        error->step = i;
        error->what = check_step(out, &out->steps[i], i < out->outer_count, filled);
        if (!error->what)
            error->what = check_order(out, &out->steps[i], &order);
        if (error->what)
            return -EINVAL;
    }
    error->step = UINT32_MAX;
    error->what = !order.cloned ? "no clone" : !order.ended ? "no last step" : NULL;
    return error->what ? -EINVAL : 0;
}
