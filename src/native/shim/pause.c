/* Last steps of a sandbox plan: PID 1 of a pod that shares its PID namespace, or a child that only keeps namespaces. */
#include "execute.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static void close_everything(struct execution *e)
{
    e->report->state = REPORT_READY;
    sys_close_range(0, ~0u, 0);
}

/* Everything in the pod whose parent ended becomes a child of this process; it ends when told to, or with the shim. */
_Noreturn void do_pause(struct execution *e)
{
    siginfo_t info;
    sigset_t all;
    int result = pass_gate(e);
    if (result < 0)
        child_fail(e, result);
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    prctl(PR_SET_NAME, "berth-pause", 0, 0, 0);
    close_everything(e);
    for (;;) {
        while (waitpid(-1, NULL, WNOHANG | __WALL) > 0)
            ;
        int signal = sigwaitinfo(&all, &info);
        if (signal == SIGTERM || signal == SIGINT)
            _exit(0);
    }
}

/* The shim takes the namespaces when the status channel closes, then lets go. */
_Noreturn void do_hold(struct execution *e)
{
    int result = pass_gate(e);
    if (result < 0)
        child_fail(e, result);
    e->report->state = REPORT_READY;
    close(e->status_write);
    wait_gate(e, 'h');
    _exit(0);
}
