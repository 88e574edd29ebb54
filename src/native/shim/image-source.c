/* An image as a volume: an overlay without an upper layer, which nobody can write to, or a part of one. */
#include "execute.h"

#include <sys/stat.h>

/* The image chose the links on the way: they are resolved as in a root of its own. */
static int clone_part(struct execution *e, const struct plan_step *step, void *argument)
{
    int mount = *(int *)argument, result = attach_alone(mount);
    struct stat st;
    if (result < 0)
        return failed(e, DETAIL_ATTACH, result);
    int part = failed(e, DETAIL_SOURCE, path_open(mount, text(e, step->s[1]), O_PATH));
    if (part < 0)
        return part;
    if (fstat(part, &st) < 0)
        return -errno;
    if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
        return failed(e, DETAIL_VERIFY, -ENOTDIR);
    return sys_open_tree(part, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);
}

/* Never a bind of a layer: a container with rights over its mounts could make that writable again. */
int do_image_source(struct execution *e, const struct plan_step *step)
{
    const struct plan_step layers = {
        .op = OP_OVERLAY, .slot = step->slot, .w = {step->w[3]}, .s = {[0] = step->s[0], [3] = step->s[3]}};
    int whole = do_overlay(e, &layers), mount = whole;
    if (whole >= 0 && step->s[1].length) {
        mount = run_helper(e, clone_part, step, &whole);
        close(whole);
    }
    e->slots[step->slot] = mount < 0 ? -1 : mount;
    return mount < 0 ? mount : set_attributes(e, mount, step, 0);
}
