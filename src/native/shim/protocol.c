#include "protocol.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------------------ reading */

static const uint8_t *reader_take(struct reader *reader, size_t length)
{
    if (reader->bad || (size_t)(reader->end - reader->at) < length) {
        reader->bad = true;
        return NULL;
    }
    const uint8_t *at = reader->at;
    reader->at += length;
    return at;
}

uint8_t read_u8(struct reader *reader)
{
    const uint8_t *at = reader_take(reader, 1);
    return at == NULL ? 0 : *at;
}

uint16_t read_u16(struct reader *reader)
{
    uint16_t value = 0;
    const uint8_t *at = reader_take(reader, sizeof value);
    if (at != NULL)
        memcpy(&value, at, sizeof value);
    return le16toh(value);
}

uint32_t read_u32(struct reader *reader)
{
    uint32_t value = 0;
    const uint8_t *at = reader_take(reader, sizeof value);
    if (at != NULL)
        memcpy(&value, at, sizeof value);
    return le32toh(value);
}

uint64_t read_u64(struct reader *reader)
{
    uint64_t value = 0;
    const uint8_t *at = reader_take(reader, sizeof value);
    if (at != NULL)
        memcpy(&value, at, sizeof value);
    return le64toh(value);
}

const uint8_t *read_bytes(struct reader *reader, uint32_t *length)
{
    *length = read_u32(reader);
    const uint8_t *at = reader_take(reader, *length);
    if (at == NULL)
        *length = 0;
    return at;
}

const uint8_t *read_plan(struct reader *reader, size_t *length)
{
    *length = read_u32(reader);
    read_u32(reader);
    return reader_take(reader, *length);
}

void read_string(struct reader *reader, char *out, size_t size)
{
    uint32_t length;
    const uint8_t *at = read_bytes(reader, &length);
    out[0] = '\0';
    if (at == NULL)
        return;
    if (length >= size || memchr(at, 0, length) != NULL) {
        reader->bad = true;
        return;
    }
    memcpy(out, at, length);
    out[length] = '\0';
}

char *read_string_copy(struct reader *reader)
{
    uint32_t length;
    const uint8_t *at = read_bytes(reader, &length);
    if (at == NULL || length == 0)
        return NULL;
    if (memchr(at, 0, length) != NULL) {
        reader->bad = true;
        return NULL;
    }
    char *copy = malloc((size_t)length + 1);
    if (copy == NULL) {
        reader->bad = true;
        return NULL;
    }
    memcpy(copy, at, length);
    copy[length] = '\0';
    return copy;
}

/* ------------------------------------------------------------------------------------------------ writing */

static uint8_t *reply_room(struct reply *reply, size_t length)
{
    if (reply->bad)
        return NULL;
    if (reply->capacity - reply->length < length) {
        size_t capacity = reply->capacity * 2 + length;
        uint8_t *grown = reply->data == reply->inline_data ? malloc(capacity) : realloc(reply->data, capacity);
        if (grown == NULL) {
            reply->bad = true;
            return NULL;
        }
        if (reply->data == reply->inline_data)
            memcpy(grown, reply->inline_data, reply->length);
        reply->data = grown;
        reply->capacity = capacity;
    }
    uint8_t *at = reply->data + reply->length;
    reply->length += length;
    return at;
}

void put_raw(struct reply *reply, const void *data, size_t length)
{
    uint8_t *at = reply_room(reply, length);
    if (at != NULL && length > 0)
        memcpy(at, data, length);
}

void put_u8(struct reply *reply, uint8_t value)
{
    put_raw(reply, &value, sizeof value);
}

void put_u16(struct reply *reply, uint16_t value)
{
    value = htole16(value);
    put_raw(reply, &value, sizeof value);
}

void put_u32(struct reply *reply, uint32_t value)
{
    value = htole32(value);
    put_raw(reply, &value, sizeof value);
}

void put_u64(struct reply *reply, uint64_t value)
{
    value = htole64(value);
    put_raw(reply, &value, sizeof value);
}

void put_bytes(struct reply *reply, const void *data, size_t length)
{
    put_u32(reply, (uint32_t)length);
    put_raw(reply, data, length);
}

void put_u32_at(struct reply *reply, size_t at, uint32_t value)
{
    value = htole32(value);
    if (!reply->bad)
        memcpy(reply->data + at, &value, sizeof value);
}

void put_string(struct reply *reply, const char *text)
{
    put_bytes(reply, text, strlen(text));
}

void reply_begin(struct reply *reply, uint16_t type, uint32_t request)
{
    reply->data = reply->inline_data;
    reply->capacity = sizeof reply->inline_data;
    reply->length = 0;
    reply->bad = false;
    put_u32(reply, 0);
    put_u16(reply, type);
    put_u16(reply, 0);
    put_u32(reply, request);
}

void reply_free(struct reply *reply)
{
    if (reply->data != reply->inline_data)
        free(reply->data);
    reply->data = reply->inline_data;
}

void reply_send(struct reply *reply, struct connection *connection)
{
    if (connection != NULL && reply->bad) {
        shutdown(connection->source.fd, SHUT_RDWR); /* a missing answer must not look like one that is late */
    } else if (connection != NULL) {
        uint32_t length = htole32((uint32_t)(reply->length - 4));
        memcpy(reply->data, &length, sizeof length);
        connection_send(connection, reply->data, reply->length);
    }
    reply_free(reply);
}

void answer_ok(uint64_t requester, uint32_t request, uint16_t type)
{
    struct reply reply;
    reply_begin(&reply, FRAME_OK | type, request);
    reply_send(&reply, connection_find(requester));
}

static void answer(uint64_t requester, uint32_t request, enum error_kind kind, uint32_t step, int error,
                   uint32_t detail, const char *what)
{
    struct reply reply;
    reply_begin(&reply, FRAME_ERROR, request);
    put_u32(&reply, kind);
    put_u32(&reply, step);
    put_u32(&reply, (uint32_t)error);
    put_u32(&reply, detail);
    put_string(&reply, what);
    reply_send(&reply, connection_find(requester));
}

void answer_error(uint64_t requester, uint32_t request, enum error_kind kind, int error, const char *what)
{
    answer(requester, request, kind, UINT32_MAX, error < 0 ? -error : error, 0, what);
}

void answer_failure(uint64_t requester, uint32_t request, const struct launch_failure *failure)
{
    answer(requester, request, ERROR_PLAN_FAILED, failure->step, failure->error, failure->detail, "");
}

void put_launch_details(struct reply *reply, const struct launch *launch)
{
    put_u32(reply, launch->warning_count);
    for (uint32_t i = 0; i < launch->warning_count; i++) {
        const struct launch_warning *warning = &launch->warnings[i];
        put_u32(reply, warning->step);
        put_u32(reply, warning->kind);
        put_u64(reply, (uint64_t)warning->wanted);
        put_u64(reply, (uint64_t)warning->got);
    }
    put_u32(reply, launch->step_count);
    for (uint32_t i = 0; i < launch->step_count; i++)
        put_u64(reply, launch->step_nanos[i]);
}
