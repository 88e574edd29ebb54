/*
 * What a program gives up before it reads the first byte of an image, so that even a fault of its own could not be
 * used for more than writing files below its directory.
 */
#include "common.h"
#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Owners, modes, devices, file capabilities; CAP_SYS_ADMIN for trusted.overlay.opaque; space reserved for root. */
static void drop_capabilities(void)
{
    uint32_t keep = 1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_FOWNER | 1u << CAP_FSETID | 1u << CAP_MKNOD |
                    1u << CAP_SETFCAP | 1u << CAP_SYS_ADMIN | 1u << CAP_SYS_RESOURCE;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0)
        host_error("read", "capabilities");
    data[0].permitted &= keep, data[1].permitted = 0;
    data[0].effective = data[0].permitted, data[1].effective = 0;
    data[0].inheritable = data[1].inheritable = 0;
    if (syscall(SYS_capset, &header, data) < 0)
        host_error("drop", "capabilities");
}

/* Files by descriptor, memory, the end. No open by path alone, no process, no socket, no mount. */
static const int allowed[] = {
    SYS_read,          SYS_write,        SYS_readv,           SYS_writev,
    SYS_lseek,         SYS_ftruncate,    SYS_close,           SYS_fcntl,
    SYS_openat2,       SYS_getdents64,   SYS_fstat,           SYS_newfstatat,
    SYS_statx,         SYS_readlinkat,   SYS_mkdirat,         SYS_mknodat,
    SYS_symlinkat,     SYS_linkat,       SYS_unlinkat,        SYS_renameat2,
    SYS_fchown,        SYS_fchownat,     SYS_fchmod,          SYS_fchmodat,
    SYS_utimensat,     SYS_fsetxattr,    SYS_fgetxattr,       SYS_flistxattr,
    SYS_mmap,          SYS_munmap,       SYS_mremap,          SYS_mprotect,
    SYS_madvise,       SYS_brk,          SYS_futex,           SYS_getrandom,
    SYS_sched_yield,   SYS_rt_sigreturn, SYS_rt_sigprocmask,  SYS_exit,
    SYS_exit_group,    SYS_ioctl,        SYS_copy_file_range,
#ifdef SYS_renameat
    SYS_renameat,
#endif
#ifdef SYS_clock_gettime
    SYS_clock_gettime,
#endif
#ifdef __SANITIZE_ADDRESS__
    SYS_sigaltstack,
#endif
};

enum { COUNT = sizeof allowed / sizeof *allowed, MORE = 32 };

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

/* Everything else fails with EPERM. x32 calls have numbers of their own and are not in the list. */
void filter_syscalls(const int *also, size_t more)
{
    if (more > MORE) {
        errno = E2BIG;
        host_error("allow", "system calls");
    }
#ifdef ARCHITECTURE
    struct sock_filter code[COUNT + MORE + 6];
    size_t used = 0, count = COUNT + more;
    code[used++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[used++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
    code[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    code[used++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < count; i++) {
        uint32_t number = (uint32_t)(i < COUNT ? allowed[i] : also[i - COUNT]);
        code[used++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, (uint8_t)(count - i), 0);
    }
    code[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    code[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = (unsigned short)used, .filter = code};
    /* A kernel without seccomp still has the other walls. */
    errno = 0; /* what is not zero may also be a thread that could not be reached */
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) && errno != EINVAL &&
        errno != ENOSYS)
        host_error("filter", "system calls");
#else
    (void)also, (void)more;
#endif
}

int inherited_dir(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISDIR(st.st_mode)) {
        errno = ENOTDIR;
        host_error("inherit", "directory");
    }
    return fd;
}

void make_root_of(int dir)
{
    if (fchdir(dir) < 0)
        host_error("enter", "directory");
    if (chroot(".") < 0 && errno != EPERM)
        host_error("make root of", "directory");
}

void drop_rights(void)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        host_error("set", "no_new_privs");
    drop_capabilities();
    /* Nobody is left to want the layer when the agent is gone. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        host_error("set", "parent death signal");
}

#ifdef __SANITIZE_ADDRESS__
/* Looking for leaks takes a tracer, which confinement forbids; and a program that ends need not free. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}
#endif
