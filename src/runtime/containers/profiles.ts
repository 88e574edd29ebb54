import { RuntimeError } from '../../kit/errors.js';
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

/** Name of the AppArmor profile to enter, or undefined. A named profile on a host without AppArmor is refused. */
export function apparmorFor(security: ContainerSecurity, available: boolean): string | undefined {
  const profile = security.apparmor;
  if (profile === undefined || security.privileged || profile.kind === 'unconfined') return undefined;
  if (profile.kind === 'runtime-default') return undefined;
  if (available) return profile.localhostRef;
  throw new RuntimeError(
    'invalid-argument',
    `config.linux.security_context.apparmor: profile "${profile.localhostRef}" needs AppArmor, which this kernel lacks`,
  );
}
