/*
 * The programs that critest's images are expected to hold, in one static binary that asks its own name what to be:
 *
 *   pause                          waits for its end
 *   nnp                            says which user it is (the file is setuid root)
 *   nginx, httpd PORT TITLE LINE   answers HTTP, with TITLE as its command line, LINE on standard error
 *   pgrep WORD, ipcs               what Debian's busybox lacks
 *   sh                             busybox's shell, but a single word after -c is executed as a file: Debian's busybox
 *                                  would run the applet inside the shell, where a masked /bin/ls still lists
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void end(int number)
{
    (void)number;
    _exit(0);
}

static void end_on_signals(void)
{
    const int numbers[] = {SIGTERM, SIGINT, SIGQUIT, SIGWINCH};
    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        signal(numbers[i], end);
}

static int pause_role(void)
{
    end_on_signals();
    for (;;)
        pause();
}

static void answer(int client)
{
    static const char page[] = "<html><body><h1>It works!</h1></body></html>\n";
    char request[4096];
    if (read(client, request, sizeof request) > 0)
        dprintf(client, "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nContent-Length: %zu\r\n\r\n%s", sizeof page - 1,
                page);
    shutdown(client, SHUT_WR);
    while (read(client, request, sizeof request) > 0) {
    }
    close(client);
}

static int serve(int port)
{
    int listener = socket(AF_INET6, SOCK_STREAM, 0), on = 1, off = 0;
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 64) < 0) {
        perror("listen");
        return 1;
    }
    FILE *pid = fopen("/var/run/nginx.pid", "w");
    if (pid != NULL) {
        fprintf(pid, "%d\n", getpid());
        fclose(pid);
    }
    signal(SIGPIPE, SIG_IGN);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client >= 0)
            answer(client);
    }
}

/* The second run of the same file has the title as its only argument; the port comes by the environment. */
static int web_role(int argc, char **argv)
{
    const char *port = getenv("STAND_IN_PORT");
    end_on_signals();
    if (port != NULL)
        return serve(atoi(port));
    if (argc < 4)
        return 64;
    if (argv[3][0] != 0)
        fprintf(stderr, "%s\n", argv[3]);
    setenv("STAND_IN_PORT", argv[1], 1);
    char *titled[] = {argv[2], NULL};
    execv("/proc/self/exe", titled);
    perror("exec");
    return 1;
}

static int pgrep_role(const char *word)
{
    int found = 0;
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    while (proc != NULL && (entry = readdir(proc)) != NULL) {
        char path[300], name[64] = "";
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        snprintf(path, sizeof path, "/proc/%s/comm", entry->d_name);
        FILE *file = fopen(path, "r");
        if (file != NULL && fgets(name, sizeof name, file) != NULL && strstr(name, word) != NULL) {
            puts(entry->d_name);
            found++;
        }
        if (file != NULL)
            fclose(file);
    }
    return found == 0;
}

/* Key, id, permissions and size of every shared memory segment, in hexadecimal where ipcs(1) has it so. */
static int ipcs_role(void)
{
    char line[512];
    FILE *table = fopen("/proc/sysvipc/shm", "r");
    puts("key        shmid      perms      bytes");
    for (int row = 0; table != NULL && fgets(line, sizeof line, table) != NULL; row++) {
        int key, id;
        unsigned mode;
        unsigned long size;
        if (row > 0 && sscanf(line, "%d %d %o %lu", &key, &id, &mode, &size) == 4)
            printf("0x%08x %-10d %-10o %lu\n", (unsigned)key, id, mode & 0777, size);
    }
    return 0;
}

static int shell_role(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "-c") == 0 && strpbrk(argv[2], " \t\n;&|<>()$`\\\"'*?[]#~=%!{}") == NULL) {
        char *words[] = {argv[2], NULL};
        execvp(argv[2], words);
        if (errno == EACCES) {
            fprintf(stderr, "/bin/sh: %s: Permission denied\n", argv[2]);
            return 126;
        }
    }
    argv[0] = "sh";
    execv("/bin/busybox", argv);
    perror("/bin/busybox");
    return 127;
}

int main(int argc, char **argv)
{
    if (getenv("STAND_IN_PORT") != NULL)
        return web_role(argc, argv);
    const char *name = strrchr(argv[0], '/') == NULL ? argv[0] : strrchr(argv[0], '/') + 1;
    if (strcmp(name, "pause") == 0)
        return pause_role();
    if (strcmp(name, "nnp") == 0)
        return printf("Effective uid: %d\n", (int)geteuid()) < 0;
    if (strcmp(name, "pgrep") == 0)
        return argc < 2 ? 64 : pgrep_role(argv[argc - 1]);
    if (strcmp(name, "ipcs") == 0)
        return ipcs_role();
    if (strcmp(name, "sh") == 0)
        return shell_role(argc, argv);
    return web_role(argc, argv);
}
