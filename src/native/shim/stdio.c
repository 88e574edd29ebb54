/* The other ends of a program's standard streams. */
#include "monitor.h"
#include "protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

int pipe_pair(int *ours, int *theirs, bool ours_reads)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    *ours = ends[ours_reads ? 0 : 1];
    *theirs = ends[ours_reads ? 1 : 0];
    /* Our end only: O_NONBLOCK belongs to the open file, and programs do not expect it on theirs. */
    fcntl(*ours, F_SETFL, fcntl(*ours, F_GETFL) | O_NONBLOCK);
    return 0;
}

/* Bytes read; 0 at the end; -1 when nothing is there. */
static ssize_t pump_once(struct pump *pump)
{
    monitor.scratch_used = true;
    ssize_t length = read(pump->source.fd, scratch + SCRATCH_HEAD, READ_CHUNK);
    if (length < 0 && errno == EAGAIN)
        return -1;
    if (length <= 0) { /* EIO is how a terminal says that nobody has it open */
        pump_close(pump);
        pump->ended(pump);
        return 0;
    }
    pump->take(pump, scratch + SCRATCH_HEAD, (size_t)length);
    return length;
}

static void pump_ready(struct source *source, uint32_t events)
{
    (void)events;
    pump_once(container_of(source, struct pump, source));
}

int pump_open(struct pump *pump, int fd, uint8_t stream)
{
    pump->stream = stream;
    return source_add(&pump->source, fd, EPOLLIN, pump_ready);
}

void pump_drain(struct pump *pump, size_t bound)
{
    for (size_t total = 0; pump->source.fd >= 0 && total < bound;) {
        ssize_t length = pump_once(pump);
        if (length <= 0)
            return;
        total += (size_t)length;
    }
}

void pump_close(struct pump *pump)
{
    source_close(&pump->source);
}

/* ------------------------------------------------------------------------------------------------- stdin */

static void input_done(struct input *input, bool delivered)
{
    pages_free(input->frame, input->frame_size);
    input->frame = NULL;
    struct connection *sender = connection_find(input->sender);
    if (sender == NULL)
        return;
    connection_input_waits(sender, false);
    if (delivered)
        answer_ok(input->sender, input->request, FRAME_INPUT);
    else
        answer_error(input->sender, input->request, ERROR_WRONG_STATE, EPIPE, "stdin is closed");
}

static void input_write(struct input *input)
{
    while (input->length > 0) {
        ssize_t written = write(input->source.fd, input->frame + input->offset, input->length);
        if (written < 0 && errno == EAGAIN) {
            source_events(&input->source, EPOLLOUT);
            return;
        }
        if (written < 0) {
            source_close(&input->source);
            input_done(input, false);
            return;
        }
        input->offset += (size_t)written;
        input->length -= (size_t)written;
    }
    source_events(&input->source, 0);
    input_done(input, true);
}

static void input_ready(struct source *source, uint32_t events)
{
    (void)events;
    struct input *input = container_of(source, struct input, source);
    if (input->frame == NULL)
        source_events(source, 0);
    else
        input_write(input);
}

int input_open(struct input *input, int fd)
{
    input->frame = NULL;
    return source_add(&input->source, fd, 0, input_ready);
}

void input_close(struct input *input)
{
    source_close(&input->source);
    if (input->frame != NULL)
        input_done(input, false);
}

bool input_give(struct input *input, uint8_t *frame, size_t frame_size, size_t offset, size_t length,
                struct connection *sender, uint32_t request)
{
    if (input->source.fd < 0 || input->frame != NULL) {
        pages_free(frame, frame_size);
        return false;
    }
    input->frame = frame;
    input->frame_size = frame_size;
    input->offset = offset;
    input->length = length;
    input->sender = sender->serial;
    input->request = request;
    connection_input_waits(sender, true);
    input_write(input);
    return true;
}
