#include "acl.h"
#include <endian.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <string.h>

enum { HEADER = sizeof(struct posix_acl_xattr_header), ENTRY = sizeof(struct posix_acl_xattr_entry) };

bool is_acl(const char *attribute)
{
    return !strcmp(attribute, "system.posix_acl_access") || !strcmp(attribute, "system.posix_acl_default");
}

bool is_acl_length(size_t length)
{
    return length >= HEADER && (length - HEADER) % ENTRY == 0;
}

bool acl_next(const char *value, size_t length, struct acl_id *named)
{
    const size_t offset = offsetof(struct posix_acl_xattr_entry, e_id);
    for (size_t at = named->at ? named->at - offset + ENTRY : HEADER; at + ENTRY <= length; at += ENTRY) {
        struct posix_acl_xattr_entry entry;
        memcpy(&entry, value + at, sizeof entry);
        int tag = le16toh(entry.e_tag);
        if (tag != ACL_USER && tag != ACL_GROUP)
            continue;
        *named = (struct acl_id){tag == ACL_USER ? USER_ID : GROUP_ID, le32toh(entry.e_id), at + offset};
        return true;
    }
    return false;
}
