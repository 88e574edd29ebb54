import { accessSync, constants, readFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import type { Config } from '../../config.js';
import { isInUserNamespace, parseIdMaps } from '../../runtime/idmap/mapping.js';
import { missing, note, ok, type Finding } from './finding.js';

/** What an agent of an ordinary user needs beside the kernel. */
export function checkRootless({ network }: Config): readonly Finding[] {
  return [...checkIds(), ...checkRestrictions(), checkWayOut(network.rootless), checkDelegation()];
}

/** Outside the namespace the files say what there will be, inside it the maps what there is. */
function checkIds(): Finding[] {
  const maps = parseIdMaps(read('/proc/self/uid_map'), read('/proc/self/gid_map'));
  if (isInUserNamespace(maps)) {
    const count = (lines: typeof maps.uids): number => lines.reduce((sum, { size }) => sum + size, 0);
    const about = `${count(maps.uids)} users, ${count(maps.gids)} groups`;
    return [count(maps.uids) > 1 ? ok('ids', about) : note('ids', `${about}: images of several owners need more`)];
  }
  return [
    ...(['subuid', 'subgid'] as const).map(checkSubordinate),
    ...(['newuidmap', 'newgidmap'] as const).map((program) =>
      isInstalled(program) ? ok(program, 'maps subordinate ids') : missing(program, 'package uidmap'),
    ),
  ];
}

function checkSubordinate(file: 'subuid' | 'subgid'): Finding {
  const { username, uid } = userInfo();
  const found = read(`/etc/${file}`)
    .split('\n')
    .some((line) => [username, String(uid)].includes(line.split(':')[0] ?? ''));
  if (found) return ok(`/etc/${file}`, `ids for ${username}`);
  return missing(`/etc/${file}`, `as root: usermod --add-${file}s 100000-165535 ${username}`);
}

/** Distributions that keep user namespaces from ordinary users. */
function checkRestrictions(): Finding[] {
  const refusing = [
    ['kernel.unprivileged_userns_clone', '0'],
    ['kernel.apparmor_restrict_unprivileged_userns', '1'],
  ].flatMap(([name = '', value]) =>
    read(`/proc/sys/${name.replaceAll('.', '/')}`).trim() === value
      ? [missing(name, `is ${value}: user namespaces are not for everybody`)]
      : [],
  );
  return refusing;
}

function checkWayOut(choice: Config['network']['rootless']): Finding {
  const wanted = choice === 'auto' ? ['pasta', 'slirp4netns'] : [choice];
  const program = wanted.find(isInstalled);
  if (choice === 'none') return note('way out', 'network.rootless is none: pods reach each other only');
  if (program === undefined) return note('way out', `no ${wanted.join(', no ')}: pods reach each other only`);
  if (!mayOpen('/dev/net/tun', constants.R_OK | constants.W_OK))
    return note('/dev/net/tun', `cannot be opened, and ${program} needs it: pods reach each other only`);
  return ok(program, 'pods reach other hosts');
}

function checkDelegation(): Finding {
  const own = /^0::(\/.*)$/m.exec(read('/proc/self/cgroup'))?.[1];
  const unified = mayOpen('/sys/fs/cgroup/cgroup.controllers', constants.R_OK);
  const delegated =
    own !== undefined && unified && mayOpen(join('/sys/fs/cgroup', own, 'cgroup.procs'), constants.W_OK);
  return delegated
    ? ok('cgroup', 'is delegated: limits are applied')
    : note('cgroup', 'none is delegated: limits are not applied');
}

const isInstalled = (program: string): boolean =>
  (process.env['PATH'] ?? '').split(':').some((dir) => mayOpen(join(dir, program), constants.X_OK));

function mayOpen(path: string, how: number): boolean {
  try {
    accessSync(path, how);
    return true;
  } catch {
    return false;
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
