import type { HostPaths, RuntimeSettings } from './settings.js';
import type { Criu } from './checkpoint/criu.js';
import type { Workspace } from './checkpoint/workspace.js';
import type { CdiDevices } from './cdi/devices.js';
import type { Cgroups } from './cgroups/types.js';
import type { Shim } from './launch/shim.js';
import type { IdRanges } from './idmap/ranges.js';
import type { UserNamespaceSupport } from './idmap/support.js';
import type { Image } from './model.js';
import type { PodNetwork } from './network/pod-network.js';
import type { ExecFacts } from './plan/facts.js';
import type { Registry } from './registry.js';
import type { OciSpec } from './spec/oci.js';
import type { RootlessFacts } from './spec/rootless.js';
import type { HostLookups } from './containers/host-path.js';
import type { Lifecycle } from './lifecycle.js';
import type { Residue } from './state/residue.js';
import type { Files } from '../native/files.js';
import type { Selinux } from './selinux/selinux.js';
import type { KernelFacts } from '../native/kernel-facts.js';
import type { Snapshotter } from './snapshots/snapshotter.js';

/**
 * The parts that requests are made of. Each story names the ones it needs with `Pick<Parts, …>`; the composition root
 * makes them once. No part knows another.
 */
export interface Parts {
  readonly settings: RuntimeSettings;
  readonly paths: HostPaths;
  readonly host: HostParts;
  readonly registry: Registry;
  readonly residue: Residue;
  readonly cgroups: Cgroups;
  readonly shims: Shims;
  readonly network: PodNetwork;
  readonly images: ImageParts;
  readonly snapshots: Snapshotter;
  readonly kernel: KernelFacts;
  readonly seccomp: SeccompParts;
  readonly userNamespaces: UserNamespaceSupport;
  readonly idRanges: IdRanges;
  readonly templates: JoinTemplates;
  readonly lookups: HostLookups;
  readonly checkpoints: CheckpointParts;
  readonly cdi: CdiDevices;
  /** Absent where the kernel has none, or the configuration wants none. */
  readonly selinux?: Selinux;
  /** Of an agent inside a user namespace; absent where it is the host's root. */
  readonly rootless?: Rootless;
  readonly lifecycle: Lifecycle;
}

/** Small questions to the host, each a seam for tests. */
export interface HostParts {
  /** Nanoseconds since the epoch. */
  now(): bigint;
  /** 64 hexadecimal digits. */
  newId(): string;
  readonly bootId: string;
}

export interface CheckpointParts {
  readonly criu: Criu;
  readonly workspace: Workspace;
  readonly files: Pick<Files, 'fgetXattr' | 'linkAt'>;
}

export interface Rootless {
  readonly facts: RootlessFacts;
  /** The spec as it can be carried out; says what was left out of it. */
  convert(spec: OciSpec, containerId: string): OciSpec;
}

export interface Shims {
  launch(sandboxId: string, dir: string): Promise<Shim>;
  /** The shim of a pod made by an earlier agent; undefined when it is gone. */
  connect(sandboxId: string, dir: string): Promise<Shim | undefined>;
  /** Kills whatever shim serves in `dir`, with its pause process; gone is fine. */
  kill(sandboxId: string, dir: string): Promise<void>;
  /** Ends shims that wait for pods; the next pod brings new ones. */
  drain(): void;
}

export interface ImageParts {
  resolve(reference: string): Image | undefined;
  /** A regular file of the image's merged layers, at most `maxBytes`; never follows a link out of the image. */
  rootFile(image: Image, path: string, maxBytes: number): Promise<Buffer | undefined>;
  /** What a path of the merged layers leads to; undefined when that is neither. Never outside the image. */
  rootEntry(image: Image, path: string): Promise<'directory' | 'file' | undefined>;
  /** Keeps the image's layers while a container uses them. */
  hold(imageId: string, holder: string): void;
  unhold(imageId: string, holder: string): void;
}

/** What joining a container needs of its spec, with the filter compiled. */
export interface JoinTemplate {
  readonly spec: OciSpec;
  readonly seccomp: Pick<ExecFacts, 'seccomp'>;
}

export interface JoinTemplates {
  get(container: { readonly id: string; readonly sandboxId: string }): JoinTemplate;
  forget(id: string): void;
}

export interface SeccompParts {
  /** The filter program for an OCI `linux.seccomp` object, and SECCOMP_FILTER_FLAG_* for it. Cached. */
  program(profile: unknown): { readonly program: Uint8Array; readonly flags: number };
  /** The built-in RuntimeDefault profile, as an OCI `linux.seccomp` object, for a capability set. */
  runtimeDefault(capabilities: readonly string[]): unknown;
  /** Reads and checks a Localhost profile; `invalid-argument` names the field. */
  localhost(path: string, capabilities: readonly string[]): Promise<unknown>;
}
