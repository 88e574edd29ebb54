/* web server stand-in for nginx / httpd / hostnet-nginx.
 * usage: web PORT [PIDFILE] [TITLE] [LOGLINE]; re-executes itself with argv[0]=TITLE so that
 * /proc/PID/cmdline reads like nginx's master. Serves "200 OK" to every request. Handles TERM/QUIT/INT. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
static void down(int s)
{
    (void)s;
    _exit(0);
}
int main(int argc, char **argv)
{
    if (argc > 1 && !getenv("WEB_PORT")) {
        setenv("WEB_PORT", argv[1], 1);
        if (argc > 2)
            setenv("WEB_PID", argv[2], 1);
        if (argc > 4)
            setenv("WEB_LOG", argv[4], 1);
        char *na[2] = {argc > 3 ? argv[3] : argv[0], 0};
        char self[512];
        ssize_t sl = readlink("/proc/self/exe", self, 511);
        if (sl < 0)
            return 1;
        self[sl] = 0;
        execv(self, na);
        perror("execv");
        return 1;
    }
    signal(SIGTERM, down);
    signal(SIGQUIT, down);
    signal(SIGINT, down);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    int port = atoi(getenv("WEB_PORT") ? getenv("WEB_PORT") : "80"), one = 1;
    int s = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int rc = -1;
    if (s >= 0) {
        int off = 0;
        setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, 4);
        setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &off, 4);
        rc = bind(s, (void *)&a, sizeof a);
    }
    if (rc < 0) {
        if (s >= 0)
            close(s);
        s = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, 4);
        struct sockaddr_in b = {.sin_family = AF_INET, .sin_port = htons(port)};
        rc = bind(s, (void *)&b, sizeof b);
    }
    if (rc < 0 || listen(s, 64) < 0) {
        perror("bind/listen");
        return 1;
    }
    if (getenv("WEB_PID") && *getenv("WEB_PID")) {
        FILE *f = fopen(getenv("WEB_PID"), "w");
        if (f) {
            fprintf(f, "%d\n", getpid());
            fclose(f);
        }
    }
    if (getenv("WEB_LOG")) {
        fprintf(stderr, "%s\n", getenv("WEB_LOG"));
    }
    for (;;) {
        int c = accept(s, 0, 0);
        if (c < 0)
            continue;
        if (fork() == 0) {
            char buf[4096];
            size_t n = 0;
            ssize_t r;
            while (n < sizeof buf - 1 && (r = read(c, buf + n, sizeof buf - 1 - n)) > 0) {
                n += r;
                buf[n] = 0;
                if (strstr(buf, "\r\n\r\n"))
                    break;
            }
            const char *body = "<html><body><h1>It works!</h1></body></html>\n";
            char h[256];
            int l = snprintf(h, sizeof h,
                             "HTTP/1.1 200 OK\r\nServer: standin\r\nContent-Type: text/html\r\nContent-Length: "
                             "%zu\r\nConnection: close\r\n\r\n%s",
                             strlen(body), body);
            write(c, h, l);
            shutdown(c, SHUT_WR);
            while (read(c, buf, sizeof buf) > 0)
                ;
            _exit(0);
        }
        close(c);
    }
}
