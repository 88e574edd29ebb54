/*
 * Launches plans from files, one after the other, as one pod's shim would, and prints one JSON line per plan: for tests
 * and for people who want to see what a plan does. Standard streams are the tool's own.
 *
 *     exec-tool [--report FD] [--without BITS] [--console] [--background] PLAN ...
 *
 * --report prints the lines to another descriptor than standard output.
 * --background applies to the next plan: it keeps running while the others do and is killed at the end; the plan with
 * index N is known to `container` sources as "pN". --console gives the next plan a terminal made inside, whose output
 * goes to ours.
 * --time N launches the next plan N times and prints the medians.
 */
#include "../../../src/native/shim/execute.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define MAX_PLANS 16

struct tool {
    struct shim_namespaces held;
    int pidfds[MAX_PLANS];
    int count;
    FILE *report;
};

static int find_container(void *context, const char *id)
{
    const struct tool *tool = context;
    int index = id[0] == 'p' ? atoi(id + 1) : -1;
    return index >= 0 && index < tool->count ? tool->pidfds[index] : -ENOENT;
}

static uint8_t *read_file(const char *path, size_t *length)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        perror(path);
        exit(2);
    }
    uint8_t *bytes = malloc((size_t)st.st_size + 1);
    *length = (size_t)st.st_size;
    if (!bytes || read(fd, bytes, *length) != (ssize_t)*length) {
        perror(path);
        exit(2);
    }
    close(fd);
    return bytes;
}

static void print_nanos(FILE *out, const struct launch *launch)
{
    fprintf(out, ",\"nanos\":[");
    for (uint32_t i = 0; i < launch->step_count; i++)
        fprintf(out, "%s%llu", i ? "," : "", (unsigned long long)launch->step_nanos[i]);
    fprintf(out, "],\"warnings\":[");
    for (uint32_t i = 0; i < launch->warning_count; i++)
        fprintf(out, "%s{\"step\":%u,\"wanted\":%lld,\"got\":%lld}", i ? "," : "", launch->warnings[i].step,
                (long long)launch->warnings[i].wanted, (long long)launch->warnings[i].got);
    fprintf(out, "]");
}

static void print_failure(FILE *out, int index, const struct launch *launch)
{
    fprintf(out, "{\"plan\":%d,\"ok\":false,\"step\":%d,\"errno\":%d,\"detail\":%u}\n", index,
            (int)launch->failure.step, launch->failure.error, launch->failure.detail);
}

static int wait_child(const struct launch *launch)
{
    int status = 0;
    waitpid(launch->pid, &status, __WALL);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void copy_terminal(int master)
{
    char buffer[4096];
    ssize_t got;
    while ((got = read(master, buffer, sizeof buffer)) > 0)
        if (write(1, buffer, (size_t)got) < 0)
            break;
    close(master);
}

static int launch_one(struct tool *tool, const struct plan *plan, int console, struct launch *launch)
{
    struct launch_io io = {.stdin_fd = 0,
                           .stdout_fd = 1,
                           .stderr_fd = 2,
                           .console_master = console ? LAUNCH_CONSOLE_INSIDE : LAUNCH_CONSOLE_NONE,
                           .rows = 24,
                           .columns = 80};
    int result = launch_begin(&tool->held, plan, &io, launch);
    while (result >= 0) {
        struct pollfd wait = {.fd = launch->status_fd, .events = POLLIN};
        poll(&wait, 1, -1);
        result = launch_finish(&tool->held, plan, launch);
        if (result != LAUNCH_PENDING)
            break;
    }
    return result;
}

static int run_plan(struct tool *tool, const char *path, int console, int background)
{
    FILE *out = tool->report;
    struct plan plan;
    struct plan_error bad;
    struct launch launch;
    size_t length;
    uint8_t *bytes = read_file(path, &length);
    int index = tool->count++;
    tool->pidfds[index] = -1;
    if (plan_decode(bytes, length, &plan, &bad) < 0) {
        fprintf(out, "{\"plan\":%d,\"ok\":false,\"step\":%d,\"refused\":\"%s\"}\n", index, (int)bad.step, bad.what);
        free(bytes);
        return 1;
    }
    int result = launch_one(tool, &plan, console, &launch);
    if (result < 0) {
        print_failure(out, index, &launch);
        if (launch.pidfd >= 0)
            wait_child(&launch);
    } else {
        int exit_code = -1;
        if (launch.console_master >= 0)
            copy_terminal(launch.console_master);
        if (!background && plan_inner(&plan)[plan.inner_count - 1].op != OP_PAUSE)
            exit_code = wait_child(&launch);
        tool->pidfds[index] = launch.pidfd;
        fprintf(out, "{\"plan\":%d,\"ok\":true,\"pid\":%d,\"exit\":%d", index, (int)launch.pid, exit_code);
        print_nanos(out, &launch);
        fprintf(out, "}\n");
    }
    fflush(out);
    launch_release(&launch);
    free(bytes);
    return result < 0;
}

static int compare(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Launch to end of the program, in microseconds. */
static void time_plan(struct tool *tool, const char *path, int rounds)
{
    FILE *out = tool->report;
    struct plan plan;
    struct plan_error bad;
    size_t length;
    uint8_t *bytes = read_file(path, &length);
    uint64_t *begun = calloc((size_t)rounds, sizeof *begun), *running = calloc((size_t)rounds, sizeof *running),
             *ended = calloc((size_t)rounds, sizeof *ended);
    if (!begun || !running || !ended || plan_decode(bytes, length, &plan, &bad) < 0)
        exit(2);
    for (int i = 0; i < rounds; i++) {
        struct launch launch;
        uint64_t start = now_nanos();
        if (launch_one(tool, &plan, 0, &launch) < 0)
            exit(3);
        for (uint32_t step = 0; step < plan.outer_count; step++)
            begun[i] += launch.step_nanos[step];
        running[i] = now_nanos() - start;
        wait_child(&launch);
        ended[i] = now_nanos() - start;
        close(launch.pidfd);
        launch_release(&launch);
    }
    qsort(begun, (size_t)rounds, sizeof *begun, compare);
    qsort(running, (size_t)rounds, sizeof *running, compare);
    qsort(ended, (size_t)rounds, sizeof *ended, compare);
    fprintf(out, "{\"rounds\":%d,\"outer\":%.1f,\"running\":%.1f,\"ended\":%.1f}\n", rounds,
            (double)begun[rounds / 2] / 1e3, (double)running[rounds / 2] / 1e3, (double)ended[rounds / 2] / 1e3);
    free(begun);
    free(running);
    free(ended);
    free(bytes);
}

int main(int argc, char **argv)
{
    struct tool tool = {.report = stdout};
    int console = 0, background = 0, bad = 0;
    int result = launch_init(&tool.held);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    tool.held.container_pidfd = find_container;
    tool.held.context = &tool;
    if (result < 0) {
        fprintf(stderr, "launch_init: %s\n", strerror(-result));
        return 2;
    }
    for (int i = 1; i < argc && tool.count < MAX_PLANS; i++) {
        if (!strcmp(argv[i], "--console")) {
            console = 1;
        } else if (!strcmp(argv[i], "--background")) {
            background = 1;
        } else if (!strcmp(argv[i], "--report") && i + 1 < argc) {
            tool.report = fdopen(atoi(argv[++i]), "w");
        } else if (!strcmp(argv[i], "--without") && i + 1 < argc) {
            launch_without = (unsigned)atoi(argv[++i]);
        } else if (!strcmp(argv[i], "--time") && i + 2 < argc) {
            time_plan(&tool, argv[i + 2], atoi(argv[i + 1]));
            i += 2;
        } else {
            bad |= run_plan(&tool, argv[i], console, background);
            console = background = 0;
        }
    }
    for (int i = 0; i < tool.count; i++)
        if (tool.pidfds[i] >= 0)
            sys_pidfd_kill(tool.pidfds[i], SIGKILL);
    launch_drop_namespaces(&tool.held);
    return bad;
}
