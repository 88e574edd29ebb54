import { randomUUID } from 'node:crypto';
import { mkdirSync, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { sleep } from '../../kit/deadline.js';
import { messageOf, RuntimeError } from '../../kit/errors.js';
import {
  checkRootless,
  expectPositionals,
  rootlessOption,
  UsageError,
  type Arguments,
  type Command,
} from '../command.js';
import type { Context } from '../context.js';
import { logBytes, readLog } from '../log-lines.js';
import { pullProgress } from '../progress.js';
import type { RuntimeClient } from '../remote/client-types.js';
import { runContainerConfig, runPodConfig, withVolumesMapped, type RunRequest } from '../run-config.js';
import { joinTerminal } from '../terminal.js';

export const run: Command = {
  usage: '[flags] IMAGE [COMMAND…]\n       berth run [flags] --rootfs DIR ID COMMAND…',
  about: 'Runs a command in a new pod, waits for it, and exits with its exit code.',
  options: {
    rm: { about: 'remove container and pod afterwards; never a --rootfs directory' },
    tty: { about: 'give it a terminal, joined to this one', short: 't' },
    interactive: { about: 'give it this command’s standard input', short: 'i' },
    detach: { about: 'print the id and leave it running', short: 'd' },
    rootfs: { about: 'use this directory as the root, as it is; ID names the container', value: 'DIR' },
    name: { about: 'name of container and pod', value: 'NAME' },
    env: { about: 'environment variable', short: 'e', value: 'NAME=VALUE', multiple: true },
    volume: { about: 'bind mount', short: 'v', value: '/HOST:/CONTAINER[:ro]', multiple: true },
    publish: { about: 'publish a port', short: 'p', value: 'HOSTPORT:PORT[/PROTOCOL]', multiple: true },
    user: { about: 'user[:group], by number or name', short: 'u', value: 'USER' },
    workdir: { about: 'working directory', short: 'w', value: 'DIR' },
    hostname: { about: 'host name', value: 'NAME' },
    net: { about: 'network: pod or host', value: 'MODE' },
    pid: { about: 'process ids: pod or host', value: 'MODE' },
    ipc: { about: 'shared memory and queues: pod or host', value: 'MODE' },
    userns: { about: 'user namespace: auto, or CONTAINER:HOST:SIZE[,…] for uids and gids', value: 'MAP' },
    memory: { about: 'memory limit, like 512MiB', short: 'm', value: 'BYTES' },
    cpus: { about: 'CPU limit, like 0.5', value: 'N' },
    'cap-add': { about: 'capability to add', value: 'NAME', multiple: true },
    'cap-drop': { about: 'capability to drop', value: 'NAME', multiple: true },
    'read-only': { about: 'read-only root' },
    privileged: { about: 'with every capability and device, without confinement' },
    pull: { about: 'pull the image: missing (default), always, never', value: 'WHEN' },
    ...rootlessOption,
  },
  passThrough: true,
  async run(context, args) {
    checkRootless(context, args);
    const request = readRequest(context, args);
    const pod = runPodConfig(request);
    const planned = runContainerConfig(request);
    const client = await context.connect({ share: true });
    if (request.rootfs === undefined) await haveImage(context, client, request);
    mkdirSync(request.logDirectory, { recursive: true, mode: 0o700 });

    const sandboxId = await client.sandboxes.run({ config: pod, runtimeHandler: '' }, context.call());
    let keep = false;
    try {
      const rootfs = request.rootfs === undefined ? {} : { rootfs: request.rootfs };
      const { userns } = (await client.sandboxes.status(sandboxId)).config.security.namespaces;
      const config = withVolumesMapped(planned, userns);
      const input = { sandboxId, config, sandboxConfig: pod, ...rootfs };
      const id = await client.containers.create(input, context.call());
      await client.containers.start(id, context.call());
      keep = !args.has('rm');
      if (args.has('detach')) {
        context.stdout.write(`${id}\n`);
        return 0;
      }
      return await waitFor(context, client, id, request);
    } finally {
      await finish(context, client, { sandboxId, keep, detach: args.has('detach') && keep, request });
    }
  },
};

function readRequest(context: Context, args: Arguments): RunRequest {
  const [first = '', ...command] = expectPositionals(args, 'IMAGE or ID', '[COMMAND…]');
  const rootfs = args.value('rootfs');
  if (rootfs !== undefined) checkRootfs(resolve(rootfs), command);
  if (args.has('detach') && (args.has('rm') || args.has('tty') || args.has('interactive')))
    throw new UsageError('--detach goes with none of --rm, --tty and --interactive');
  const uid = randomUUID();
  const name = args.value('name') ?? (rootfs === undefined ? `run-${uid.slice(0, 8)}` : first);
  if (!/^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$/i.test(name))
    throw new UsageError(`"${name}" is no name: letters, digits, "." and "-", at most 63`);
  return {
    name,
    uid,
    image: rootfs === undefined ? first : resolve(rootfs),
    rootfs: rootfs === undefined ? undefined : resolve(rootfs),
    command,
    terminal: args.has('tty'),
    interactive: args.has('interactive') || args.has('tty'),
    logDirectory: join(context.config.root, 'run-logs', uid),
    args,
  };
}

function checkRootfs(path: string, command: readonly string[]): void {
  if (command.length === 0) throw new UsageError('--rootfs needs ID and COMMAND');
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new RuntimeError('not-found', `--rootfs: ${path} is no directory`);
}

async function haveImage(context: Context, client: RuntimeClient, { image, args }: RunRequest): Promise<void> {
  const when = args.value('pull') ?? 'missing';
  if (!['missing', 'always', 'never'].includes(when)) throw new UsageError('--pull must be missing, always or never');
  if (when === 'never' || (when === 'missing' && (await client.images.get(image)) !== undefined)) return;
  const progress = pullProgress(context.stderr);
  const spec = { image, userSpecifiedImage: image, annotations: {}, runtimeHandler: '' };
  await client.images.pull(spec, undefined, context.call(), progress.onProgress);
  progress.end();
}

const stopSeconds = 10;
const pollMs = 25;

/** Shows output until the container has ended. An interrupt stops it as `docker stop` would. */
async function waitFor(context: Context, client: RuntimeClient, id: string, request: RunRequest): Promise<number> {
  const exitOf = async () => {
    const view = await client.containers.status(id);
    return view.state === 'running' ? undefined : (view.exit ?? { code: 255, reason: 'Unknown', message: 'lost' });
  };
  const stop = (): void => void stopQuietly(context, client, id);
  context.signal.addEventListener('abort', stop, { once: true });
  if (context.signal.aborted) stop();
  const joined = request.interactive ? await joinStreams(context, client, id, request) : undefined;
  try {
    if (!request.terminal) {
      const path = join(request.logDirectory, `${request.name}.log`);
      for await (const entry of readLog(path, { ended: async () => (await exitOf()) !== undefined }))
        (entry.stream === 'stdout' ? context.stdout : context.stderr).write(logBytes(entry));
    }
    let exit = await exitOf();
    for (; exit === undefined; exit = await exitOf()) await sleep(pollMs);
    await joined?.drained;
    if (exit.reason === 'OOMKilled') context.stderr.write('berth: killed, out of memory\n');
    return exit.code;
  } finally {
    joined?.leave();
    context.signal.removeEventListener('abort', stop);
  }
}

/** The terminal shows output itself; without one the log does, which has all of it from the beginning. */
async function joinStreams(context: Context, client: RuntimeClient, id: string, { terminal }: RunRequest) {
  const streams = await client.containers.attach(id, fresh(context));
  const resize = async (rows: number, columns: number): Promise<void> =>
    await client.containers.resize(id, rows, columns);
  const output = terminal ? { output: { stdout: context.stdout, stderr: context.stderr } } : {};
  const leave = joinTerminal(streams, { terminal, input: true, resize, ...output });
  return { leave, drained: terminal ? streams.ended : Promise.resolve() };
}

/** Work after an interrupt must not be under the interrupted signal. */
const fresh = (context: Context) => context.call(new AbortController().signal);

async function stopQuietly(context: Context, client: RuntimeClient, id: string): Promise<void> {
  try {
    await client.containers.stop(id, stopSeconds, fresh(context));
  } catch (error) {
    context.stderr.write(`berth: ${messageOf(error)}\n`);
  }
}

interface Finish {
  readonly sandboxId: string;
  readonly keep: boolean;
  readonly detach: boolean;
  readonly request: RunRequest;
}

/** A container that is kept can be looked at, but its pod's network and shim are let go. */
async function finish(
  context: Context,
  client: RuntimeClient,
  { sandboxId, keep, detach, request }: Finish,
): Promise<void> {
  if (detach) return;
  await client.sandboxes.stop(sandboxId, fresh(context));
  if (keep) return;
  await client.sandboxes.remove(sandboxId, fresh(context));
  await rm(request.logDirectory, { recursive: true, force: true });
}
