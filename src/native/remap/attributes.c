/* Owners, and the extended attributes that hold ids of their own: file capabilities and access control lists. */
#include "remap.h"
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

/* `whose` is "" or says where in the file the id was found. */
static uint32_t mapped(const struct place *place, const char *name, enum id_kind kind, uint32_t id, const char *whose)
{
    uint32_t host;
    if (!map_id(kind, id, &host))
        bad_image("%s: %s %u%s is not mapped", path_of(place, name), kind == USER_ID ? "uid" : "gid", id, whose);
    return host;
}

void set_owner(const struct place *place, const struct object *object, const struct stat *st)
{
    uint32_t uid = mapped(place, object->name, USER_ID, st->st_uid, "");
    uint32_t gid = mapped(place, object->name, GROUP_ID, st->st_gid, "");
    int failed = object->fd >= 0 ? fchown(object->fd, uid, gid)
                                 : fchownat(place->to, object->name, uid, gid, AT_SYMLINK_NOFOLLOW);
    if (failed)
        host_error("change owner of", path_of(place, object->name));
}

/* ------------------------------------------------------------------------------------- attributes with ids */

static bool is_capability(const char *attribute)
{
    return !strcmp(attribute, "security.capability");
}

/*
 * A capability for the container's root means that root's host id from now on: version 3 says whose root it is for,
 * which version 2 leaves open (capabilities(7); linux/capability.h). Gives the new length.
 */
static size_t map_capability(const struct place *place, const char *name, char *value, size_t length)
{
    struct vfs_ns_cap_data data = {0};
    if (length != XATTR_CAPS_SZ_2 && length != XATTR_CAPS_SZ_3)
        bad_image("%s: file capability of %zu bytes", path_of(place, name), length);
    memcpy(&data, value, length);
    uint32_t rootid = le32toh(data.rootid); /* 0 in version 2 */
    data.rootid = htole32(mapped(place, name, USER_ID, rootid, " of its file capability"));
    data.magic_etc = htole32((le32toh(data.magic_etc) & VFS_CAP_FLAGS_MASK) | VFS_CAP_REVISION_3);
    memcpy(value, &data, XATTR_CAPS_SZ_3);
    return XATTR_CAPS_SZ_3;
}

static void map_acl(const struct place *place, const char *name, char *value, size_t length)
{
    if (!is_acl_length(length))
        bad_image("%s: access control list of %zu bytes", path_of(place, name), length);
    for (struct acl_id named = {0}; acl_next(value, length, &named);) {
        uint32_t id = htole32(mapped(place, name, named.kind, named.id, " of its access control list"));
        memcpy(value + named.at, &id, sizeof id);
    }
}

static size_t map_value(const struct place *place, const char *name, const char *attribute, char *value, size_t length)
{
    if (is_capability(attribute))
        return map_capability(place, name, value, length);
    if (is_acl(attribute))
        map_acl(place, name, value, length);
    return length;
}

/* ------------------------------------------------------------------------------------- all attributes */

static _Noreturn void attribute_error(const struct place *place, const char *name, const char *doing,
                                      const char *attribute)
{
    char what[XATTR_NAME_MAX + 32];
    snprintf(what, sizeof what, "%s %s of", doing, attribute);
    host_error(what, path_of(place, name));
}

/* What cannot be opened is reached by its name in the working directory, which no link can lead astray. */
static int set_by_name(const struct place *place, const char *name, const char *attribute, const char *value,
                       size_t length)
{
    if (fchdir(place->to) < 0)
        host_error("enter", place->path);
    int failed = lsetxattr(name, attribute, value, length, 0);
    int error = errno;
    if (fchdir(place->from) < 0)
        host_error("enter", place->path);
    errno = error;
    return failed;
}

/* What the host puts on files. Who works without trusted attributes is no host root, and labels are not its to give. */
static bool is_label(const char *attribute)
{
    return !strncmp(attribute, "security.", 9) && !is_capability(attribute);
}

static _Thread_local char value[XATTR_SIZE_MAX];
static _Thread_local char names[XATTR_LIST_MAX];

/* Into `value`, with the ids in it mapped; gives its length. */
static size_t read_attribute(const struct place *place, const char *name, const char *attribute)
{
    ssize_t length = lgetxattr(name, attribute, value, sizeof value);
    if (length < 0)
        attribute_error(place, name, "read", attribute);
    return map_value(place, name, attribute, value, (size_t)length);
}

/* Into `names`; gives where they end. */
static const char *list_attributes(const struct place *place, const char *name)
{
    ssize_t length = llistxattr(name, names, sizeof names);
    if (length < 0 && errno != ENOTSUP)
        host_error("list attributes of", path_of(place, name));
    return names + (length < 0 ? 0 : length);
}

static void copy_attribute(const struct place *place, const char *name, const struct object *object,
                           const char *attribute)
{
    size_t size = read_attribute(place, name, attribute);
    int failed = object->fd >= 0 ? fsetxattr(object->fd, attribute, value, size, 0)
                                 : set_by_name(place, object->name, attribute, value, size);
    if (failed && !(errno == EPERM && user_xattrs && is_label(attribute)))
        attribute_error(place, name, "set", attribute);
}

/* XFS shows its access control lists once more as they are on disk: copied, they would undo the mapped ones. */
static bool is_raw_acl(const char *attribute)
{
    return !strcmp(attribute, "trusted.SGI_ACL_FILE") || !strcmp(attribute, "trusted.SGI_ACL_DEFAULT");
}

void copy_attributes(const struct place *place, const char *name, const struct object *object)
{
    const char *end = list_attributes(place, name);
    for (const char *attribute = names; attribute < end; attribute += strlen(attribute) + 1)
        if (!is_overlay_xattr(attribute) && !is_raw_acl(attribute))
            copy_attribute(place, name, object, attribute);
}

void check_ids(const struct place *place, const char *name, const struct stat *st)
{
    mapped(place, name, USER_ID, st->st_uid, "");
    mapped(place, name, GROUP_ID, st->st_gid, "");
    const char *end = list_attributes(place, name);
    for (const char *attribute = names; attribute < end; attribute += strlen(attribute) + 1)
        if (is_capability(attribute) || is_acl(attribute))
            read_attribute(place, name, attribute);
}
