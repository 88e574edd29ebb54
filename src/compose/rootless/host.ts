import { existsSync, readFileSync } from 'node:fs';
import { messageOf, RuntimeError } from '../../kit/errors.js';
import type { Observer } from '../../kit/observer.js';
import type { Config } from '../../config.js';
import type { KernelFacts } from '../../native/kernel-facts.js';
import type { Native } from '../../native/native.js';
import { openCgroups } from '../../runtime/cgroups/cgroups.js';
import { openNoCgroups } from '../../runtime/cgroups/none.js';
import type { Cgroups, CgroupsOptions } from '../../runtime/cgroups/types.js';
import { isInUserNamespace, lastFromZero, type IdMappings } from '../../runtime/idmap/mapping.js';
import type { RangeOptions } from '../../runtime/idmap/ranges.js';
import type { Runtime } from '../../runtime/facade.js';
import type { Registry } from '../../runtime/registry.js';
import type { Rootless } from '../../runtime/parts.js';
import type { OciSpec } from '../../runtime/spec/oci.js';
import { toRootless, type RootlessFacts } from '../../runtime/spec/rootless.js';
import { ownCgroupLayout } from './cgroups.js';
import { leaveNamespaces, ownMaps } from './enter.js';
import { openRootlessNetwork } from './network.js';
import { readKept } from './record.js';

/** What differs for an agent inside a user namespace. */
export interface RootlessHost {
  readonly part: Rootless;
  openCgroups(options: CgroupsOptions, registry: () => Registry): Cgroups;
  openNetwork(registry: () => Registry): ReturnType<typeof openRootlessNetwork>;
  /** Where nested user namespaces get their ids from, unless the configuration says so: all of ours but the root's. */
  idRanges(options: RangeOptions): RangeOptions;
  /** Follows which containers run, until the process ends. */
  watch(runtime: Runtime): void;
  /** To be called last, with whether pods go on: without one nobody needs the namespaces. */
  leave(podsGoOn: boolean): Promise<void>;
}

/** Undefined in the first user namespace. Throws `wrong-state` where the namespaces have not been entered. */
export function rootlessHost(
  config: Config,
  native: Native,
  kernel: KernelFacts,
  observer: Observer,
): RootlessHost | undefined {
  const maps = ownMaps();
  if (!isInUserNamespace(maps)) return undefined;
  const kept = readKept(config.state);
  if (kept === undefined) throw new RuntimeError('wrong-state', `nobody keeps namespaces for ${config.state}`);
  const layout = ownCgroupLayout();
  const cgroups = layout === undefined ? 'none' : 'delegated';
  const { noWayOut } = kept;
  if (noWayOut !== '') observer.note('warn', `pods reach each other only, no other host: ${noWayOut}`);
  if (layout === undefined) observer.note('warn', 'no cgroup is delegated to this user: limits are not applied');
  const facts: RootlessFacts = {
    maps,
    cgroups,
    hostQueues: existsSync('/dev/mqueue'),
    oomScoreAdj: ownOomScore(),
    hardLimits: hardLimits(kernel),
  };
  let learn = (): void => undefined;
  return {
    part: { facts, convert: (spec, container) => convert(spec, facts, container, observer) },
    openCgroups(options, registry) {
      if (layout !== undefined) return openCgroups({ ...options, layout });
      const firstProcesses = (path: string) => runningBelow(path, registry(), native);
      const none = openNoCgroups({ firstProcesses, note: (level, message) => observer.note(level, message) });
      learn = none.learn;
      return none;
    },
    idRanges: (options) => (options.ranges.length > 0 ? options : { ...options, ranges: ownRanges(maps) }),
    openNetwork: (registry) => openRootlessNetwork(config, kept, registry, native, observer),
    watch: (runtime) =>
      void learnOfStarts(runtime, learn).catch((error: unknown) => observer.note('error', messageOf(error))),
    leave: async (podsGoOn) => {
      if (!podsGoOn) await leaveNamespaces(config.state, native);
    },
  };
}

function convert(spec: OciSpec, facts: RootlessFacts, container: string, observer: Observer): OciSpec {
  const { spec: converted, warnings } = toRootless(spec, facts);
  for (const warning of warnings) observer.note('warn', warning, { container });
  return converted;
}

async function learnOfStarts(runtime: Runtime, learn: () => void): Promise<void> {
  learn();
  for await (const { type } of runtime.events(new AbortController().signal)) if (type === 'started') learn();
}

/** Ids that are there of both kinds. */
function ownRanges({ uids, gids }: IdMappings): readonly string[] {
  const last = Math.min(lastFromZero(uids), lastFromZero(gids));
  return last === 0 ? [] : [`1:${last}`];
}

const ownOomScore = (): number => Number(readFileSync('/proc/self/oom_score_adj', 'utf8'));

/** `Max open files` of /proc/PID/limits is RLIMIT_NOFILE (getrlimit(2)). */
const limitNames: Readonly<Record<string, string>> = {
  'max cpu time': 'CPU',
  'max file size': 'FSIZE',
  'max data size': 'DATA',
  'max stack size': 'STACK',
  'max core file size': 'CORE',
  'max resident set': 'RSS',
  'max processes': 'NPROC',
  'max open files': 'NOFILE',
  'max locked memory': 'MEMLOCK',
  'max address space': 'AS',
  'max file locks': 'LOCKS',
  'max pending signals': 'SIGPENDING',
  'max msgqueue size': 'MSGQUEUE',
  'max nice priority': 'NICE',
  'max realtime priority': 'RTPRIO',
  'max realtime timeout': 'RTTIME',
};

const hardLimits = ({ limits }: KernelFacts): ReadonlyMap<string, bigint> =>
  new Map(
    [...limits].flatMap(([text, { hard }]) => {
      const name = limitNames[text];
      return name === undefined || hard === 'infinity' ? [] : [[`RLIMIT_${name}`, hard] as const];
    }),
  );

function runningBelow(path: string, registry: Registry, { processes }: Native): { path: string; pid: number }[] {
  return [...registry.containers()].flatMap(({ record, view }) => {
    const { cgroupPath, pid, startTime } = record;
    const below = path === '/' || cgroupPath === path || cgroupPath.startsWith(`${path}/`);
    return below && view.state === 'running' && processes.isRunning(pid, startTime) ? [{ path: cgroupPath, pid }] : [];
  });
}
