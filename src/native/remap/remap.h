/* What the parts of berth-remap share. See main.c for what it is for. */
#ifndef REMAP_H
#define REMAP_H
#include "acl.h"
#include "common.h"

/* ------------------------------------------------------------------------------------- maps.c */

/* Reads both maps from standard input to its end. */
void read_maps(void);

/* The host's id for a container's; false when no line of the map holds it. */
bool map_id(enum id_kind kind, uint32_t container, uint32_t *host);

/* ------------------------------------------------------------------------------------- places */

/* A directory of the image, open in the destination, and in the layer whose entries are being taken over. */
struct place {
    int to, from;     /* `from` is the working directory too; `to` is -1 in a check */
    const char *path; /* from the root, for errors; "" is the root */
};

/* A path for an error: what is in a directory, or with "" or "." the directory itself. Never freed. */
const char *path_of(const struct place *place, const char *name);

/* ------------------------------------------------------------------------------------- make.c */

/* Of a check, nothing is made: what would be is only looked at. */
enum mode { METACOPY, COPY, CHECK };
extern enum mode mode;

/* Makes `name` of the layer, which is no directory, in the destination. */
void make_entry(const struct place *place, const char *name, const struct stat *st);
/* Gives the destination's directory the metadata of the layer's; nothing may be made in it any more. */
void finish_dir(const struct place *place, const struct stat *st);

/* ------------------------------------------------------------------------------------- attributes.c */

/* Something new in the destination: an open file or directory, or (fd < 0) a name that cannot be opened. */
struct object {
    int fd;
    const char *name;
};

/* Owner by the maps. */
void set_owner(const struct place *place, const struct object *object, const struct stat *st);
/* Every extended attribute of `name` in the layer (the directory itself as "."), with the ids in it mapped. */
void copy_attributes(const struct place *place, const char *name, const struct object *object);
/* Fails as the two would where an id of `name` is not mapped, and changes nothing. */
void check_ids(const struct place *place, const char *name, const struct stat *st);

/* ------------------------------------------------------------------------------------- links.c */

/* Links `name` to what an earlier name of the same inode became; false when there was none. */
bool link_known(const struct place *place, const char *name, const struct stat *st);
void remember_link(const struct place *place, const char *name, const struct stat *st);

/* ------------------------------------------------------------------------------------- walk.c */

extern int destination;

/* Says where the walk starts: at the root of these layers, topmost first. */
void walk_from(const int *layers, int count);
/* Takes part in the walk until there is nothing more to do. Every thread has a working directory of its own. */
void walk(void);

/* ------------------------------------------------------------------------------------- progress.c */

/* Counts something made, with what it takes on disk. */
void count_inode(const struct stat *st);
/* Counts an entry of the image, and says from time to time how far it is. */
void count_entry(void);
/* Counts bytes of file data. */
void count_bytes(uint64_t bytes);
void report_done(void);

#endif
