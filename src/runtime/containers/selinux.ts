import type { Call } from '../../kit/call.js';
import { invalid, RuntimeError, messageOf } from '../../kit/errors.js';
import type { ContainerConfig } from '../model.js';
import type { Parts } from '../parts.js';
import { freeLevel, labelledSpec, relabelRefusal, selinuxLabels, type SelinuxLabels } from '../spec/selinux.js';
import type { OciSpec } from '../spec/oci.js';
import type { SandboxRecord } from '../state/records.js';
import type { Volumes } from './volumes.js';

type SelinuxDeps = Pick<Parts, 'selinux'>;

const field = 'config.linux.security_context.selinux_options';

/** The pod's own level: what it asks for, else one no other pod has. '' on nodes without SELinux. */
export function podLevel(
  { security }: SandboxRecord['config'],
  random: number,
  deps: SelinuxDeps & Pick<Parts, 'registry'>,
): string {
  if (deps.selinux === undefined) return '';
  const asked = security.selinux?.level ?? '';
  const taken = [...deps.registry.sandboxes()].map(({ record }) => record.selinuxLevel ?? '');
  return asked === '' ? freeLevel(taken, random) : asked;
}

/** Of what is mounted for the pod; undefined on nodes without SELinux. */
export function podLabels(pod: Pick<SandboxRecord, 'config' | 'selinuxLevel'>, { selinux }: SelinuxDeps) {
  return selinux && selinuxLabels(selinux.labels, pod.config.security.selinux, pod.selinuxLevel ?? '', field);
}

/** A container's own context counts, else the pod's. */
function containerLabels(pod: SandboxRecord, own: SandboxRecord['config']['security'], { selinux }: SelinuxDeps) {
  const options = own.selinux ?? pod.config.security.selinux;
  return selinux && selinuxLabels(selinux.labels, options, pod.selinuxLevel ?? '', field);
}

export interface Labelling {
  readonly spec: OciSpec;
  /** Labels the volumes, which may take a while; undefined where nothing is to be labelled. */
  readonly label: ((call: Call) => Promise<void>) | undefined;
}

/** The spec with the container's labels. Errors: invalid-argument for volumes that must keep theirs. */
export function labelContainer(
  spec: OciSpec,
  pod: SandboxRecord,
  { security, mounts }: Pick<ContainerConfig, 'security' | 'mounts'>,
  volumes: Volumes,
  deps: SelinuxDeps,
): Labelling {
  const labels = containerLabels(pod, security, deps);
  if (labels === undefined) return { spec, label: undefined };
  const asked = mounts.flatMap(({ selinuxRelabel, hostPath, image }, index) => {
    if (!selinuxRelabel || image !== undefined) return [];
    const refusal = relabelRefusal(hostPath);
    if (refusal !== undefined) throw invalid(`config.mounts[${index}].selinux_relabel`, refusal);
    return [hostPath];
  });
  const paths = [...asked, ...volumes.declared.map(({ directory }) => directory)];
  return {
    spec: labelledSpec(spec, labels, security.privileged),
    label: paths.length === 0 ? undefined : (call) => labelPaths(paths, labels, call, deps),
  };
}

/** Paths of the host that a container is to use get its label. File systems without labels are left as they are. */
export async function labelPaths(
  paths: readonly string[],
  { mount }: SelinuxLabels,
  call: Call,
  { selinux }: SelinuxDeps,
): Promise<void> {
  for (const path of paths) {
    try {
      await selinux?.relabel(path, mount, call);
    } catch (error) {
      if (error instanceof RuntimeError || call.signal.aborted) throw error;
      throw new RuntimeError('internal', `relabel ${path}: ${messageOf(error)}`, { cause: error });
    }
  }
}
