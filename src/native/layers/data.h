#ifndef DATA_H
#define DATA_H
#include "common.h"

/*
 * Fills the empty regular file `to` with what `from` holds; both offsets at 0, `path` is for errors. Says now and then
 * how many bytes more are there.
 */
void copy_data(int from, int to, const char *path, void (*copied)(uint64_t bytes));

#endif
