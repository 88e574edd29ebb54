/* The access control lists of files, as extended attributes hold them (linux/posix_acl_xattr.h). */
#ifndef ACL_H
#define ACL_H
#include "common.h"

enum id_kind { USER_ID, GROUP_ID };

/* An id that a list names; `at` is where its four bytes are in the value, 0 before the first one. */
struct acl_id {
    enum id_kind kind;
    uint32_t id;
    size_t at;
};

bool is_acl(const char *attribute);
/* False for a length that no list has. */
bool is_acl_length(size_t length);
/* Steps to the next id of the list; false when there is none. */
bool acl_next(const char *value, size_t length, struct acl_id *named);

#endif
