import type { IncomingMessage, ServerResponse } from 'node:http';
import { RuntimeError } from '../../kit/errors.js';
import type { Call } from '../../kit/call.js';
import type { Observability } from '../../observe/observer.js';
import type { Runtime } from '../../runtime/facade.js';
import { methods } from './methods.js';
import { decode, encode, encodeError, isMark, type WireLine, type WireRequest } from './wire.js';

const maxRequestBytes = 16 * 2 ** 20;

/** Answers POST /call on the admin socket: one request of the facade, with its progress and notes as JSON lines. */
export function callHandler(runtime: Runtime, observability: Observability, release: string) {
  return async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const send = (line: WireLine): void => void response.write(`${encode(line)}\n`);
    const gone = new AbortController();
    response.on('close', () => gone.abort(new RuntimeError('cancelled', 'the caller went away')));
    response.writeHead(200, { 'content-type': 'application/x-ndjson' });
    try {
      const wanted = decode(await readBody(request)) as WireRequest;
      checkRelease(wanted.release, release);
      send({ result: await answer(runtime, wanted, observability, { signal: gone.signal, send }) });
    } catch (error) {
      send({ error: encodeError(error) });
    }
    response.end();
  };
}

function checkRelease(theirs: string, ours: string): void {
  if (theirs === ours) return;
  throw new RuntimeError('wrong-state', `the running agent is release ${ours}, this command is ${theirs}`);
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxRequestBytes) throw new RuntimeError('invalid-argument', 'the request is too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

interface Answering {
  readonly signal: AbortSignal;
  readonly send: (line: WireLine) => void;
}

async function answer(
  runtime: Runtime,
  { method, args: marked }: WireRequest,
  observability: Observability,
  { signal, send }: Answering,
): Promise<unknown> {
  const target = lookup(runtime, method);
  const args = marked.map((arg) => (isMark(arg, '$undefined') ? undefined : arg));
  if (!args.some((arg) => isMark(arg, '$call'))) return await target(...args);
  const watched = observability.begin(`cli/${method}`);
  const call: Call = {
    signal,
    observer: {
      step: (name, work) => watched.observer.step(name, work),
      progress: (done) => watched.observer.progress?.(done),
      measure: (what, labels, seconds) => watched.observer.measure?.(what, labels, seconds),
      note: (level, message, facts) => {
        send({ note: { level, message } });
        watched.observer.note(level, message, facts);
      },
    },
  };
  const given = args.map((arg) => {
    if (isMark(arg, '$call')) return call;
    return isMark(arg, '$progress') ? (progress: unknown) => send({ progress }) : arg;
  });
  try {
    const result = await target(...given);
    watched.end('OK');
    return result;
  } catch (error) {
    watched.end(encodeError(error).kind, error);
    throw error;
  }
}

function lookup(runtime: Runtime, method: string): (...args: readonly unknown[]) => unknown {
  if (!methods.has(method)) throw new RuntimeError('unimplemented', `the agent offers no ${method}`);
  const path = method.split('.');
  const name = path.pop() ?? '';
  const owner = path.reduce((at, part) => (at as Record<string, unknown>)[part], runtime as unknown) as object;
  const found = (owner as Record<string, unknown>)[name] as (...args: readonly unknown[]) => unknown;
  return (...args) => found.apply(owner, [...args]);
}
