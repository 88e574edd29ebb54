import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isErrno, RuntimeError } from '../../kit/errors.js';
import type { Keeper } from '../../native/kept-namespaces.js';
import type { Processes } from '../../native/processes.js';

/** A process by number and start time: one that has the number later is another. */
export type Known = Keeper;

export interface KeptRecord {
  readonly keeper: Known;
  /** The process that carries the network's traffic out, and which program it is. */
  readonly wayOut?: Known & { readonly program: string };
  /** Why there is none; '' with one. */
  readonly noWayOut: string;
}

const pathOf = (state: string): string => join(state, 'rootless.json');

/** What keeps the namespaces of a user's agent; undefined when nothing is known. */
export function readKept(state: string): KeptRecord | undefined {
  try {
    const revive = (key: string, value: unknown): unknown => (key === 'startTime' ? BigInt(value as string) : value);
    return JSON.parse(readFileSync(pathOf(state), 'utf8'), revive) as KeptRecord;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw new RuntimeError('corrupt', `read ${pathOf(state)}: ${String(error)}`, { cause: error });
  }
}

export function writeKept(state: string, record: KeptRecord): void {
  const replace = (_: string, value: unknown): unknown => (typeof value === 'bigint' ? `${value}` : value);
  writeFileSync(`${pathOf(state)}.new`, JSON.stringify(record, replace), { mode: 0o600 });
  renameSync(`${pathOf(state)}.new`, pathOf(state));
}

/** Ends what a record names, as far as it lives, and forgets it. */
export function endKept(state: string, record: KeptRecord, processes: Processes): void {
  for (const known of [record.wayOut, record.keeper]) if (known !== undefined) endProcess(known, processes);
  rmSync(pathOf(state), { force: true });
}

export function endProcess({ pid, startTime }: Known, processes: Processes): void {
  using held = processes.open(pid);
  if (held !== undefined && processes.isRunning(pid, startTime)) processes.signalFd(held.fd, SIGKILL);
}

const SIGKILL = 9;

/** Whether we are in the mount namespace that the keeper keeps. */
export function isInside({ pid }: Known): boolean {
  const of = (which: string): bigint => statSync(`/proc/${which}/ns/mnt`, { bigint: true }).ino;
  return of(`${pid}`) === of('self');
}
