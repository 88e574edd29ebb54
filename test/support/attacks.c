/*
 * Attempts to get out of a container: `attacks WORD ARGUMENT… [+ WORD ARGUMENT…]…`. Prints a line an attempt: its words
 * and `done`, or the error that stopped it. Calls that would harm the host are made so that they fail right after the
 * kernel's check of rights; `done` then means that the check was passed. Built static by the tests that put it into an
 * image.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/swap.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* `argument[i]`, '' where none is given. */
typedef int attempt(char *const argument[]);

/* A call with nonsense in it: past the check of rights when anything but rights was missing. */
static int gate(long result)
{
    if (result >= 0 || errno == EPERM || errno == EACCES || errno == ENOSYS)
        return (int)result;
    return 0;
}

static int read_file(char *const argument[])
{
    char byte;
    int fd = open(argument[0], O_RDONLY | O_NONBLOCK);
    return fd < 0 ? fd : (int)read(fd, &byte, 1);
}

static int write_file(char *const argument[])
{
    int fd = open(argument[0], O_WRONLY | O_NONBLOCK);
    return fd < 0 ? fd : (int)write(fd, argument[1], strlen(argument[1]));
}

static int write_back(char *const argument[])
{
    char text[4096];
    int fd = open(argument[0], O_RDWR);
    ssize_t length = fd < 0 ? fd : read(fd, text, sizeof text);
    return length < 0 ? -1 : (int)pwrite(fd, text, (size_t)length, 0);
}

static int list(char *const argument[])
{
    char entries[1024];
    int fd = open(argument[0], O_RDONLY | O_DIRECTORY);
    return fd < 0 ? fd : (int)syscall(SYS_getdents64, fd, entries, sizeof entries);
}

static int enter_directory(char *const argument[])
{
    return chdir(argument[0]) < 0 ? -1 : chdir("/");
}

static int hard_link(char *const argument[])
{
    return link(argument[0], argument[1]);
}

/* The way from a mount to any file of its file system by number, as `handle` prints it on the host. */
static int open_handle(char *const argument[])
{
    struct {
        struct file_handle head;
        unsigned char bytes[MAX_HANDLE_SZ];
    } handle = {.head = {.handle_type = atoi(argument[1])}};
    for (const char *hex = argument[2]; hex[0] && hex[1]; hex += 2)
        sscanf(hex, "%2hhx", &handle.head.f_handle[handle.head.handle_bytes++]);
    int fd = open_by_handle_at(open(argument[0], O_RDONLY), &handle.head, O_RDONLY);
    char byte;
    return fd < 0 ? fd : (int)read(fd, &byte, 1);
}

static int make_node(char *const argument[])
{
    mode_t type = argument[1][0] == 'b' ? S_IFBLK : S_IFCHR;
    dev_t device = makedev((unsigned)atoi(argument[2]), (unsigned)atoi(argument[3]));
    return mknod(argument[0], type | 0666, device);
}

static int send_signal(char *const argument[])
{
    return kill(atoi(argument[0]), 0);
}

static int send_by_descriptor(char *const argument[])
{
    int fd = (int)syscall(SYS_pidfd_open, atoi(argument[0]), 0);
    return fd < 0 ? fd : (int)syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0);
}

static int trace(char *const argument[])
{
    return (int)ptrace(PTRACE_SEIZE, atoi(argument[0]), NULL, NULL);
}

static int enter_namespace(char *const argument[])
{
    int fd = open(argument[0], O_RDONLY);
    return fd < 0 ? fd : setns(fd, 0);
}

static int load_module(char *const argument[])
{
    (void)argument;
    return gate(syscall(SYS_init_module, "", 0L, ""));
}

static int unload_module(char *const argument[])
{
    (void)argument;
    return gate(syscall(SYS_delete_module, "no_such_module", O_NONBLOCK));
}

static int load_kernel(char *const argument[])
{
    (void)argument;
    return gate(syscall(SYS_kexec_load, 0L, 0L, NULL, ~0L));
}

/* `return 0` as a program of the given type. */
static int load_bpf(char *const argument[])
{
    struct bpf_insn program[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K}, {.code = BPF_JMP | BPF_EXIT}};
    union bpf_attr attr = {.prog_type = (unsigned)atoi(argument[0]), .insn_cnt = 2};
    attr.insns = (unsigned long)program;
    attr.license = (unsigned long)"GPL";
    return (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
}

/* A policy of nonsense: only who may load one is told that it is nonsense. */
static int load_policy(char *const argument[])
{
    int fd = open(argument[0], O_WRONLY);
    return fd < 0 ? fd : gate(write(fd, "nonsense", 8));
}

static int kernel_log(char *const argument[])
{
    enum { ACTION_CONSOLE_LEVEL = 8 };
    (void)argument;
    return gate(syscall(SYS_syslog, ACTION_CONSOLE_LEVEL, NULL, 0));
}

static int account(char *const argument[])
{
    (void)argument;
    return gate(acct("/no/such/file"));
}

static int set_clock(char *const argument[])
{
    struct timex change = {.modes = ADJ_TICK, .tick = 1};
    (void)argument;
    return gate(adjtimex(&change));
}

static int end_swap(char *const argument[])
{
    (void)argument;
    return gate(swapoff("/no/such/file"));
}

static int read_key(char *const argument[])
{
    char text[64];
    return (int)syscall(SYS_keyctl, KEYCTL_READ, atoi(argument[0]), text, sizeof text);
}

static int find_key(char *const argument[])
{
    long session = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", argument[0], 0);
    if (session >= 0)
        return 0;
    return (int)syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_USER_KEYRING, "user", argument[0], 0);
}

static int take_off(char *const argument[])
{
    return umount2(argument[0], MNT_DETACH);
}

static int make_writable(char *const argument[])
{
    struct mount_attr attr = {.attr_clr = MOUNT_ATTR_RDONLY};
    return (int)syscall(SYS_mount_setattr, AT_FDCWD, argument[0], 0, &attr, sizeof attr);
}

static int remount(char *const argument[])
{
    return mount("none", argument[0], NULL, MS_REMOUNT, NULL);
}

static int mount_type(char *const argument[])
{
    mkdir(argument[1], 0755);
    return mount("none", argument[1], argument[0], 0, argument[2]);
}

static int dial(char *const argument[])
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, argument[0], sizeof address.sun_path - 1);
    return connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address);
}

/* A new cgroup namespace, and a hierarchy mounted there. */
static int mount_cgroup(char *const argument[])
{
    if (unshare(CLONE_NEWCGROUP) < 0)
        return -1;
    return mount_type(argument);
}

static const struct {
    const char *word;
    attempt *make;
    int arguments;
} attempts[] = {
    {"read", read_file, 1},
    {"write", write_file, 2},
    {"write-back", write_back, 1},
    {"list", list, 1},
    {"enter", enter_directory, 1},
    {"link", hard_link, 2},
    {"open-handle", open_handle, 3},
    {"node", make_node, 4},
    {"kill", send_signal, 1},
    {"pidfd", send_by_descriptor, 1},
    {"trace", trace, 1},
    {"setns", enter_namespace, 1},
    {"load-module", load_module, 0},
    {"unload-module", unload_module, 0},
    {"kexec", load_kernel, 0},
    {"bpf", load_bpf, 1},
    {"load-policy", load_policy, 1},
    {"kernel-log", kernel_log, 0},
    {"account", account, 0},
    {"clock", set_clock, 0},
    {"swap", end_swap, 0},
    {"read-key", read_key, 1},
    {"find-key", find_key, 1},
    {"unmount", take_off, 1},
    {"make-writable", make_writable, 1},
    {"remount", remount, 1},
    {"mount", mount_type, 3},
    {"mount-cgroup", mount_cgroup, 3},
    {"dial", dial, 1},
};

/* For the host's side of `open-handle`: type and bytes of a file's handle. */
static int show_handle(const char *path)
{
    struct {
        struct file_handle head;
        unsigned char bytes[MAX_HANDLE_SZ];
    } handle = {.head = {.handle_bytes = MAX_HANDLE_SZ}};
    int mount;
    if (name_to_handle_at(AT_FDCWD, path, &handle.head, &mount, 0) < 0)
        return 1;
    printf("%d ", handle.head.handle_type);
    for (unsigned i = 0; i < handle.head.handle_bytes; i++)
        printf("%02x", handle.head.f_handle[i]);
    return 0;
}

/* Adds a key to the keyring of the host's root, readable for everybody who is that, and prints its serial number. */
static int add_key(const char *name)
{
    enum { EVERYTHING_FOR_POSSESSOR_AND_USER = 0x3f3f0000 };
    long serial = syscall(SYS_add_key, "user", name, "secret", 6, KEY_SPEC_USER_KEYRING);
    if (serial < 0 || syscall(SYS_keyctl, KEYCTL_SETPERM, serial, EVERYTHING_FOR_POSSESSOR_AND_USER) < 0)
        return 1;
    printf("%ld", serial);
    return 0;
}

static int run(char **argument)
{
    static char *const none = "";
    for (size_t i = 0; i < sizeof attempts / sizeof attempts[0]; i++) {
        if (strcmp(attempts[i].word, argument[0]) != 0)
            continue;
        char *given[] = {none, none, none, none};
        int count = 0;
        while (count < attempts[i].arguments && argument[count + 1] && strcmp(argument[count + 1], "+") != 0)
            given[count] = argument[count + 1], count++;
        if (fork() == 0) { /* what one changes, the next does not see: mounts and files stay */
            int result = attempts[i].make(given);
            const char *word = result < 0 ? strerrorname_np(errno) : "done";
            printf("%s%s%s %s\n", argument[0], count ? " " : "", given[0], word);
            exit(0);
        }
        wait(NULL);
        return count + 1;
    }
    fprintf(stderr, "attacks: no attempt \"%s\"\n", argument[0]);
    exit(2);
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "handle"))
        return show_handle(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "add-key"))
        return add_key(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "end-key"))
        return syscall(SYS_keyctl, KEYCTL_INVALIDATE, atoi(argv[2])) < 0;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "+") != 0)
            i += run(argv + i) - 1;
    return 0;
}
