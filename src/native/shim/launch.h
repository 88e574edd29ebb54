/*
 * Launch plans, as the monitor sees them: decode the bytes of a plan, begin the launch, finish it when the child has
 * executed its last step. Nothing here blocks for longer than a few kernel calls take, nothing uses threads, nothing
 * allocates but one anonymous mapping per launch. Errors are negative errno values.
 *
 *     struct plan plan;
 *     struct launch launch;
 *     if (plan_decode(bytes, length, &plan, &bad) < 0) ...          answer bad.what
 *     if (launch_begin(&held, &plan, &io, &launch) < 0) ...         answer launch.failure; nothing is left behind
 *     ... close the child's ends of stdio, poll launch.status_fd for reading ...
 *     switch (launch_finish(&held, &plan, &launch)) { case LAUNCH_PENDING: poll again; case 0: runs; default: failure }
 *     launch_release(&launch);
 */
#ifndef BERTH_LAUNCH_H
#define BERTH_LAUNCH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PLAN_MAX_STEPS 4096 /* outer and inner together */
#define PLAN_SLOTS     256

/* Order and values are part of the wire format (NamespaceKind in plan.ts). */
enum namespace_kind {
    NAMESPACE_PID,
    NAMESPACE_NET,
    NAMESPACE_IPC,
    NAMESPACE_UTS,
    NAMESPACE_MNT,
    NAMESPACE_USER,
    NAMESPACE_CGROUP,
    NAMESPACE_TIME,
    NAMESPACE_KINDS
};

enum plan_kind { PLAN_SANDBOX = 1, PLAN_CONTAINER = 2, PLAN_JOIN = 3 };

struct plan_step; /* one fixed record of the wire format, see plan.h */

/* A decoded plan points into the caller's bytes, which must stay in place until launch_finish() has ended. */
struct plan {
    const uint8_t *bytes;
    size_t length;
    enum plan_kind kind;
    uint32_t outer_count;
    uint32_t inner_count;
    const struct plan_step *steps; /* outer_count outer ones, then inner_count inner ones */
    const uint8_t *data;           /* strings and lists the steps refer to */
    uint32_t data_length;
};

struct plan_error {
    uint32_t step;    /* index of the bad step, or UINT32_MAX for the header */
    const char *what; /* a constant text */
};

/* Checks every field of every step; 0 or -EINVAL. `bytes` must be aligned to 8. */
int plan_decode(const uint8_t *bytes, size_t length, struct plan *out, struct plan_error *error);

/* A mount kept for the pod's life under a name: /dev/shm of the pod. */
struct held_mount {
    char name[32];
    int mount;     /* -1: this entry is free */
    int namespace; /* the mount namespace it hangs in where the kernel cannot clone a detached mount, else -1 */
};
#define SHIM_MAX_HELD_MOUNTS 4

/* What one shim holds for its pod, and what every launch needs of the shim. */
struct shim_namespaces {
    int held[NAMESPACE_KINDS]; /* descriptors of the pod's namespaces, -1 where the pod has none of its own */
    struct held_mount mounts[SHIM_MAX_HELD_MOUNTS];
    int own_pid; /* the shim's own PID namespace, to come back after a clone into another */
    int one_way; /* inside a user namespace nobody comes back into the host's: a child goes instead */
    int proc;    /* a procfs nobody else can reach; all of our writes to /proc go through it */
    /*
     * A descriptor (pidfd) of the first process of a container of this pod, or a negative errno. It stays the
     * monitor's. Set by the monitor after launch_init().
     */
    int (*container_pidfd)(void *context, const char *id);
    void *context;
};

/*
 * Opens own_pid and proc, holds nothing. Makes the process non-dumpable and sees to it that descriptors 0 to 2 are
 * open. Needs the host's /proc only where fsopen("proc") is refused.
 */
int launch_init(struct shim_namespaces *held);
/* Closes every held namespace and mount (the pins of a sandbox plan are the agent's to remove). */
void launch_drop_namespaces(struct shim_namespaces *held);

#define LAUNCH_CONSOLE_NONE   (-1)
#define LAUNCH_CONSOLE_INSIDE (-2)

/*
 * Descriptors of the child's stdio, which stay the caller's; -1 is /dev/null. With a terminal (the plan's session step
 * says so) they are not used: console_master is a pty master the caller opened (the child takes the slave with
 * TIOCGPTPEER), or LAUNCH_CONSOLE_INSIDE: the child opens the master in the container's own devpts, and it comes back
 * in launch.console_master. The latter is right for containers and for exec (ttyname works inside).
 */
struct launch_io {
    int stdin_fd, stdout_fd, stderr_fd;
    int console_master;
    uint16_t rows, columns; /* first size of the terminal, 0 leaves it */
};

enum launch_warning_kind { LAUNCH_CLAMPED = 1 };

/* A step that did something less than the plan said: the value it was told, and the one in force now. */
struct launch_warning {
    uint32_t step;
    uint32_t kind;
    int64_t wanted, got;
};
#define LAUNCH_MAX_WARNINGS 16

struct launch_failure {
    uint32_t step;   /* index in the plan, outer steps first; UINT32_MAX: not a step (clone refused, child killed) */
    int32_t error;   /* positive errno; 0: the child was killed before its last step */
    uint32_t detail; /* tells apart the kernel calls of one step, for people; see enum launch_detail in plan.h */
};

enum { LAUNCH_PENDING = 1 };

struct launch_report; /* shared with the child until it execs */

struct launch {
    pid_t pid;          /* in the shim's PID namespace; a child of the shim, who reaps it */
    int pidfd;          /* belongs to the caller once launch_begin() succeeded; the others below are the launch's */
    int status_fd;      /* readable: call launch_finish() */
    int console_master; /* valid after launch_finish() said 0 with LAUNCH_CONSOLE_INSIDE; then the caller's, else -1 */
    int gate_fd;
    uint32_t step_count;
    uint32_t warning_count;                /* valid after launch_finish() */
    const struct launch_warning *warnings; /* until launch_release() */
    const uint64_t *step_nanos;            /* step_count of them, monotonic time; until launch_release() */
    struct launch_failure failure;         /* valid when launch_begin or launch_finish failed */
    struct launch_report *report;
    size_t report_size;
};

/*
 * Executes the outer steps up to and including the clone, joins cgroups, writes id maps and opens the child's gate.
 * Negative errno: launch->failure says where, the child (if any) is killed and reaped, nothing is left open.
 */
int launch_begin(struct shim_namespaces *held, const struct plan *plan, const struct launch_io *io,
                 struct launch *launch);

/*
 * Call when status_fd is readable. 0: the program runs (or, for sandbox plans, the namespaces are held and pinned, and
 * the pause process waits; after a hold step the child is about to exit 0). LAUNCH_PENDING: not yet. Negative errno:
 * launch->failure says where; the child is dead or dying by SIGKILL and must still be reaped by the caller.
 * Closes status_fd unless pending.
 */
int launch_finish(struct shim_namespaces *held, const struct plan *plan, struct launch *launch);

/* Kills the child of a pending launch and releases it; the caller still reaps the child and closes pidfd. */
void launch_abort(struct launch *launch);

/* Frees what the launch holds (report mapping, status_fd, gate). Not pidfd, not console_master. Idempotent. */
void launch_release(struct launch *launch);

#endif
