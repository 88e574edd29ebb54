import { request as httpRequest, type IncomingMessage } from 'node:http';
import { createInterface } from 'node:readline';
import type { Call } from '../../kit/call.js';
import { RuntimeError } from '../../kit/errors.js';
import type { ExecCommand } from '../../runtime/facade.js';
import { attachRemote, execRemote } from './streams.js';
import type { RuntimeClient } from './client-types.js';
import { callMark, decode, decodeError, encode, progressMark, undefinedMark, type WireLine } from './wire.js';

/** True when an agent answers on the admin socket. */
export function agentAnswers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const request = httpRequest({ socketPath, path: '/ping', timeout: 5000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    request.on('timeout', () => request.destroy(new Error('no answer')));
    request.on('error', () => resolve(false));
    request.end();
  });
}

/** The running agent's runtime. Every property is a section or a request; requests are sent by name. */
export function remoteRuntime(socketPath: string, release: string): RuntimeClient {
  const send = (method: string, args: readonly unknown[]): Promise<unknown> =>
    callRemote({ socketPath, release, method, args });
  const attach = (id: string, { signal }: Call): unknown => attachRemote(socketPath, id, signal);
  const exec = (id: string, command: ExecCommand, { signal }: Call): unknown =>
    execRemote(socketPath, id, command, signal);
  const at = (path: string): unknown =>
    new Proxy((...args: readonly unknown[]) => send(path, args), {
      get(target, name) {
        if (typeof name !== 'string' || name === 'then') return Reflect.get(target, name) as unknown;
        if (path === '' && name === 'close') return () => Promise.resolve();
        if (path === 'containers' && name === 'attach') return attach;
        if (path === 'containers' && name === 'exec') return exec;
        return at(path === '' ? name : `${path}.${name}`);
      },
    });
  return at('') as RuntimeClient;
}

interface RemoteCall {
  readonly socketPath: string;
  readonly release: string;
  readonly method: string;
  readonly args: readonly unknown[];
}

const isCall = (arg: unknown): arg is Call =>
  typeof arg === 'object' && arg !== null && (arg as { signal?: unknown }).signal instanceof AbortSignal;

/** JSON has neither functions nor undefined. */
function mark(arg: unknown): unknown {
  if (arg === undefined) return undefinedMark;
  if (typeof arg === 'function') return progressMark;
  return isCall(arg) ? callMark : arg;
}

async function callRemote({ socketPath, release, method, args }: RemoteCall): Promise<unknown> {
  const call = args.find(isCall);
  const onProgress = args.find((arg) => typeof arg === 'function') as ((progress: unknown) => void) | undefined;
  const body = encode({ release, method, args: args.map(mark) });
  const response = await post(socketPath, body, call?.signal);
  for await (const line of createInterface({ input: response, crlfDelay: Infinity })) {
    const { progress, note, error, result } = decode(line) as WireLine;
    if (progress !== undefined) onProgress?.(progress);
    else if (note !== undefined) call?.observer.note(note.level, note.message);
    else if (error !== undefined) throw decodeError(error);
    else return result;
  }
  throw new RuntimeError('unavailable', `the agent ended while answering ${method}`);
}

function post(socketPath: string, body: string, signal: AbortSignal | undefined): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const options = { socketPath, method: 'POST', path: '/call', ...(signal !== undefined && { signal }) };
    const request = httpRequest(options, resolve);
    request.on('error', (error) => {
      const kind = signal?.aborted === true ? 'cancelled' : 'unavailable';
      reject(new RuntimeError(kind, `ask the agent at ${socketPath}: ${error.message}`, { cause: error }));
    });
    request.end(body);
  });
}
