import type { Duplex } from 'node:stream';
import type { Call } from '../../kit/call.js';
import { RuntimeError } from '../../kit/errors.js';
import type { ShimConnection, ShimRefusal } from './connection.js';
import { PayloadReader, PayloadWriter, errorKinds, frameTypes, type Frame } from './frames.js';
import { errnoSymbol } from './plan-failed.js';
import type { AttachedStreams, ExecStreams, StreamedExecRequest } from './shim.js';

/** Opens another connection, greeted, for one stream. */
export type OpenStream = () => Promise<ShimConnection>;

type Output = readonly ['stdout' | 'stderr', Uint8Array];
type OutputListener = (stream: 'stdout' | 'stderr', data: Uint8Array) => void;

const stdout = 1;
/** Bytes of input sent in one frame. */
const inputChunk = 64 << 10;

/** Output that comes before anybody listens is kept. */
class OutputBuffer {
  #listener: OutputListener | undefined;
  #early: Output[] = [];

  take(stream: number, data: Uint8Array): void {
    const piece: Output = [stream === stdout ? 'stdout' : 'stderr', data];
    if (this.#listener === undefined) this.#early.push(piece);
    else this.#listener(...piece);
  }

  listen(listener: OutputListener): void {
    this.#listener = listener;
    for (const piece of this.#early.splice(0)) listener(...piece);
  }
}

/** What attached containers and execs have in common; `target` as PROTOCOL.md has it. */
function commonStreams(connection: ShimConnection, output: OutputBuffer, target: number) {
  return {
    onOutput: (listener: OutputListener) => output.listen(listener),
    async write(data: Uint8Array): Promise<void> {
      for (let at = 0; at < data.length; at += inputChunk) {
        const piece = data.subarray(at, at + inputChunk);
        await connection.request(frameTypes.input, new PayloadWriter().u32(target).bytes(piece).parts);
      }
    },
    end: () => connection.tell(frameTypes.closeInput, new PayloadWriter().u32(target).parts),
    pause: () => connection.pause(),
    resume: () => connection.resume(),
    close: () => connection.close(),
  };
}

export async function attachStreams(openStream: OpenStream, containerId: string): Promise<AttachedStreams> {
  const connection = await openStream();
  const output = new OutputBuffer();
  const ended = new Promise<void>((resolve) => {
    connection.listen({
      onEvent(frame) {
        if (frame.type === frameTypes.streamsEndEvent) return resolve();
        if (frame.type !== frameTypes.outputEvent) return;
        const reader = new PayloadReader(frame.payload);
        output.take(reader.u8(), reader.bytes());
      },
      onEnd: () => resolve(),
    });
  });
  try {
    await connection.request(frameTypes.attach, new PayloadWriter().string(containerId).parts);
  } catch (error) {
    connection.close();
    throw error;
  }
  return { ...commonStreams(connection, output, 0), ended };
}

export async function execStreams(
  openStream: OpenStream,
  request: StreamedExecRequest,
  call: Call,
  onRefusal: (refusal: ShimRefusal) => Error,
): Promise<ExecStreams> {
  const connection = await openStream();
  const output = new OutputBuffer();
  let target = 0;
  const started = new Promise<void>((resolve) => {
    connection.listen({
      onEvent(frame: Frame) {
        if (frame.type !== frameTypes.startedEvent) return;
        target = frame.id;
        resolve();
      },
      onEnd: () => undefined,
    });
  });
  const exited = connection
    .request(frameTypes.exec, encodeExec(request), {
      onRefusal,
      onOutput: (stream, data) => output.take(stream, data),
    })
    .then((answer) => answer.u32());
  exited.catch(() => undefined); // who closes the streams need not wait for it
  const abandon = (): void => connection.close();
  call.signal.addEventListener('abort', abandon, { once: true });
  try {
    await Promise.race([started, exited]);
    call.signal.throwIfAborted();
  } catch (error) {
    connection.close();
    throw error;
  } finally {
    call.signal.removeEventListener('abort', abandon);
  }
  return {
    ...commonStreams(connection, output, target),
    resize: async (rows, columns) => {
      const payload = new PayloadWriter().u32(target).string('').u16(rows).u16(columns);
      await connection.request(frameTypes.resize, payload.parts);
    },
    exited,
  };
}

const flagBits = { stdin: 1, terminal: 4, streamed: 8 } as const;

const encodeExec = (request: StreamedExecRequest): readonly Uint8Array[] =>
  new PayloadWriter()
    .plan(request.plan)
    .string(request.containerId)
    .u32(0)
    .u32(request.drainMs)
    .u64(0n)
    .u8(flagBits.streamed | (request.stdin ? flagBits.stdin : 0) | (request.terminal ? flagBits.terminal : 0))
    .u16(0)
    .u16(0).parts;

export async function dialPort(openStream: OpenStream, port: number, call: Call): Promise<Duplex> {
  const connection = await openStream();
  const refused = ({ kind, errno, what }: ShimRefusal): RuntimeError =>
    new RuntimeError(kind === errorKinds.system ? 'unavailable' : 'internal', `${what} ${port}: ${errnoSymbol(errno)}`);
  try {
    return await connection.handOver(frameTypes.dial, new PayloadWriter().u16(port).parts, {
      signal: call.signal,
      onRefusal: refused,
    });
  } catch (error) {
    connection.close();
    throw error;
  }
}
