/*
 * What a process in a container sees and may do, in words: `facts stat PATH…`, `facts self`, `facts open PATH…`, `facts
 * owners`, `facts ping`. Built static by the tests that put it into an image.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static void show_xattr(const char *path, const char *name, const char *label)
{
    unsigned char value[1024];
    ssize_t length = lgetxattr(path, name, value, sizeof value);
    if (length < 0)
        return;
    printf(" %s=", label);
    for (ssize_t i = 0; i < length; i++)
        printf("%02x", value[i]);
}

static void show_stat(const char *path)
{
    struct stat st;
    char target[256];
    if (lstat(path, &st) < 0) {
        printf("%s %s\n", path, strerrorname_np(errno));
        return;
    }
    printf("%s %u:%u %o", path, st.st_uid, st.st_gid, st.st_mode & 07777);
    if (!S_ISDIR(st.st_mode)) /* of directories every file system says what it likes */
        printf(" links=%lu", (unsigned long)st.st_nlink);
    if (S_ISREG(st.st_mode))
        printf(" size=%ld%s", (long)st.st_size, st.st_blocks * 512 < st.st_size / 2 ? " sparse" : "");
    if (S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode))
        printf(" dev=%u:%u", major(st.st_rdev), minor(st.st_rdev));
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length >= 0)
        printf(" -> %.*s", (int)length, target);
    show_xattr(path, "security.capability", "cap");
    show_xattr(path, "system.posix_acl_access", "acl");
    show_xattr(path, "system.posix_acl_default", "default");
    show_xattr(path, "user.note", "note");
    puts("");
}

static void show_self(void)
{
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    printf("euid=%u egid=%u", geteuid(), getegid());
    while (status && fgets(line, sizeof line, status))
        if (!strncmp(line, "CapEff:", 7))
            printf(" effective=%.16s", line + 8);
    puts("");
}

static void try_open(const char *path)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    printf("%s %s\n", path, fd < 0 ? strerrorname_np(errno) : "opened");
}

/* Whether each namespace belongs to the user namespace we are in; EPERM: to one above it. */
static void show_owners(void)
{
    static const char *const kinds[] = {"mnt", "pid", "net", "ipc", "uts"};
    struct stat own, owner;
    if (stat("/proc/self/ns/user", &own) < 0)
        return;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
        int fd = ioctl(open(path, O_RDONLY), NS_GET_USERNS);
        const char *word = fd < 0 ? strerrorname_np(errno) : "other";
        printf("%s %s\n", kinds[i], fd >= 0 && fstat(fd, &owner) == 0 && owner.st_ino == own.st_ino ? "own" : word);
    }
}

/* An echo request to ourselves over a socket that needs no capability (icmp(7)). */
static void try_ping(void)
{
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct icmphdr echo = {.type = ICMP_ECHO}, answer = {.type = ICMP_ECHO};
    int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    if (fd < 0 || sendto(fd, &echo, sizeof echo, 0, (struct sockaddr *)&self, sizeof self) < 0 ||
        recv(fd, &answer, sizeof answer, 0) < 0)
        puts(strerrorname_np(errno));
    else
        puts(answer.type == ICMP_ECHOREPLY ? "ping" : "no reply");
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "self";
    for (int i = 2; i < argc; i++) {
        if (!strcmp(what, "stat"))
            show_stat(argv[i]);
        else
            try_open(argv[i]);
    }
    if (!strcmp(what, "self"))
        show_self();
    if (!strcmp(what, "owners"))
        show_owners();
    if (!strcmp(what, "ping"))
        try_ping();
    return 0;
}
