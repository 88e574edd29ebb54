/*
 * `berth-shim --user-namespace`: a new user namespace for whoever started us. Says so with one byte on its standard
 * output, then lives until its standard input ends. The agent tries idmapped mounts with it, once, at its start.
 */
#include "monitor.h"

#include <sched.h>
#include <unistd.h>

int hold_user_namespace(void)
{
    char byte = 'u';
    if (unshare(CLONE_NEWUSER) < 0 || write(1, &byte, 1) != 1)
        return 70;
    while (read(0, &byte, 1) > 0)
        ;
    return 0;
}
