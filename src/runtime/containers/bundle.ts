import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { IdMappings } from '../idmap/mapping.js';
import type { LaunchPlan } from '../plan/plan.js';
import { encodePlan } from '../plan/wire.js';
import { openToMappedRoot } from '../sandbox/pod-directory.js';
import type { OciSpec } from '../spec/oci.js';
import { decodeSpec, encodeSpec } from './spec-json.js';

/**
 * A container's bundle: what a restarted agent and `berth plan explain` read. On tmpfs and ours alone, so the calls are
 * plain ones (see `sandbox/pod-directory.ts`); config.json may hold secrets of the pod.
 */
export function writeBundle(dir: string, spec: OciSpec, plan: LaunchPlan, mappings: IdMappings | undefined): void {
  mkdirSync(dir, { mode: 0o700 });
  openToMappedRoot(dir, mappings);
  writeFileSync(join(dir, 'config.json'), encodeSpec(spec), { mode: 0o600, flag: 'wx' });
  writeFileSync(join(dir, 'plan'), encodePlan(plan), { mode: 0o600, flag: 'wx' });
}

/** The launch plan in the wire format. */
export const bundlePlan = (dir: string): Buffer => readFileSync(join(dir, 'plan'));

export const bundleSpec = (dir: string): OciSpec => decodeSpec(readFileSync(join(dir, 'config.json'), 'utf8'));
