import { RuntimeError } from '../../kit/errors.js';
import { maxLines, type IdKind, type IdMappings } from '../../runtime/idmap/mapping.js';
import { parseSubordinate } from '../../runtime/idmap/ranges.js';
import type { IdMapping } from '../../runtime/model.js';

/** Who starts the agent. */
export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/**
 * The maps of the agent's user namespace: the user is root in it, and the subordinate ids of subuid(5) and subgid(5)
 * follow from 1 up. Throws `denied`, naming the file and the command that helps, for a user without subordinate ids.
 */
export function rootlessMaps(account: Account, subuid: string, subgid: string): IdMappings {
  return { uids: lines(account, 'uid', subuid), gids: lines(account, 'gid', subgid) };
}

function lines(account: Account, kind: IdKind, text: string): readonly IdMapping[] {
  const ranges = [...parseSubordinate(text, account.name), ...parseSubordinate(text, String(account.uid))];
  if (ranges.length === 0) throw noIds(account.name, kind);
  const result: IdMapping[] = [{ containerId: 0, hostId: account[kind], size: 1 }];
  let next = 1;
  for (const { start, size } of ranges.slice(0, maxLines - 1)) {
    result.push({ containerId: next, hostId: start, size });
    next += size;
  }
  return result;
}

const noIds = (user: string, kind: IdKind): RuntimeError =>
  new RuntimeError(
    'denied',
    `/etc/sub${kind} has no ids for user "${user}"; as root: usermod --add-sub${kind}s 100000-165535 ${user} ` +
      '(a range that no other line has)',
  );

/** Arguments of newuidmap(1) and newgidmap(1). */
export const mapArguments = (pid: number, map: readonly IdMapping[]): readonly string[] => [
  `${pid}`,
  ...map.flatMap(({ containerId, hostId, size }) => [`${containerId}`, `${hostId}`, `${size}`]),
];
