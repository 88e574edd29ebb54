/*
 * /bin/sh of the stand-in images. Debian's busybox runs its applets inside the shell, so that a masked /bin/ls would
 * still list; with a single word after -c this one executes the file as any other shell would, and leaves everything
 * else to busybox.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "-c") && !strpbrk(argv[2], " \t\n;&|<>()$`\\\"'*?[]#~=%!{}")) {
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
