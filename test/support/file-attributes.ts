/** Extended attributes with ids in them, as the kernel takes them. */

export const CAP_NET_RAW = 13;

/** What setcap(8) writes, with the effective bit (linux/capability.h): revision 2, or 3 with the root it is for. */
export function fileCapability(capability: number, rootid?: number): Buffer {
  const words = [rootid === undefined ? 0x0200_0001 : 0x0300_0001, 1 << capability, 0, 0, 0];
  return littleEndian(rootid === undefined ? words : [...words, rootid]);
}

/** linux/posix_acl_xattr.h: user::rwx, the given users, group::r-x, the given groups, mask::rwx, other::r-x. */
export function accessList(users: readonly number[], groups: readonly number[]): Buffer {
  const entry = (tag: number, permissions: number, id = 0xffff_ffff): Buffer =>
    littleEndian([tag | (permissions << 16), id]);
  return Buffer.concat([
    littleEndian([2]),
    entry(0x01, 7),
    ...users.map((id) => entry(0x02, 6, id)),
    entry(0x04, 5),
    ...groups.map((id) => entry(0x08, 4, id)),
    entry(0x10, 7),
    entry(0x20, 5),
  ]);
}

function littleEndian(words: readonly number[]): Buffer {
  const buffer = Buffer.alloc(words.length * 4);
  words.forEach((word, index) => buffer.writeUInt32LE(word >>> 0, index * 4));
  return buffer;
}
