import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import { RuntimeError, invalid, isErrno, messageOf } from '../../kit/errors.js';
import type { SeccompParts } from '../parts.js';
import { compileSeccomp } from '../plan/seccomp/compile.js';
import type { SeccompProgram } from '../plan/seccomp/compile.js';
import { defaultSeccompProfile } from '../plan/seccomp/default-profile.js';
import { toOciSeccomp } from '../plan/seccomp/profile-json.js';
import { parseSeccompJson, readSeccompProfile } from '../plan/seccomp/profile.js';
import type { SeccompFacts } from '../plan/seccomp/profile.js';

export interface SeccompOptions {
  readonly kernel: { readonly major: number; readonly minor: number };
  /** File that RuntimeDefault stands for, in the OCI or the engine dialect; '' is the built-in profile. */
  readonly profilePath?: string;
  /** Default: this machine's. */
  readonly arch?: SeccompFacts['arch'];
}

/** Distinct profiles on one node are few; a pod that brings many must not grow the agent. */
const maxKept = 64;

/**
 * Profiles and their programs; programs are kept by the hash of the profile. Throws `invalid-argument` when
 * `profilePath` is no profile.
 */
export function openSeccomp(options: SeccompOptions): SeccompParts {
  const { kernel, profilePath = '', arch = process.arch === 'arm64' ? 'arm64' : 'x86_64' } = options;
  const facts = (capabilities: readonly string[]): SeccompFacts => ({ arch, capabilities, kernel });
  const configured = profilePath === '' ? undefined : parseSeccompJson(readText(profilePath), profilePath);
  if (configured !== undefined) readSeccompProfile(configured, facts([]), profilePath);

  const programs = kept((profile: string) => {
    const checked = readSeccompProfile(parseSeccompJson(profile, 'linux.seccomp'), facts([]), 'linux.seccomp');
    const program = compileSeccomp(checked, arch, 'linux.seccomp');
    if (program.notifies)
      throw invalid('linux.seccomp', 'SCMP_ACT_NOTIFY needs a supervisor, which Berth does not offer');
    return program;
  });
  const known = new WeakMap<object, SeccompProgram>();
  const program = (profile: unknown): SeccompProgram => {
    const identity = typeof profile === 'object' && profile !== null ? profile : {};
    const found = known.get(identity) ?? programs(JSON.stringify(profile) ?? '');
    known.set(identity, found);
    return found;
  };
  const defaults = kept((capabilities: string) => {
    const names = capabilities.split(' ').filter(Boolean);
    if (configured === undefined) return defaultSeccompProfile(names, arch);
    return toOciSeccomp(readSeccompProfile(configured, facts(names), profilePath));
  });

  return {
    program,
    runtimeDefault: (capabilities) => defaults([...capabilities].sort().join(' ')),
    localhost: async (path, capabilities) => {
      if (!isAbsolute(path)) throw invalid('seccomp.localhost_ref', `"${path}" is not an absolute path`);
      const text = await readFile(path, 'utf8').catch((error: unknown) => {
        throw unreadable(path, error);
      });
      const profile = toOciSeccomp(readSeccompProfile(parseSeccompJson(text, path), facts(capabilities), path));
      // Compiled now and kept, so that a profile that is no filter is refused when the container is created.
      program(profile);
      return profile;
    },
  };
}

const unreadable = (path: string, error: unknown): RuntimeError =>
  isErrno(error, 'ENOENT')
    ? invalid('seccomp', `profile ${path} does not exist`)
    : new RuntimeError('internal', `read seccomp profile ${path}: ${messageOf(error)}`, { cause: error });

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw unreadable(path, error);
  }
}

/** Keeps the newest results; keyed by hash, since the texts are long. */
function kept<T>(make: (text: string) => T): (text: string) => T {
  const results = new Map<string, T>();
  return (text) => {
    const key = createHash('sha256').update(text).digest('base64');
    const found = results.get(key) ?? make(text);
    results.delete(key);
    results.set(key, found);
    if (results.size > maxKept) results.delete(results.keys().next().value ?? '');
    return found;
  };
}
