/* The names met so far in one directory of the image, while its layers are read from the topmost down. */
#ifndef NAMES_H
#define NAMES_H
#include "common.h"

struct pending;

struct seen {
    char *name;            /* NULL: not met yet */
    struct pending *child; /* a directory lower layers may add to; NULL when they are hidden */
};

void names_forget(void);
/* The name's slot, valid until the next call; for a new one the caller sets `child`. */
struct seen *names_meet(const char *name, bool *is_new);

#endif
