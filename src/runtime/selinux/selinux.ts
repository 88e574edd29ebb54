import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Call } from '../../kit/call.js';
import { isErrno } from '../../kit/errors.js';
import { policyLabels, policyType, type SelinuxLabels } from '../spec/selinux.js';
import { relabel, type Relabelling } from './relabel.js';

/** SELinux of a node whose kernel has it. */
export interface Selinux {
  /** What its policy gives containers. */
  readonly labels: SelinuxLabels;
  /** As `relabel` of relabel.ts; the step under way tells how far it has come. */
  relabel(path: string, label: string, call: Call): ReturnType<typeof relabel>;
}

/** @param configuration where the policy is chosen */
export function openSelinux(files: Relabelling['files'], configuration = '/etc/selinux'): Selinux {
  const type = policyType(readOr(join(configuration, 'config'))) ?? 'targeted';
  return {
    labels: policyLabels(readOr(join(configuration, type, 'contexts/lxc_contexts'))),
    relabel: (path, label, { signal, observer }) =>
      relabel(path, label, { files, signal, progress: observer.progress?.bind(observer) }),
  };
}

function readOr(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return '';
    throw error;
  }
}
