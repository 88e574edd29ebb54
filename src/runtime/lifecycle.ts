import type { PodResources } from './facade.js';
import type { LinuxResources } from './model.js';
import type { SpecAdjustment } from './spec/adjust.js';
import type { OciSpec } from './spec/oci.js';
import type { ContainerRecord, SandboxRecord } from './state/records.js';

/**
 * Others who follow the lives of pods and containers, and may have a say in them: node plugins. What they are told is
 * in the order in which it happens. With nobody there `active` is false, and requests skip what they would be asked.
 */
export interface Lifecycle {
  readonly active: boolean;
  /** Names of those who take part now, in the order in which they are asked. */
  participants(): readonly string[];
  /**
   * From what others are asked about a new pod or container until it is on record, nobody new may join: who does so in
   * between would hear of it neither in the list nor as an event. Waits while somebody is joining.
   */
  keepOut(): Promise<Disposable>;
  /** Throws what fails the request; events after the fact never do. */
  tell(event: PodEvent, pod: SandboxRecord): Promise<void>;
  tell(event: ContainerEvent, pod: SandboxRecord, container: ContainerRecord): Promise<void>;
  /** The pod's resources are about to become these. */
  updateSandbox(pod: SandboxRecord, change: PodResources): Promise<void>;
  /** What is to be different in a container before its plan is made. Other containers are changed on the way. */
  createContainer(pod: SandboxRecord, container: ContainerRecord, spec: OciSpec): Promise<SpecAdjustment>;
  /** The resources a container is to get instead. */
  updateContainer(pod: SandboxRecord, container: ContainerRecord, asked: LinuxResources): Promise<LinuxResources>;
}

export type PodEvent = 'run-sandbox' | 'sandbox-updated' | 'stop-sandbox' | 'remove-sandbox';

export type ContainerEvent =
  | 'container-created'
  | 'start-container'
  | 'container-started'
  | 'container-updated'
  | 'container-stopped'
  | 'remove-container';

/** What those who take part may see and do. */
export interface LifecycleHost {
  /** Ready pods. */
  pods(): readonly SandboxRecord[];
  /** Containers of ready pods that have not ended. */
  containers(): readonly ContainerRecord[];
  container(id: string): ContainerRecord | undefined;
  /** Where the network namespace of a pod is pinned; undefined for one in the host's. */
  networkNamespace(pod: SandboxRecord): string | undefined;
  /** Undefined before it is written and after it is gone. */
  spec(container: ContainerRecord): OciSpec | undefined;
  /** All values or none; absent ones stay. */
  updateContainer(id: string, resources: LinuxResources): Promise<void>;
  /** Stops a container as StopContainer does, with its grace. */
  stopContainer(id: string): Promise<void>;
}

/** Nobody takes part. */
export const nobody: Lifecycle = {
  active: false,
  participants: () => [],
  keepOut: () => Promise.resolve({ [Symbol.dispose]: () => undefined }),
  tell: () => Promise.resolve(),
  updateSandbox: () => Promise.resolve(),
  createContainer: () => Promise.resolve({}),
  updateContainer: (_pod, _container, asked) => Promise.resolve(asked),
};
