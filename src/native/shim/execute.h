/* Shared by the parts of the executor; the monitor includes launch.h only. */
#ifndef BERTH_EXECUTE_H
#define BERTH_EXECUTE_H

#include "plan.h"
#include "sys.h"

enum report_state { REPORT_RUNNING, REPORT_FAILED, REPORT_READY };

/* A shared mapping: the child reports without a kernel call, which a strict seccomp filter might forbid. */
struct launch_report {
    volatile uint32_t state;
    volatile int32_t second_pid; /* of the child made inside a user namespace, in the shim's PID namespace */
    struct launch_failure failure;
    int32_t helper_result;
    uint32_t helper_detail;
    uint32_t warning_count;
    struct launch_warning warnings[LAUNCH_MAX_WARNINGS];
    uint64_t nanos[];
};

enum { CWD_FIRST = -1, CWD_RETRY = -2 };

/* One launch while it is being executed: the shim's copy until the clone, the child's own copy after it. */
struct execution {
    const struct plan *plan;
    struct shim_namespaces *held;
    const struct launch_io *io;
    struct launch_report *report;
    uint32_t step;   /* index of the step under way */
    uint32_t detail; /* what of it fails, if it does */
    int slots[PLAN_SLOTS];
    int enter[NAMESPACE_KINDS]; /* descriptors of namespaces to join (nsfs or pidfd), -1 none */
    uint8_t borrowed[NAMESPACE_KINDS];
    int enter_mount; /* descriptor for the enter-mount step, -1 none */
    uint8_t enter_mount_borrowed;
    uint64_t create;       /* bits of namespace_kind */
    const char **pointers; /* room for the program's arguments and environment */
    size_t pointer_count;
    int gate_read, gate_write; /* a socket pair: writing to a dead child must not raise SIGPIPE */
    int status_read, status_write;
    /* Only in the child: */
    int root;        /* the future root, paths of the plan resolve beneath it; -1 before attach-root */
    int null;        /* O_PATH of the verified null device, -1 unknown */
    int empty;       /* the attached empty tmpfs that hides directories, -1 before the first */
    int gate_passed; /* cgroups joined */
    int armed;       /* everything but stdio is close-on-exec, signals and gate are done */
    int sealed;      /* a seccomp filter is loaded: no more kernel calls than needed */
    int umask_set;
    int32_t cwd_pending; /* step to try again after `user`; CWD_FIRST, CWD_RETRY */
};

/* Kernel features to do without, so that tests reach the ways for older kernels. */
enum { WITHOUT_OVERLAY_FD = 1, WITHOUT_OVERLAY_STRING = 2, WITHOUT_DETACHED_CLONE = 4 };
extern unsigned launch_without;

/* Remembers which part of the step failed. Evaluates to `result`, a negative errno. */
static inline int failed(struct execution *e, enum launch_detail detail, int result)
{
    if (result < 0)
        e->detail = detail;
    return result;
}

static inline const char *text(const struct execution *e, struct plan_ref ref)
{
    return plan_string(e->plan, ref);
}

uint64_t now_nanos(void);
void warn(struct execution *e, enum launch_warning_kind kind, int64_t wanted, int64_t got);
/* Writes `length` bytes to a file below the shim's private procfs. */
int write_proc(struct execution *e, const char *path, const char *value, size_t length);
/* Decimal digits and a sign into `out` (24 bytes); the length. */
size_t format_number(char *out, int64_t value);
/* `part` after what is in `out`, whose size is `size`; 0 or -ENAMETOOLONG. */
int append(char *out, size_t size, const char *part);
/*
 * Runs `work` in a short-lived process and waits for it: for calls that need another mount namespace. What it answers
 * is a descriptor, which becomes ours, or a negative errno.
 */
int run_helper(struct execution *e, int (*work)(struct execution *, const struct plan_step *, void *),
               const struct plan_step *step, void *argument);

/* Waits for a child that was made without an exit signal and is about to end. */
void reap(int pidfd);
int send_fd(int socket, int fd);
/* A descriptor, or -EAGAIN when there is none yet, or -EPIPE at the end. */
int receive_fd(int socket, int flags);

/* sources.c: outer steps that fill slots */
int do_bind_source(struct execution *e, const struct plan_step *step);
int do_lock_source(struct execution *e, const struct plan_step *step);
int do_fs_source(struct execution *e, const struct plan_step *step);
int do_held_source(struct execution *e, const struct plan_step *step);
int do_hold_mount(struct execution *e, const struct plan_step *step);
int do_open(struct execution *e, const struct plan_step *step);
int idmap_userns(struct execution *e, const struct plan_step *step, uint64_t kind);
int new_filesystem(struct execution *e, const struct plan_step *step, const char *type);
int set_options(const struct execution *e, int fs, struct plan_ref options);
int finish_filesystem(int fs, uint64_t attributes);
int idmap_mount(struct execution *e, const struct plan_step *step, int mount, uint64_t kind, int deep);

/* In a helper: leaves `mount` attached in a mount namespace of its own, where all kernels let it be cloned. */
int attach_alone(int mount);

/* overlay.c */
int do_overlay(struct execution *e, const struct plan_step *step);

/* image-source.c */
int do_image_source(struct execution *e, const struct plan_step *step);

/* namespaces.c */
extern const uint32_t namespace_flags[NAMESPACE_KINDS];
int do_enter(struct execution *e, const struct plan_step *step);
int do_clone(struct execution *e, const struct plan_step *step, struct launch *launch);
int do_hold_namespaces(struct execution *e, const struct plan_step *step, pid_t pid);
int do_pin_namespace(struct execution *e, const struct plan_step *step);
int do_unshare_cgroup(struct execution *e, const struct plan_step *step);
int do_enter_mount(struct execution *e, const struct plan_step *step);
int write_id_maps(struct execution *e, pid_t pid, struct plan_ref uids, struct plan_ref gids);
/* In the child: joins what is entered, becomes mapped root where a user namespace came with it. */
int enter_namespaces(struct execution *e, const struct plan_step *clone);

/* child.c */
_Noreturn void child_main(struct execution *e);
_Noreturn void child_fail(struct execution *e, int error);
/* Waits for one byte through the gate; -EPIPE when the shim is gone. */
int wait_gate(struct execution *e, char expected);
int pass_gate(struct execution *e);
/* Ends with the shim, and cannot be traced: to be repeated whenever credentials changed. */
int guard_child(void);

/* paths.c: everything beneath a root descriptor; see there */
int path_open(int root, const char *path, uint64_t flags);
int path_open_real_dir(int root, const char *path);
int path_make(int root, const char *path, int file, unsigned mode);
int path_parent(int root, const char *path, const char **name);
int path_is_null_device(int fd);

/* mounts.c */
int set_attributes(struct execution *e, int mount, const struct plan_step *step, int deep);
int do_propagation(struct execution *e, const struct plan_step *step);
int do_attach_root(struct execution *e, const struct plan_step *step);
int do_attach(struct execution *e, const struct plan_step *step);
int do_mount(struct execution *e, const struct plan_step *step);
int do_bind_inside(struct execution *e, const struct plan_step *step);
int do_set_attributes(struct execution *e, const struct plan_step *step);
int do_mkdir(struct execution *e, const struct plan_step *step);
int do_symlink(struct execution *e, const struct plan_step *step);
int do_device(struct execution *e, const struct plan_step *step);
int do_mask(struct execution *e, const struct plan_step *step);
int do_readonly_path(struct execution *e, const struct plan_step *step);
int do_pivot(struct execution *e, const struct plan_step *step);
int do_root_readonly(struct execution *e, const struct plan_step *step);

/* copy-up.c */
int copy_up(int from, int to);
/* The same, with owner, mode and attributes of the directory itself. */
int copy_up_whole(int from, int to);

/* process.c */
int do_hostname(struct execution *e, const struct plan_step *step);
int do_domainname(struct execution *e, const struct plan_step *step);
int do_sysctl(struct execution *e, const struct plan_step *step);
int do_loopback(struct execution *e, const struct plan_step *step);
int do_rlimit(struct execution *e, const struct plan_step *step);
int do_umask(struct execution *e, const struct plan_step *step);
int do_session_keyring(struct execution *e, const struct plan_step *step);
int do_chown_stdio(struct execution *e, const struct plan_step *step);
/* With the shim's rights still, before a user namespace is joined. */
int give_stdio_away(struct execution *e);
int do_cwd(struct execution *e, const struct plan_step *step);
int do_apparmor(struct execution *e, const struct plan_step *step);
int do_selinux(struct execution *e, const struct plan_step *step);
/* By the shim, for a child that may not be allowed to do it itself. */
int do_oom_score(struct execution *e, const struct plan_step *step, pid_t pid);
int raise_hard_limits(struct execution *e, pid_t pid);

/* privileges.c */
int do_user(struct execution *e, const struct plan_step *step);
int do_capabilities(struct execution *e, const struct plan_step *step);
int do_no_new_privileges(struct execution *e, const struct plan_step *step);
int do_seccomp(struct execution *e, const struct plan_step *step);
/* The first step of this kind after the one under way, or NULL. */
const struct plan_step *find_later(const struct execution *e, enum plan_op op);

/* program.c */
int do_session(struct execution *e, const struct plan_step *step);
int arm(struct execution *e);
int do_exec(struct execution *e, const struct plan_step *step);

/* execute.c */
int open_gate(struct execution *e, char byte);

/* pause.c */
_Noreturn void do_pause(struct execution *e);
_Noreturn void do_hold(struct execution *e);

#endif
