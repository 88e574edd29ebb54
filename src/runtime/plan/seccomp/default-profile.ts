/**
 * RuntimeDefault: what a container may ask of the kernel when its pod says nothing else. An allow list; a call that is
 * not on it fails with EPERM, one newer than this list with ENOSYS.
 *
 * Left out on purpose: what administers the host (mounts, modules, clocks, swap, quotas, kexec), what reaches other
 * processes' memory or the keyrings, which namespaces do not divide, io_uring and userfaultfd, which have been ways out
 * of many a sandbox, and calls no program of this century makes. Some of it comes back with the capability that guards
 * it, since then the kernel decides.
 */

const words = (text: string): string[] => text.trim().split(/\s+/);

const files = words(`
  access chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
  fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
  file_getattr file_setattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
  ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init
  inotify_init1 inotify_rm_watch lchown lchown32 lgetxattr link linkat listxattr listxattrat llistxattr _llseek
  lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2
  pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readdir readlink readlinkat readv removexattr
  removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs
  statfs64 statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime
  utimensat utimensat_time64 utimes vmsplice write writev chdir fanotify_mark ioctl
`);

const waiting = words(`
  epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
  eventfd2 _newselect pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4
  io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit
`);

const memory = words(`
  brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2
  mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease
  remap_file_pages
`);

const processes = words(`
  alarm capget capset execve execveat exit exit_group fork vfork getcpu getegid getegid32 geteuid geteuid32 getgid
  getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid getresuid32
  getrlimit getrusage getsid gettid getuid getuid32 get_robust_list get_thread_area ioprio_get ioprio_set kill
  landlock_add_rule landlock_create_ruleset landlock_restrict_self pause pidfd_open pidfd_send_signal prctl prlimit64
  restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
  rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid
  setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32
  setreuid setreuid32 setrlimit set_robust_list setsid set_thread_area set_tid_address setuid setuid32 sigaction
  sigaltstack signal sigpending sigprocmask sigreturn sigsuspend sysinfo tgkill times tkill ugetrlimit uname wait4
  waitid waitpid
`);

const scheduling = words(`
  futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake nanosleep sched_getaffinity sched_getattr
  sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval
  sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
`);

const time = words(`
  adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
  clock_nanosleep_time64 getitimer gettimeofday setitimer time timer_create timer_delete timer_getoverrun timer_gettime
  timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
  timerfd_settime64
`);

const networking = words(`
  accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmmsg_time64 recvmsg
  sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair
`);

const ipc = words(`
  ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
  msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
`);

const others = words('getrandom listmount lsm_get_self_attr lsm_list_modules lsm_set_self_attr statmount');

/** Of one machine: no other has calls by these names, or they mean something else there. */
const byArch = { x86_64: words('arch_prctl modify_ldt uretprobe'), arm64: [] as string[] } as const;

/** A process may trace and read what the kernel lets it since 4.8, when seccomp could no longer be passed by that. */
const tracing = words('process_vm_readv process_vm_writev ptrace');

/** Calls that one capability opens; the kernel checks the capability itself as well. */
const byCapability: Readonly<Record<string, string[]>> = {
  CAP_BPF: ['bpf'],
  CAP_DAC_READ_SEARCH: ['open_by_handle_at'],
  CAP_PERFMON: ['perf_event_open'],
  CAP_SYS_ADMIN: words(`
    bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount
    open_tree open_tree_attr perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount
    umount2 unshare
  `),
  CAP_SYS_BOOT: ['reboot'],
  CAP_SYS_CHROOT: ['chroot'],
  CAP_SYS_MODULE: words('delete_module finit_module init_module'),
  CAP_SYS_NICE: words('get_mempolicy mbind set_mempolicy set_mempolicy_home_node'),
  CAP_SYS_PACCT: ['acct'],
  CAP_SYS_PTRACE: words('kcmp pidfd_getfd process_madvise'),
  CAP_SYS_RAWIO: words('ioperm iopl'),
  CAP_SYS_TIME: words('clock_settime clock_settime64 settimeofday stime'),
  CAP_SYS_TTY_CONFIG: ['vhangup'],
  CAP_SYSLOG: ['syslog'],
};

/** All CLONE_NEW* flags of sched.h that clone(2) takes but CLONE_NEWTIME, which shares a bit with the exit signal. */
const namespaceFlags = 0x7e02_0000;

/** personality(2): 32 or 64 bits, with or without the old kernel's version number, or a question. */
const personalities = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/** socket(2) families without a network namespace of their own, or with a history: hypervisor, kernel crypto. */
const family = { AF_ALG: 38, AF_VSOCK: 40 } as const;

const ENOSYS = 38;

/** The OCI `linux.seccomp` object, JSON as it stands. */
export interface OciSeccomp {
  readonly defaultAction: string;
  readonly defaultErrnoRet?: number;
  readonly architectures: readonly string[];
  readonly flags?: readonly string[];
  readonly syscalls: readonly OciSyscallRule[];
}

export interface OciSyscallRule {
  readonly names: readonly string[];
  readonly action: string;
  readonly errnoRet?: number;
  readonly args?: readonly {
    readonly index: number;
    readonly value: number | string;
    readonly valueTwo?: number | string;
    readonly op: string;
  }[];
}

const allow = (names: readonly string[], args?: OciSyscallRule['args']): OciSyscallRule => ({
  names,
  action: 'SCMP_ACT_ALLOW',
  ...(args === undefined ? {} : { args }),
});

/** RuntimeDefault for a process with these capabilities. */
export function defaultSeccompProfile(capabilities: readonly string[], arch: 'x86_64' | 'arm64'): OciSeccomp {
  const always = [files, waiting, memory, processes, scheduling, time, networking, ipc, others, tracing, byArch[arch]];
  const opened = [...new Set(capabilities)].sort().flatMap((name) => byCapability[name] ?? []);
  return {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: 1,
    architectures: arch === 'x86_64' ? ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'] : ['SCMP_ARCH_AARCH64'],
    syscalls: [
      allow([...new Set([...always.flat(), ...opened])]),
      ...personalities.map((value) => allow(['personality'], [{ index: 0, value, op: 'SCMP_CMP_EQ' }])),
      ...sockets,
      ...(capabilities.includes('CAP_SYS_ADMIN') ? [] : plainClone),
    ],
  };
}

/** Everything but the two families. One rule an interval: several conditions on one argument would each open all. */
const sockets: readonly OciSyscallRule[] = [
  allow(['socket'], [{ index: 0, value: family.AF_ALG, op: 'SCMP_CMP_LT' }]),
  allow(['socket'], [{ index: 0, value: family.AF_ALG + 1, op: 'SCMP_CMP_EQ' }]),
  allow(['socket'], [{ index: 0, value: family.AF_VSOCK, op: 'SCMP_CMP_GT' }]),
];

/**
 * Without CAP_SYS_ADMIN no namespaces. A filter cannot look behind the pointer that clone3 takes its flags by, so that
 * call answers ENOSYS, and the C library goes back to clone.
 */
const plainClone: readonly OciSyscallRule[] = [
  allow(['clone'], [{ index: 0, value: namespaceFlags, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }]),
  { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS },
];
