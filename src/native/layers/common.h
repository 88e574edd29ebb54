/*
 * What the programs that read or write image layers share: failing with a reason, memory that never comes back NULL,
 * open beneath, overlayfs's marks, confinement.
 */
#ifndef COMMON_H
#define COMMON_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Exit codes, read by those who start the programs. */
enum { EXIT_IMAGE = 2, EXIT_HOST = 3 };

#define PRINTF(f, a) __attribute__((format(printf, f, a)))

/* The image is at fault: says why and exits with EXIT_IMAGE. */
_Noreturn void bad_image(const char *format, ...) PRINTF(1, 2);
/* The host is at fault, errno says how: exits with EXIT_HOST. `what` is the call, `path` what it was for. */
_Noreturn void host_error(const char *what, const char *path);
/* Either: some errno values can only come from what the image asked for (ENAMETOOLONG, ELOOP, EEXIST …). */
_Noreturn void call_error(const char *what, const char *path);

void *must_alloc(size_t size);
void *must_realloc(void *old, size_t size);
char *must_strdup(const char *text);
char *join_path(const char *dir, const char *name);

/* Opens one name (no slash in it) in `dir`, never following a link and never leaving the file system. */
int open_name(int dir, const char *name, int flags, mode_t mode);
/* Opens a path without links in it beneath `root`; "" is the root itself. */
int open_beneath(int root, const char *path, int flags);

bool is_whiteout(const struct stat *st);
/* True for attributes by which overlayfs would take orders from the image. */
bool is_overlay_xattr(const char *name);
/* Reads and drops what is left on standard input, so that the writer never sees a broken pipe. */
void drain_input(void);

/* user.overlay.* in the place of trusted.overlay.*, for trees mounted inside a user namespace. */
extern bool user_xattrs;
const char *opaque_xattr(void);
void set_opaque(int dir, const char *name);
bool is_opaque(int dir_fd);

/* Directories of one overlay: what the kernel allows (OVL_MAX_STACK). */
enum { MAX_LAYERS = 500 };

/* An inherited descriptor that must be a directory's. */
int inherited_dir(int fd);
/* Makes a directory the root for whatever still goes by path; a process that may not do that goes on. */
void make_root_of(int dir);
/*
 * What a program gives up before it reads the first byte of an image: every capability, and then in all its threads
 * every system call, but those for layers on disk and the `also` ones. Threads start in between.
 */
void drop_rights(void);
void filter_syscalls(const int *also, size_t more);

#endif
