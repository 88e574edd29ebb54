import { invalid } from '../../kit/errors.js';
import type { SupplementalGroupsPolicy } from '../model.js';

/** Who a process runs as. `groups` holds the primary gid too (CVE-2023-25173). */
export interface ResolvedUser {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  /** From passwd; `/` when the user has no entry. */
  readonly home: string;
}

/** The image's own /etc/passwd and /etc/group, '' when absent. Gathered before, bounded and root-scoped. */
export interface UserDatabase {
  readonly passwd: string;
  readonly group: string;
}

export interface UserRequest {
  readonly runAsUser?: number;
  readonly runAsUsername?: string;
  readonly runAsGroup?: number;
  /** USER of the image: `user`, `user:group`, `uid`, `uid:group`, mixed, or ''. */
  readonly imageUser: string;
  readonly supplementalGroups: readonly number[];
  readonly policy: SupplementalGroupsPolicy;
}

/** Largest id the kernel's tools agree on; -1 and above 2^31 have wrapped to 0 elsewhere (CVE-2024-40635). */
const maxId = 2 ** 31 - 1;

interface PasswdEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

/**
 * Decides user, group and supplementary groups of a container's first process. What the request says goes before the
 * image's USER. What looks like a number is a number or an error, never a name to look up (CVE-2026-46680).
 */
export function resolveUser(request: UserRequest, database: UserDatabase): ResolvedUser {
  const [userPart, groupPart] = userAndGroup(request);
  const entries = parsePasswd(database.passwd);
  const entry = findUser(entries, userPart.text, userPart.field);
  const gid = request.runAsGroup ?? findGroup(database.group, groupPart, entry.gid);
  const fromImage = request.policy === 'merge' && entry.name !== '' ? groupsOf(database.group, entry.name) : [];
  const groups = [...new Set([gid, ...fromImage, ...request.supplementalGroups])];
  return { uid: entry.uid, gid, groups, home: entry.home };
}

function userAndGroup(request: UserRequest): [{ text: string; field: string }, string] {
  if (request.runAsUser !== undefined) {
    return [{ text: String(request.runAsUser), field: 'config.linux.security_context.run_as_user' }, ''];
  }
  if (request.runAsUsername !== undefined && request.runAsUsername !== '') {
    return [{ text: request.runAsUsername, field: 'config.linux.security_context.run_as_username' }, ''];
  }
  const colon = request.imageUser.indexOf(':');
  const user = colon < 0 ? request.imageUser : request.imageUser.slice(0, colon);
  const group = colon < 0 ? '' : request.imageUser.slice(colon + 1);
  return [{ text: user === '' ? '0' : user, field: 'image USER' }, group];
}

function findUser(entries: readonly PasswdEntry[], user: string, field: string): PasswdEntry {
  if (looksNumeric(user)) {
    const uid = parseId(user, field);
    return entries.find((entry) => entry.uid === uid) ?? { name: '', uid, gid: 0, home: '/' };
  }
  const entry = entries.find((candidate) => candidate.name === user);
  if (entry === undefined) throw invalid(field, `user "${user}" is not in the image's /etc/passwd`);
  return entry;
}

function findGroup(group: string, wanted: string, fallback: number): number {
  if (wanted === '') return fallback;
  if (looksNumeric(wanted)) return parseId(wanted, 'image USER');
  const found = parseGroup(group).find((entry) => entry.name === wanted);
  if (found === undefined) throw invalid('image USER', `group "${wanted}" is not in the image's /etc/group`);
  return found.gid;
}

const looksNumeric = (text: string): boolean => /^[+-]?[0-9]/.test(text) && /^[+-]?[0-9a-fA-FxX]+$/.test(text);

/** Decimal only: `010` is ten, `0x10` an error. */
function parseId(text: string, field: string): number {
  if (!/^[0-9]{1,10}$/.test(text)) throw invalid(field, `"${text}" is not a decimal id`);
  const id = Number(text);
  if (id > maxId) throw invalid(field, `id ${text} is above ${maxId}`);
  return id;
}

function parsePasswd(text: string): PasswdEntry[] {
  return lines(text).flatMap((fields) => {
    const [name, , uid, gid, , home] = fields;
    if (name === undefined || !isId(uid) || !isId(gid)) return [];
    return [{ name, uid: Number(uid), gid: Number(gid), home: home === undefined || home === '' ? '/' : home }];
  });
}

function parseGroup(text: string): { name: string; gid: number; members: string[] }[] {
  return lines(text).flatMap((fields) => {
    const [name, , gid, members] = fields;
    if (name === undefined || !isId(gid)) return [];
    return [{ name, gid: Number(gid), members: members === undefined ? [] : members.split(',') }];
  });
}

const groupsOf = (group: string, user: string): number[] =>
  parseGroup(group)
    .filter((entry) => entry.members.some((member) => member.trim() === user))
    .map((entry) => entry.gid);

const isId = (text: string | undefined): text is string =>
  text !== undefined && /^[0-9]{1,10}$/.test(text) && Number(text) <= maxId;

const lines = (text: string): string[][] =>
  text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':'));
