/* The wire format of launch plans, documented in PLAN.md and written by src/runtime/plan/wire.ts. */
#ifndef BERTH_PLAN_H
#define BERTH_PLAN_H

#include "launch.h"

#define PLAN_MAGIC   0x4e4c5042u /* "BPLN" */
#define PLAN_VERSION 1
#define PLAN_NO_SLOT (-1)

struct plan_header {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;
    uint32_t outer_count;
    uint32_t inner_count;
    uint32_t data_offset;
    uint32_t data_length;
    uint64_t reserved;
};

/* A piece of the data section. Strings end in a zero byte that `length` does not count. */
struct plan_ref {
    uint32_t offset, length;
};

struct plan_step {
    uint16_t op;
    int16_t slot;
    uint32_t flags;
    uint64_t w[5];
    struct plan_ref s[4];
};

struct plan_id_map {
    uint32_t inside, outside, count;
};

enum plan_op {
    OP_OVERLAY = 1,
    OP_BIND_SOURCE = 2,
    OP_FS_SOURCE = 3,
    OP_HOLD_MOUNT = 4,
    OP_HELD_SOURCE = 5,
    OP_OPEN = 6,
    OP_ENTER = 7,
    OP_CLONE = 8,
    OP_HOLD_NAMESPACES = 9,
    OP_PIN_NAMESPACE = 10,
    OP_IMAGE_SOURCE = 11,
    OP_LOCK_SOURCE = 12,

    OP_PROPAGATION = 32,
    OP_ATTACH_ROOT = 33,
    OP_ATTACH = 34,
    OP_MOUNT = 35,
    OP_BIND_INSIDE = 36,
    OP_SET_ATTRIBUTES = 37,
    OP_MKDIR = 38,
    OP_SYMLINK = 39,
    OP_DEVICE = 40,
    OP_MASK = 41,
    OP_READONLY_PATH = 42,
    OP_PIVOT = 43,
    OP_ROOT_READONLY = 44,
    OP_HOSTNAME = 45,
    OP_DOMAINNAME = 46,
    OP_SYSCTL = 47,
    OP_LOOPBACK = 48,
    OP_RLIMIT = 49,
    OP_OOM_SCORE = 50,
    OP_UMASK = 51,
    OP_SESSION_KEYRING = 52,
    OP_SESSION = 53,
    OP_CHOWN_STDIO = 54,
    OP_USER = 55,
    OP_CAPABILITIES = 56,
    OP_NO_NEW_PRIVILEGES = 57,
    OP_CWD = 58,
    OP_APPARMOR = 59,
    OP_SELINUX = 60,
    OP_SECCOMP = 61,
    OP_UNSHARE_CGROUP = 62,
    OP_ENTER_MOUNT = 63,
    OP_EXEC = 64,
    OP_PAUSE = 65,
    OP_HOLD = 66,
};

/* Flags of single steps. */
enum {
    STEP_RECURSIVE = 1,   /* attributes: with AT_RECURSIVE; bind-source: the tree below too */
    STEP_CREATE = 2,      /* cwd, bind-source: make a missing directory */
    STEP_CLAMP = 4,       /* rlimit, oom-score: keep what is in force rather than fail */
    STEP_TERMINAL = 8,    /* session */
    STEP_CONSOLE = 16,    /* session */
    STEP_COPY_UP = 32,    /* mount, attach: what the target holds is copied first */
    STEP_DEEP_ATTRS = 64, /* bind-source, bind-inside: attributes for the tree below too */
    STEP_DEEP_IDMAP = 128 /* bind-source: the tree below is idmapped too */
};

enum plan_idmap { IDMAP_NONE = 0, IDMAP_POD = 1, IDMAP_GIVEN = 2 };
enum plan_source { SOURCE_POD = 0, SOURCE_CONTAINER = 1, SOURCE_PATH = 2 };
enum plan_target_kind { TARGET_AUTO = 0, TARGET_DIR = 1, TARGET_FILE = 2 };

/* Which call of a step failed, where errno alone would leave people guessing. 0 is the step's main call. */
enum launch_detail {
    DETAIL_MAIN = 0,
    DETAIL_SOURCE = 1,     /* opening the source */
    DETAIL_TARGET = 2,     /* finding or making the target */
    DETAIL_OPTION = 3,     /* an option of the file system */
    DETAIL_ATTRIBUTES = 4, /* mount_setattr */
    DETAIL_ATTACH = 5,     /* move_mount */
    DETAIL_ID_MAP = 6,     /* writing an id map, or idmapping a mount */
    DETAIL_CGROUP = 7,     /* entering a cgroup */
    DETAIL_NAMESPACE = 8,  /* entering a namespace */
    DETAIL_VERIFY = 9,     /* something is not what it claims to be */
    DETAIL_OUTSIDE = 10,   /* the path leads out of the container */
    DETAIL_GATE = 11,      /* the shim went away */
    DETAIL_NOT_FOUND = 12, /* a held namespace or mount, or a container that is not known */
    DETAIL_TERMINAL = 13   /* making the terminal */
};

static inline const char *plan_string(const struct plan *plan, struct plan_ref ref)
{
    return (const char *)plan->data + ref.offset;
}

static inline const struct plan_step *plan_inner(const struct plan *plan)
{
    return plan->steps + plan->outer_count;
}

/* Walks a list of strings: start with at = NULL, ends with NULL. */
const char *plan_next(const struct plan *plan, struct plan_ref list, const char *at);

#endif
