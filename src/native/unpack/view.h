/*
 * Several layers seen as one tree, the way overlayfs will show them: topmost first, whiteouts and opaque directories
 * hide what is below. Nothing is mounted; every step is one openat2 beneath a layer's root.
 */
#ifndef VIEW_H
#define VIEW_H
#include "common.h"

struct view {
    int count;
    int roots[MAX_LAYERS]; /* topmost first */
};

enum kind { NOTHING, DIRECTORY, LINK, OTHER };

/* What the view shows at `path` (no links in its parents), and in which layer (an index) it is topmost. */
enum kind view_look(const struct view *view, const char *path, int *layer);
/*
 * The link-free path of `path` in the view. The last name is not followed unless `follow_last`. NULL when something on
 * the way is missing or no directory, or when there are too many links.
 */
char *view_resolve(const struct view *view, const char *path, bool follow_last);

#endif
