/*
 * The program of the demo's image, which holds nothing else: a static executable that shows from inside what a pod is.
 *
 *   hello serve         answers HTTP on port 8080 and writes a log line every half second until SIGTERM
 *   hello id            prints ids, host name, process id and addresses
 *   hello env           prints its environment
 *   hello exit CODE     exits with that code
 */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

extern char **environ;

static volatile sig_atomic_t asked_to_end;

static void on_term(int signal)
{
    (void)signal;
    asked_to_end = 1;
}

static void print_addresses(FILE *out)
{
    struct ifaddrs *all = NULL;
    if (getifaddrs(&all) < 0)
        return;
    for (struct ifaddrs *each = all; each; each = each->ifa_next) {
        char text[INET_ADDRSTRLEN];
        if (!each->ifa_addr || each->ifa_addr->sa_family != AF_INET)
            continue;
        struct sockaddr_in *address = (struct sockaddr_in *)each->ifa_addr;
        if (inet_ntop(AF_INET, &address->sin_addr, text, sizeof(text)))
            fprintf(out, "%s=%s ", each->ifa_name, text);
    }
    freeifaddrs(all);
}

static void print_identity(FILE *out)
{
    char host[256] = "";
    gethostname(host, sizeof(host) - 1);
    fprintf(out, "host=%s pid=%d uid=%d gid=%d ", host, (int)getpid(), (int)getuid(), (int)getgid());
    print_addresses(out);
    fputc('\n', out);
}

static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 16) < 0) {
        perror("listen");
        exit(1);
    }
    return fd;
}

static void answer(int listener)
{
    char request[1024];
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        return;
    (void)!read(fd, request, sizeof(request));
    FILE *out = fdopen(fd, "w");
    if (!out) {
        close(fd);
        return;
    }
    fputs("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nhello from ", out);
    print_identity(out);
    fclose(out);
    puts("answered a request");
}

static int serve(void)
{
    struct sigaction action = {.sa_handler = on_term};
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    struct pollfd listener = {.fd = listen_on(8080), .events = POLLIN};
    fputs("up: ", stdout);
    print_identity(stdout);
    for (int tick = 1; !asked_to_end; tick++) {
        if (poll(&listener, 1, 500) > 0)
            answer(listener.fd);
        else if (!asked_to_end)
            printf("tick %d\n", tick);
    }
    puts("down: SIGTERM");
    return 0;
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "id";
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!strcmp(command, "serve"))
        return serve();
    if (!strcmp(command, "exit"))
        return argc > 2 ? atoi(argv[2]) : 0;
    if (!strcmp(command, "env"))
        for (char **each = environ; *each; each++)
            puts(*each);
    else
        print_identity(stdout);
    return 0;
}
