/*
 * The layer being written: a directory, and what is known of each directory in it. Paths of the archive are walked a
 * name at a time by descriptors; links met on the way are resolved here, inside the tree, so that no call ever follows
 * one.
 */
#ifndef TREE_H
#define TREE_H
#include "common.h"
#include <time.h>

enum { MAX_DEPTH = 1000, MAX_LINKS = 40 };

struct dir {
    char *path;    /* from the root, without links and slashes at the ends; "" is the root */
    bool listed;   /* the archive has an entry of its own for it */
    bool cut;      /* what lower layers have there is hidden, so it owes them nothing */
    uint32_t mode; /* of a listed one, set when everything is in place */
    struct timespec mtime;
};

extern int tree_root;

void tree_open(int root);
/* The entry of a directory, made when it is not known yet. */
struct dir *tree_dir(const char *path);
void tree_forget(const char *path);
/* Every known directory, parents before children. */
struct dir **tree_sorted(size_t *count);
size_t tree_count(void);

/* `path` as a clean path below the root: no empty names, no dots, never above the root. Fails when it is too deep. */
char *clean_path(const char *path);

/*
 * Opens (O_PATH) the directory that holds the last name of a clean path, following links inside the tree; missing
 * directories are made when `create` is set. Gives -1 with ENOENT otherwise. `*canonical` is the directory's own path,
 * `*name` points into `path`. The descriptor and the string are the tree's, valid until the next call.
 */
int tree_parent(const char *path, bool create, const char **canonical, const char **name);
/* Removes what is at `name`, with everything below it. */
void tree_remove(int dir, const char *canonical, const char *name);

#endif
