/* Frames between the agent and the monitor. PROTOCOL.md is the description; this is its reader and writer. */
#ifndef BERTH_PROTOCOL_H
#define BERTH_PROTOCOL_H

#include "monitor.h"

#define PROTOCOL_VERSION 1
#define FRAME_HEADER     12
#define FRAME_MAX        (8u << 20)

enum frame_type {
    FRAME_HELLO = 1,
    FRAME_HOLD = 2,
    FRAME_START = 3,
    FRAME_EXEC = 4,
    FRAME_SIGNAL = 5,
    FRAME_REOPEN_LOG = 6,
    FRAME_NETLINK = 7,
    FRAME_STATE = 8,
    FRAME_FORGET = 9,
    FRAME_SHUTDOWN = 10,
    FRAME_ATTACH = 11,
    FRAME_INPUT = 12,
    FRAME_CLOSE_INPUT = 13,
    FRAME_RESIZE = 14,
    FRAME_CANCEL = 15,
    FRAME_DIAL = 16,

    EVENT_EXIT = 0x4001,
    EVENT_OUTPUT = 0x4002,
    EVENT_STREAMS_END = 0x4003,
    EVENT_STARTED = 0x4004,

    FRAME_OK = 0x8000,
    FRAME_ERROR = 0xffff
};

enum error_kind {
    ERROR_BAD_REQUEST = 1,
    ERROR_NOT_FOUND = 2,
    ERROR_PLAN_FAILED = 3,
    ERROR_SYSTEM = 4,
    ERROR_EXISTS = 5,
    ERROR_WRONG_STATE = 6
};

/* A frame being read. After the first overrun every read gives zeros and `bad` is set. */
struct reader {
    const uint8_t *at, *end;
    bool bad;
};

uint8_t read_u8(struct reader *reader);
uint16_t read_u16(struct reader *reader);
uint32_t read_u32(struct reader *reader);
uint64_t read_u64(struct reader *reader);
/* A byte string in place. */
const uint8_t *read_bytes(struct reader *reader, uint32_t *length);
/* A launch plan: length, four bytes that keep it aligned to 8 in the frame's memory, the bytes. */
const uint8_t *read_plan(struct reader *reader, size_t *length);
/* A string into `out`, with its zero; bad when it does not fit or holds a zero byte. */
void read_string(struct reader *reader, char *out, size_t size);
/* A string of any length in memory of its own, NULL when empty. */
char *read_string_copy(struct reader *reader);

/* A frame being written. Grows as needed; `bad` when memory ran out. */
struct reply {
    uint8_t inline_data[512];
    uint8_t *data;
    size_t length, capacity;
    bool bad;
};

void reply_begin(struct reply *reply, uint16_t type, uint32_t request);
void put_u8(struct reply *reply, uint8_t value);
void put_u16(struct reply *reply, uint16_t value);
void put_u32(struct reply *reply, uint32_t value);
void put_u64(struct reply *reply, uint64_t value);
void put_bytes(struct reply *reply, const void *data, size_t length);
void put_raw(struct reply *reply, const void *data, size_t length);
/* Overwrites four bytes written before. */
void put_u32_at(struct reply *reply, size_t at, uint32_t value);
void put_string(struct reply *reply, const char *text);
/* Sends and frees. A connection that is gone is fine. */
void reply_send(struct reply *reply, struct connection *connection);
void reply_free(struct reply *reply);

struct connection {
    struct source source;
    struct connection *next;
    uint64_t serial; /* names it in things that may outlive it */
    bool greeted, wants_events;
    uint16_t type;
    uint32_t request;
    uint8_t header[FRAME_HEADER];
    size_t have; /* bytes of header and body read so far */
    uint8_t *body;
    size_t body_length;
    uint8_t *out; /* what the socket did not take yet */
    size_t out_offset, out_length, out_capacity;
    struct container *attached;
    uint32_t attach_request;
    bool input_waits; /* for its program to read */
    bool held;        /* the whole frame that was read is more input, and waits too */
};

void connection_accept(struct source *listener, uint32_t events);
struct connection *connection_find(uint64_t serial);
void connection_close(struct connection *connection);
/* Sends now what fits and keeps the rest. False when it had to be closed. */
bool connection_send(struct connection *connection, const uint8_t *data, size_t length);
size_t connection_backlog(const struct connection *connection);
/* While an input frame waits for its program no further one is taken, nor the end of input: other requests are. */
void connection_input_waits(struct connection *connection, bool waits);
/* Hands the frame's memory to the caller of the handler. */
uint8_t *connection_take_body(struct connection *connection, size_t *size);

void answer_ok(uint64_t requester, uint32_t request, uint16_t type);
void answer_error(uint64_t requester, uint32_t request, enum error_kind kind, int error, const char *what);
void answer_failure(uint64_t requester, uint32_t request, const struct launch_failure *failure);
void container_state(struct reply *reply, const struct container *container);
void put_launch_details(struct reply *reply, const struct launch *launch);

/* netlink.c: sends each message and adds what came back for it as one byte string. Negative errno. */
int netlink_exchange(struct reader *messages, uint32_t count, struct reply *reply);

/* netlink.c: a socket of the network the pod uses, its own or the host's. Negative errno. */
int pod_socket(int family, int type, int protocol);

/* requests.c: one function for each type of request. */
void request_handle(struct connection *connection, uint16_t type, uint32_t request, struct reader *reader);

/* Handlers that live with what they are about. */
void request_start(struct connection *connection, uint32_t request, struct reader *reader);
void request_attach(struct connection *connection, uint32_t request, struct reader *reader);
void request_exec(struct connection *connection, uint32_t request, struct reader *reader);
void request_dial(struct connection *connection, uint32_t request, struct reader *reader);

#endif
