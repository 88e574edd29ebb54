/* Which users and groups the files of the layer belong to or name: what a pod must have ids for. */
#ifndef IDS_H
#define IDS_H
#include "tar.h"

/* Takes note of an entry's owner, and of the ids in its access control lists and file capability. */
void ids_note(const struct entry *entry);
/*
 * The ids as "FIRST-LAST" or "ID", rising, with commas in between; never freed. Where they are too many, the smallest
 * gaps are left out: all ids that occur are in, and perhaps others.
 */
char *ids_text(bool groups);

#endif
