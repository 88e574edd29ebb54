/*
 * The monitor: one process per pod, one thread, one epoll loop. It starts what launch plans say, writes container
 * logs, reaps, writes exit records and answers the agent. Nothing in it waits for a container or for the agent.
 *
 * Descriptors are watched through a `struct source` that lives inside its owner. The loop takes one event at a time, so
 * a handler may free any other source: no event of it can be pending in user space.
 */
#ifndef BERTH_MONITOR_H
#define BERTH_MONITOR_H

#include "launch.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ID_MAX             128   /* bytes of a container id */
#define READ_CHUNK         16384 /* bytes taken from a pipe at a time */
#define DEFAULT_LINE_BYTES 16384 /* the length at which peers split a log line */

#define container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

struct source {
    int fd; /* -1 when closed */
    uint32_t events;
    void (*ready)(struct source *source, uint32_t events);
};

struct connection;
struct container;
struct exec;
struct log;
struct pump;
struct input;

/* Descriptor of the other side's output, read as it comes. */
struct pump {
    struct source source;
    uint8_t stream; /* 1 stdout, 2 stderr */
    bool terminal;  /* a pty master: EIO is its end, and the descriptor is shared with the input */
    /* Takes what was read. */
    void (*take)(struct pump *pump, uint8_t *data, size_t length);
    void (*ended)(struct pump *pump);
};

/* Bytes on their way into a program's stdin. One frame at a time: the sender's connection is not read meanwhile. */
struct input {
    struct source source; /* the pipe's write end, or a duplicate of the pty master */
    uint8_t *frame;       /* the frame being written, owned; NULL when idle */
    size_t frame_size, offset, length;
    uint64_t sender; /* connection serial */
    uint32_t request;
};

enum phase { LAUNCHING, RUNNING, EXITED };

struct process;

struct process_events {
    void (*launched)(struct process *process);
    void (*failed)(struct process *process); /* launch.failure says where; the process is freed by this */
    void (*exited)(struct process *process);
};

/* What containers, execs and the pause process have in common: one plan on its way, one process. */
struct process {
    const struct process_events *events;
    enum phase phase;
    struct source status; /* while launching */
    struct launch launch;
    struct plan plan;
    uint8_t *frame; /* holds the plan while launching */
    size_t frame_size;
    int child_fds[3]; /* the child's ends, closed after launch_begin() */
    uint64_t requester;
    uint32_t request;
    pid_t pid;
    int pidfd;
    uint64_t start_time; /* field 22 of /proc/PID/stat */
    int64_t started_at;  /* nanoseconds since the epoch */
    int code;            /* when exited */
    int64_t finished_at;
};

struct container {
    struct process process;
    struct container *next;
    char id[ID_MAX + 1];
    struct log *log; /* NULL without */
    struct pump out, err;
    struct input input;
    bool stdin_once, terminal;
    bool oom_killed;
    char *oom_file;
    uint64_t oom_before;
    char *cgroup; /* directory whose processes `signal all` means, or NULL */
};

struct exec {
    struct process process;
    struct exec *next;
    char id[ID_MAX + 1]; /* the container's */
    struct pump out, err;
    struct input input;
    uint64_t limit;      /* bytes passed on per stream, 0 without limit */
    uint64_t passed[3];  /* by stream number */
    uint64_t dropped;    /* bytes over the limit */
    int64_t deadline;    /* monotonic ns, 0 for none */
    int64_t drain_ns;    /* how long output may come after the exit */
    int64_t drain_until; /* monotonic ns, 0 before the exit */
    bool timed_out, terminal, paused;
    bool streamed; /* somebody sits at the other end: told of the start, and killed when the connection goes */
};

struct monitor {
    int epoll;
    int pod_dir; /* directory of the exit records' directory */
    int exits_dir;
    char *socket_path;
    char *sandbox_id;
    uint64_t start_time;
    struct source listener, signals;
    struct connection *connections;
    uint64_t next_serial;
    struct shim_namespaces held;
    struct process pause;
    bool pause_used, pause_stays; /* a HOLD was done; its process stays as PID 1 of the pod */
    struct container *containers;
    struct exec *execs;
    int netlink_fd;
    bool scratch_used;
    bool ending; /* SHUTDOWN was asked for */
    int64_t end_by;
    uint64_t end_requester;
    uint32_t end_request;
    bool done;
};

extern struct monitor monitor;

/* Memory for reading output. Room before the data lets a frame header be put in front of it. */
#define SCRATCH_HEAD 32
#define SCRATCH_SIZE (SCRATCH_HEAD + READ_CHUNK)
extern uint8_t *scratch; /* whole pages of its own: given back when idle */

/* monitor.c */
int monitor_open(const char *socket_path, const char *dir, const char *sandbox_id);
int monitor_run(void);
int source_add(struct source *source, int fd, uint32_t events, void (*ready)(struct source *, uint32_t));
void source_events(struct source *source, uint32_t events);
void source_close(struct source *source);
int64_t now_monotonic(void);
int64_t now_realtime(void);
/* Memory that goes back to the kernel when freed; zeroed; NULL when there is none. */
void *pages_alloc(size_t size);
void pages_free(void *memory, size_t size);
/* Field 22 of /proc/PID/stat, 0 when there is no such process. */
uint64_t process_start_time(pid_t pid);
/* Ends the loop when SHUTDOWN was asked for and everything is over. */
void monitor_maybe_end(void);
void monitor_shutdown(uint64_t requester, uint32_t request);

/* processes.c */
void process_init(struct process *process, const struct process_events *events, uint64_t requester, uint32_t request);
/* Starts a launch. The frame is taken over. On failure the process is as before and the launch says why. */
int process_begin(struct process *process, const struct launch_io *io);
/* Called for each child that ended; tells whose it was. */
void process_reap(void);
void process_close(struct process *process);
void process_kill(struct process *process, int signal);
/* Decodes the plan of a request frame; answers the request itself when it is bad. */
bool process_plan(struct process *process, uint8_t *frame, size_t frame_size, const uint8_t *plan, size_t length);

/* containers.c */
struct container *container_find(const char *id);
int container_pidfd(void *context, const char *id);
void container_free(struct container *container);
void container_report(struct container *container, struct connection *only);
/* Processes of the container, all of them: SIGKILL when the shim ends. */
int container_signal(struct container *container, int signal, bool all);

/* execs.c */
struct exec *exec_find(uint64_t requester, uint32_t request);
int64_t execs_deadline(void);
void execs_expire(int64_t now);
/* The connection has room again, or is gone. */
void execs_resume(uint64_t requester);
void exec_free(struct exec *exec);

/* stdio.c */
int pump_open(struct pump *pump, int fd, uint8_t stream);
/* Reads until nothing is there, the end, or `bound` bytes. */
void pump_drain(struct pump *pump, size_t bound);
void pump_close(struct pump *pump);
int pipe_pair(int *ours, int *theirs, bool ours_reads);
int input_open(struct input *input, int fd);
void input_close(struct input *input);
/* Takes the frame over. False: this program has no stdin (any more). */
bool input_give(struct input *input, uint8_t *frame, size_t frame_size, size_t offset, size_t length,
                struct connection *sender, uint32_t request);

/* logs.c */
struct log *log_open(const char *path, uint32_t line_bytes, int *error);
int log_reopen(struct log *log);
void log_write(struct log *log, uint8_t stream, const uint8_t *data, size_t length);
/* Writes the unterminated rest of a stream, tagged P. */
void log_flush(struct log *log, uint8_t stream);
void log_close(struct log *log);
uint64_t log_dropped(const struct log *log);

/* exits.c */
int exit_record_write(const struct container *container);
void exit_record_remove(const char *id);

/* oom.c */
uint64_t oom_count(const char *path);

/* kill.c */
/* SIGKILL (or another signal) to a process, its descendants, and everything in its session or process group. */
void kill_tree(pid_t root, int signal);
/* A signal to every process of a cgroup and of those below it. */
int kill_cgroup(const char *directory, int signal);

/* user-namespace.c: the whole program in that mode; its exit code. */
int hold_user_namespace(void);

/* rootless.c: the same; the arguments are those after the mode's name. */
int keep_namespaces(int argc, char **argv);
int join_namespaces(int argc, char **argv);
int namespace_socket(int argc, char **argv);

#endif
