import { join } from 'node:path';
import type { Call } from '../../kit/call.js';
import { RuntimeError, invalid } from '../../kit/errors.js';
import { StepRecorder } from '../../kit/step-recorder.js';
import { Undo } from '../../kit/undo.js';
import type { CgroupResources } from '../cgroups/types.js';
import { shimCgroup } from '../settings.js';
import type { CreateContainerInput } from '../facade.js';
import type { ContainerConfig, Image, ImageRunConfig } from '../model.js';
import type { Parts } from '../parts.js';
import { compilePlan } from '../plan/compile.js';
import type { LaunchPlan } from '../plan/plan.js';
import { askedDevices } from '../spec/cdi.js';
import { containerSpec } from '../spec/container-spec.js';
import { containerNamespaces, sandboxNamespaces } from '../spec/namespaces.js';
import type { OciDeviceRule, OciSpec } from '../spec/oci.js';
import { parseRlimits } from '../spec/rlimits.js';
import { signalName } from '../spec/signals.js';
import { resolveUser } from '../spec/user.js';
import type { SandboxEntry } from '../registry.js';
import type { ContainerRecord } from '../state/records.js';
import { shmName } from '../sandbox/shim-events.js';
import { adjustContainer } from './adjust.js';
import { writeBundle } from './bundle.js';
import { addCdiDevices } from './cdi.js';
import { deviceOwner, gatherDevices } from './gather-devices.js';
import { gatherMounts } from './gather-mounts.js';
import { gatherUserDatabase } from './gather-users.js';
import { snapshotImage } from './image-snapshot.js';
import { launchFacts } from './launch-facts.js';
import { checkRootfs, checkVolumes, isForEveryone } from './user-namespace.js';
import { cleanVolumes, findVolumes, prepareVolumes, reportedMounts, volumeFacts, type Volumes } from './volumes.js';
import { labelContainer, type Labelling } from './selinux.js';
import { apparmorFacts, apparmorFor, seccompFor } from './profiles.js';

export type CreateContainerDeps = Pick<
  Parts,
  | 'settings'
  | 'paths'
  | 'host'
  | 'registry'
  | 'residue'
  | 'cgroups'
  | 'images'
  | 'snapshots'
  | 'seccomp'
  | 'kernel'
  | 'userNamespaces'
  | 'lifecycle'
  | 'lookups'
  | 'cdi'
  | 'selinux'
  | 'rootless'
>;

/**
 * CreateContainer: everything but running. The spec is built, checked and compiled here, so that every mistake it can
 * hold shows now; StartContainer only executes.
 */
export async function createContainer(
  input: CreateContainerInput,
  deps: CreateContainerDeps,
  call: Call,
): Promise<string> {
  const { registry, residue, images, paths, host, lifecycle } = deps;
  const sandbox = registry.sandbox(input.sandboxId);
  if (sandbox.record.stage !== 'ready') {
    throw new RuntimeError('wrong-state', `pod sandbox ${sandbox.record.id} is not ready`);
  }
  if (sandbox.shim !== undefined) {
    deps.cgroups.expectEntry(shimCgroup(deps.settings.cgroupParent), sandbox.shim.pid);
  }
  const observer = new StepRecorder(call.observer);
  const undo = new Undo(observer);
  const id = host.newId();
  const { mappings } = sandbox.record;
  checkVolumes(input.config.mounts, mappings);
  try {
    const image = findImage(input, deps);
    const run = image?.run ?? noImage;
    const user = resolveUser(userRequest(input.config, run), await userDatabase(image, input, deps));
    const volumes = await findVolumes(id, input.config.mounts, run, deps);
    await undo.step(
      'reserve name and record',
      () => registry.addContainer(firstRecord(id, input, sandbox, image, run, user, volumes, deps)),
      () => registry.deleteContainer(id),
    );
    if (image !== undefined) {
      await undo.step(
        'hold image',
        () => images.hold(image.id, id),
        async () => void (await residue.clean('image-hold', `${image.id} ${id}`)),
      );
      await undo.step(
        'prepare snapshot',
        () => prepareSnapshot(id, image, mappings, { ...call, observer }, deps),
        async () => void (await residue.clean('snapshot', id)),
      );
    }
    undo.before('prepare volumes', () => cleanVolumes(registry.container(id).record, residue));
    await undo.step('prepare volumes', () => prepareVolumes(id, volumes, mappings, { ...call, observer }, deps));
    using _untilRecorded = await lifecycle.keepOut();
    if (lifecycle.active)
      undo.before('tell plugins', () =>
        lifecycle.tell('remove-container', sandbox.record, registry.container(id).record),
      );
    const { spec, plan, label } = await undo.step('build spec and plan', () =>
      build(id, input, run, user, volumes, deps),
    );
    if (label !== undefined) await undo.step('label volumes', () => label({ ...call, observer }));
    await undo.step(
      'write bundle',
      () => writeBundle(paths.bundle(sandbox.record.id, id), spec, plan, mappings),
      async () => void (await residue.clean('directory', paths.bundle(sandbox.record.id, id))),
    );
    await undo.step(
      'create cgroup',
      () =>
        deps.cgroups.create(
          registry.container(id).record.cgroupPath,
          cgroupResources(registry.container(id).record, spec, deps),
        ),
      async () => void (await residue.clean('cgroup', registry.container(id).record.cgroupPath)),
    );
    await undo.step('record created', () => {
      if (registry.sandbox(sandbox.record.id).record.stage !== 'ready') {
        throw new RuntimeError('wrong-state', `pod sandbox ${sandbox.record.id} was stopped meanwhile`);
      }
      registry.updateContainer(id, { stage: 'created', steps: observer.steps });
    });
    undo.commit();
    if (lifecycle.active) await lifecycle.tell('container-created', sandbox.record, registry.container(id).record);
    return id;
  } catch (error) {
    await undo.run();
    throw error;
  }
}

/** How its files get their ids is written down, for those who ask why a start was slow or a disk is full. */
async function prepareSnapshot(
  id: string,
  image: Image,
  mappings: SandboxEntry['record']['mappings'],
  call: Call,
  deps: CreateContainerDeps,
): Promise<void> {
  const { way, remap } = await snapshotImage(id, image, 'config.image.image', mappings, call, deps);
  deps.registry.updateContainer(id, { snapshot: { way, ...(remap === undefined ? {} : { remap }) } });
}

/** What a container without an image starts from: a directory given by the user says nothing about how to run it. */
const noImage: ImageRunConfig = {
  env: [],
  entrypoint: [],
  cmd: [],
  user: '',
  workingDir: '',
  stopSignal: '',
  volumes: [],
  labels: {},
};

function findImage(input: CreateContainerInput, deps: CreateContainerDeps): Image | undefined {
  if (input.rootfs !== undefined) return undefined;
  const reference = input.config.image.image;
  // CRI-O takes an archive of CheckpointContainer here.
  if (reference.startsWith('/'))
    throw new RuntimeError('unimplemented', `config.image.image: "${reference}": checkpoints cannot be restored here`);
  const image = deps.images.resolve(reference);
  if (image === undefined)
    throw new RuntimeError('not-found', `config.image.image: image "${reference}" is not on this node`);
  return image;
}

const userDatabase = (image: Image | undefined, input: CreateContainerInput, deps: CreateContainerDeps) =>
  gatherUserDatabase(image === undefined ? { rootfs: input.rootfs ?? '/' } : { image, images: deps.images });

function userRequest(config: ContainerConfig, run: ImageRunConfig): Parameters<typeof resolveUser>[0] {
  const { security } = config;
  return {
    ...(security.runAsUser === undefined ? {} : { runAsUser: security.runAsUser }),
    ...(security.runAsUsername === undefined ? {} : { runAsUsername: security.runAsUsername }),
    ...(security.runAsGroup === undefined ? {} : { runAsGroup: security.runAsGroup }),
    imageUser: run.user,
    supplementalGroups: security.supplementalGroups,
    policy: security.supplementalGroupsPolicy,
  };
}

function firstRecord(
  id: string,
  input: CreateContainerInput,
  sandbox: SandboxEntry,
  image: Image | undefined,
  run: ImageRunConfig,
  user: ReturnType<typeof resolveUser>,
  volumes: Volumes,
  deps: CreateContainerDeps,
): ContainerRecord {
  const { config } = input;
  const wanted = config.stopSignal ?? (run.stopSignal === '' ? 'SIGTERM' : run.stopSignal);
  return {
    id,
    sandboxId: sandbox.record.id,
    config,
    imageId: image?.id ?? '',
    imageName: image?.repoDigests[0] ?? image?.repoTags[0] ?? image?.id ?? input.rootfs ?? '',
    createdAt: deps.host.now(),
    stage: 'creating',
    startedAt: 0n,
    pid: 0,
    startTime: 0n,
    cgroupPath: join(sandbox.record.cgroupPath, id),
    logPath: config.logPath === '' ? '' : join(sandbox.record.config.logDirectory, config.logPath),
    user: { uid: user.uid, gid: user.gid, groups: user.groups },
    stopSignal: signalName(wanted, config.stopSignal === undefined ? 'image StopSignal' : 'config.stop_signal'),
    mounts: reportedMounts(config.mounts, volumes),
    resources: config.resources,
    rootfs: input.rootfs ?? '',
    steps: [],
  };
}

/** Gathers what the host says, then computes the spec and the plan from it. */
async function build(
  id: string,
  input: CreateContainerInput,
  run: ImageRunConfig,
  user: ReturnType<typeof resolveUser>,
  volumes: Volumes,
  deps: CreateContainerDeps,
): Promise<{ spec: OciSpec; plan: LaunchPlan; label: Labelling['label'] }> {
  const { registry, paths, settings } = deps;
  const { record } = registry.container(id);
  const sandbox = registry.sandbox(record.sandboxId).record;
  const { security } = input.config;
  const mounts = await gatherMounts(record.mounts, {
    mappings: sandbox.mappings,
    support: deps.userNamespaces,
    recursiveReadOnly: deps.kernel.recursiveReadOnly,
    lookups: deps.lookups,
  });
  const config = { ...input.config, mounts };
  if (sandbox.mappings !== undefined && input.rootfs !== undefined) checkRootfs(input.rootfs, deps.userNamespaces);
  const bound = sandbox.mappings !== undefined || deps.rootless !== undefined;
  const devices = await gatherDevices(
    config.devices,
    deps.lookups,
    security.privileged,
    bound ? isForEveryone : undefined,
    deviceOwner(security, { wanted: settings.deviceOwnership, bound }),
  );
  const namespaces = containerNamespaces(sandbox.config.security.namespaces, security.namespaces, {
    cgroupVersion: deps.cgroups.layout.version,
    privileged: security.privileged,
    mapped: sandbox.mappings !== undefined,
  });
  checkTarget(namespaces.pid, sandbox.id, deps);
  const plain = containerSpec({
    config,
    sandbox: sandbox.config,
    image: run,
    user,
    namespaces,
    rootfs: input.rootfs ?? paths.rootMountpoint(sandbox.id),
    cgroupsPath: record.cgroupPath,
    files: {
      hosts: paths.podFile(sandbox.id, 'hosts'),
      hostname: paths.podFile(sandbox.id, 'hostname'),
      resolvConf: paths.podFile(sandbox.id, 'resolv.conf'),
      shm: sandboxNamespaces(sandbox.config.security.namespaces).shm === 'pod' ? { held: shmName } : { host: true },
    },
    devices,
    lastCapability: deps.kernel.lastCapability,
    defaultCapabilities: settings.defaultCapabilities,
    rlimits: parseRlimits(settings.rlimits),
    seccomp: await seccompFor(security, deps),
    apparmorProfile: apparmorFor(security, await apparmorFacts(deps.kernel)),
    pidsLimit: settings.pidsLimit === 0 ? undefined : settings.pidsLimit,
    volumes: volumes.declared,
    ...(sandbox.mappings === undefined ? {} : { mappings: sandbox.mappings }),
  });
  const labelled = labelContainer(plain, sandbox, config, volumes, deps);
  const withCdi = await addCdiDevices(id, labelled.spec, askedDevices(config), deps);
  const { spec: wanted, namespaces: adjusted, devices: added } = await adjustContainer(id, withCdi.spec, deps);
  const spec = deps.rootless?.convert(wanted, id) ?? wanted;
  const facts = {
    ...launchFacts(registry.container(id).record, namespaces, spec, [...devices, ...withCdi.devices, ...added], deps),
    ...volumeFacts(volumes, deps),
  };
  const plan = compilePlan(spec, { ...facts, namespaces: { ...facts.namespaces, ...adjusted } });
  return { spec, plan, label: labelled.label };
}

function checkTarget(
  pid: ReturnType<typeof containerNamespaces>['pid'],
  sandboxId: string,
  deps: CreateContainerDeps,
): void {
  if (pid.from !== 'container') return;
  const field = 'config.linux.security_context.namespace_options.target_id';
  const target = deps.registry.findContainer(pid.id);
  if (target === undefined || target.record.sandboxId !== sandboxId) {
    throw invalid(field, `no container "${pid.id}" in this pod`);
  }
  if (target.view.state !== 'running') throw invalid(field, `container "${pid.id}" is not running`);
}

function cgroupResources(record: ContainerRecord, spec: OciSpec, deps: CreateContainerDeps): CgroupResources {
  return {
    ...(deps.settings.pidsLimit === 0 ? {} : { pidsLimit: deps.settings.pidsLimit }),
    ...record.resources,
    ...(deps.rootless === undefined ? { deviceRules: (spec.linux.resources?.devices ?? []).map(toCgroupRule) } : {}),
  };
}

const toCgroupRule = (rule: OciDeviceRule): NonNullable<CgroupResources['deviceRules']>[number] => ({
  allow: rule.allow,
  type: rule.type ?? 'a',
  ...(rule.major === undefined ? {} : { major: rule.major }),
  ...(rule.minor === undefined ? {} : { minor: rule.minor }),
  access: rule.access ?? 'rwm',
});
