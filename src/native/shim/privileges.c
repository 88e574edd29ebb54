/* Inner steps that take privileges away: credentials, capabilities, filters. Raw calls, for this process alone. */
#include "execute.h"

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>

const struct plan_step *find_later(const struct execution *e, enum plan_op op)
{
    for (uint32_t i = e->step + 1; i < e->plan->outer_count + e->plan->inner_count; i++)
        if (e->plan->steps[i].op == op)
            return &e->plan->steps[i];
    return NULL;
}

struct capability_sets {
    uint64_t effective, permitted, inheritable;
};

static int get_capabilities(struct capability_sets *sets)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    int result = sys(syscall(SYS_capget, &header, data));
    sets->effective = (uint64_t)data[1].effective << 32 | data[0].effective;
    sets->permitted = (uint64_t)data[1].permitted << 32 | data[0].permitted;
    sets->inheritable = (uint64_t)data[1].inheritable << 32 | data[0].inheritable;
    return result;
}

static int set_capabilities(const struct capability_sets *sets)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    for (int i = 0; i < 2; i++)
        data[i] = (struct __user_cap_data_struct){.effective = (uint32_t)(sets->effective >> 32 * i),
                                                  .permitted = (uint32_t)(sets->permitted >> 32 * i),
                                                  .inheritable = (uint32_t)(sets->inheritable >> 32 * i)};
    return sys(syscall(SYS_capset, &header, data));
}

/* After setresuid() to another id the permitted set is still there (keepcaps), the effective one is empty. */
static int regain_effective(void)
{
    struct capability_sets sets;
    int result = get_capabilities(&sets);
    sets.effective = sets.permitted;
    return result < 0 ? result : set_capabilities(&sets);
}

static int retry_cwd(struct execution *e)
{
    uint32_t here = e->step;
    e->step = (uint32_t)e->cwd_pending;
    e->cwd_pending = CWD_RETRY;
    int result = do_cwd(e, &e->plan->steps[e->step]);
    if (result >= 0)
        e->step = here;
    return result;
}

int do_user(struct execution *e, const struct plan_step *step)
{
    const uint32_t *groups = (const void *)(e->plan->data + step->s[0].offset);
    size_t count = step->s[0].length / sizeof *groups;
    uid_t uid = (uid_t)step->w[0];
    gid_t gid = (gid_t)step->w[1];
    int result = sys(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
    if (result >= 0)
        result = sys(syscall(SYS_setgroups, count, groups));
    /* Denied for this user namespace: what groups we have cannot be lost, and none can be gained. */
    if (result == -EPERM && (count == 0 || (e->held->one_way && count == 1 && groups[0] == gid)))
        result = 0;
    if (result >= 0)
        result = sys(syscall(SYS_setresgid, gid, gid, gid));
    if (result >= 0)
        result = sys(syscall(SYS_setresuid, uid, uid, uid));
    if (result >= 0)
        result = regain_effective();
    if (result >= 0)
        result = guard_child();
    return result < 0 || e->cwd_pending < 0 ? result : retry_cwd(e);
}

/* Dropping what is gone already is no error; the first number the kernel does not know ends it. */
static int drop_bounding(uint64_t keep)
{
    for (int cap = 0; cap < 64; cap++) {
        if (keep >> cap & 1 || prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0)
            continue;
        return errno == EINVAL ? 0 : -errno;
    }
    return 0;
}

static int raise_ambient(uint64_t ambient)
{
    int result = sys(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
    for (int cap = 0; result >= 0 && cap < 64; cap++)
        if (ambient >> cap & 1)
            result = sys(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0));
    return result;
}

int do_capabilities(struct execution *e, const struct plan_step *step)
{
    struct capability_sets sets = {.permitted = step->w[1], .effective = step->w[2], .inheritable = step->w[3]};
    int result = e->sealed ? 0 : drop_bounding(step->w[0]);
    if (result >= 0)
        result = set_capabilities(&sets);
    if (result >= 0 && (step->w[4] || !e->sealed))
        result = raise_ambient(step->w[4]);
    if (result >= 0 && !e->sealed)
        result = guard_child();
    return result;
}

int do_no_new_privileges(struct execution *e, const struct plan_step *step)
{
    (void)e, (void)step;
    return sys(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

/* The bounding set of a capabilities step that comes after the filter is dropped before it. */
static int drop_bounding_early(struct execution *e)
{
    const struct plan_step *later = find_later(e, OP_CAPABILITIES);
    int result = later ? drop_bounding(later->w[0]) : 0;
    return result < 0 || !later ? result : sys(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
}

/* Nothing but capset and execve comes after the filter, so that it need not allow what a launcher does. */
int do_seccomp(struct execution *e, const struct plan_step *step)
{
    struct sock_fprog program = {.len = (unsigned short)(step->s[0].length / sizeof(struct sock_filter)),
                                 .filter = (void *)(uintptr_t)(e->plan->data + step->s[0].offset)};
    int result = arm(e);
    if (result >= 0)
        result = drop_bounding_early(e);
    if (result >= 0)
        result = sys(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, (unsigned)step->w[0], &program));
    e->sealed = result >= 0;
    return result;
}
