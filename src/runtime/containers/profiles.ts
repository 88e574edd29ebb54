import { readFile } from 'node:fs/promises';
import { invalid } from '../../kit/errors.js';
import type { KernelFacts } from '../../native/kernel-facts.js';
import type { ContainerSecurity } from '../model.js';
import type { Parts } from '../parts.js';
import { processCapabilities } from '../spec/container-spec.js';

/** The seccomp object of a container, or undefined to run unconfined, as absent and privileged do. */
export async function seccompFor(
  security: ContainerSecurity,
  deps: Pick<Parts, 'seccomp' | 'kernel' | 'settings'>,
): Promise<unknown> {
  const profile = security.seccomp;
  if (security.privileged || profile === undefined || profile.kind === 'unconfined') return undefined;
  const names =
    processCapabilities(security, deps.kernel.lastCapability, deps.settings.defaultCapabilities).effective ?? [];
  if (profile.kind === 'runtime-default') return deps.seccomp.runtimeDefault(names);
  return await deps.seccomp.localhost(profile.localhostRef ?? '', names);
}

export interface ApparmorFacts {
  readonly available: boolean;
  /** Names of the kernel's profiles; absent where it does not list them. */
  readonly loaded?: ReadonlySet<string>;
}

/** Of /sys/kernel/security/apparmor/profiles: `name (mode)` a line. */
export const loadedProfiles = (text: string): ReadonlySet<string> =>
  new Set([...text.matchAll(/^(.+) \([^)]*\)$/gm)].map(([, name = '']) => name));

/** What the kernel says of AppArmor now: profiles come and go. */
export async function apparmorFacts({ apparmor: available }: Pick<KernelFacts, 'apparmor'>): Promise<ApparmorFacts> {
  if (!available) return { available };
  const text = await readFile('/sys/kernel/security/apparmor/profiles', 'utf8').catch(() => undefined);
  return { available, ...(text === undefined ? {} : { loaded: loadedProfiles(text) }) };
}

/** Name of the AppArmor profile to enter, or undefined. One that the kernel does not have is refused by field. */
export function apparmorFor(security: ContainerSecurity, { available, loaded }: ApparmorFacts): string | undefined {
  const profile = security.apparmor;
  if (profile?.kind !== 'localhost' || security.privileged) return undefined;
  const { localhostRef: name = '' } = profile;
  if (available && loaded?.has(name) !== false) return name;
  const reason = available ? 'is not loaded' : 'needs AppArmor, which this kernel lacks';
  throw invalid('config.linux.security_context.apparmor.localhost_ref', `profile "${name}" ${reason}`);
}
