import type { Call } from '../../kit/call.js';
import { withDeadline } from '../../kit/deadline.js';
import { RuntimeError } from '../../kit/errors.js';
import { stepName } from '../plan/explain.js';
import { decodePlan } from '../plan/wire.js';
import type { ShimConnection, ShimRefusal } from './connection.js';
import { attachStreams, dialPort, execStreams } from './streams.js';
import { PayloadReader, PayloadWriter, errorKinds, frameTypes, type Frame } from './frames.js';
import { PlanFailed, explainPlainly, locateFailure, type ExplainFailure } from './plan-failed.js';
import type {
  ExecSyncRequest,
  ExecSyncResult,
  Shim,
  ShimExit,
  ShimState,
  StartRequest,
  StartedProcess,
} from './shim.js';

export interface ShimClientOptions {
  readonly sandboxId: string;
  readonly pid: number;
  readonly connection: ShimConnection;
  /** Opens another connection, greeted, for one stream. */
  readonly openStream: () => Promise<ShimConnection>;
  readonly explain?: ExplainFailure;
  /** Milliseconds the shim may take over requests that it answers at once. */
  readonly answerTimeoutMs: number;
}

const stdout = 1;
const flagBits = { stdin: 1, stdinOnce: 2, terminal: 4 } as const;

/** A `Shim` over an open, greeted connection. */
export function shimClient(options: ShimClientOptions): Shim {
  const { connection, explain = explainPlainly } = options;
  const exits = new Exits();
  const gone = new Listeners<string>();
  let leaving = false;
  connection.listen({
    onEvent: (frame) => exits.take(frame),
    onEnd: (reason) => {
      if (!leaving) gone.tell(reason);
    },
  });
  const planFailure =
    (plan: Uint8Array): ((refusal: ShimRefusal) => Error) =>
    (refusal) =>
      planError(plan, refusal, explain);
  /** For what the shim answers at once: one that does not is stuck, and so would its caller be. */
  const quick = (type: number, payload: PayloadWriter): Promise<PayloadReader> =>
    withDeadline(`shim of pod ${options.sandboxId}`, options.answerTimeoutMs, (signal) =>
      connection.request(type, payload.parts, { signal }),
    );
  const simple = async (type: number, payload: PayloadWriter): Promise<void> => void (await quick(type, payload));

  return {
    sandboxId: options.sandboxId,
    pid: options.pid,
    async hold(plan, call) {
      const answer = await connection.request(frameTypes.hold, new PayloadWriter().plan(plan).parts, {
        signal: call.signal,
        onRefusal: planFailure(plan),
      });
      const pausePid = answer.u32();
      answer.u64();
      return { pausePid, warnings: readWarnings(answer, plan) };
    },
    async start(request, call) {
      const answer = await connection.request(frameTypes.start, encodeStart(request), {
        signal: call.signal,
        onRefusal: planFailure(request.plan),
      });
      return readStarted(answer, request.plan);
    },
    execSync: (request, call) => execSync(connection, request, call, planFailure(request.plan)),
    async signal(containerId, signal, all) {
      try {
        const payload = new PayloadWriter()
          .string(containerId)
          .u32(signal)
          .u8(all ? 1 : 0);
        await simple(frameTypes.signal, payload);
      } catch (error) {
        if (!(error instanceof RuntimeError && error.kind === 'not-found')) throw error;
      }
    },
    attach: (containerId) => attachStreams(options.openStream, containerId),
    exec: (request, call) => execStreams(options.openStream, request, call, planFailure(request.plan)),
    dial: (port, call) => dialPort(options.openStream, port, call),
    resize: (containerId, rows, columns) =>
      simple(frameTypes.resize, new PayloadWriter().u32(0).string(containerId).u16(rows).u16(columns)),
    reopenLog: (containerId) => simple(frameTypes.reopenLog, new PayloadWriter().string(containerId)),
    async netlink(messages) {
      const payload = new PayloadWriter().u32(messages.length);
      messages.forEach((message) => payload.bytes(message));
      const answer = await quick(frameTypes.netlink, payload);
      return answer.list(() => Uint8Array.from(answer.bytes()));
    },
    async state() {
      return readState(await quick(frameTypes.state, new PayloadWriter()));
    },
    async forget(containerId) {
      await simple(frameTypes.forget, new PayloadWriter().string(containerId));
      exits.forget(containerId);
    },
    onExit: (listener) => exits.listen(listener),
    onGone(listener) {
      if (!connection.open && !leaving) queueMicrotask(() => listener('the connection is closed'));
      else gone.add(listener);
    },
    async shutdown() {
      if (!connection.open) return;
      leaving = true;
      try {
        await connection.request(frameTypes.shutdown, []);
      } catch (error) {
        if (!(error instanceof RuntimeError && error.kind === 'unavailable')) throw error;
      } finally {
        connection.close();
      }
    },
    disconnect() {
      leaving = true;
      connection.close();
    },
  };
}

class Listeners<T> {
  readonly #listeners: ((value: T) => void)[] = [];
  add(listener: (value: T) => void): void {
    this.#listeners.push(listener);
  }
  tell(value: T): void {
    for (const listener of this.#listeners) listener(value);
  }
}

/** Exits of this shim's containers, kept until they are forgotten, so that a late listener hears them too. */
class Exits {
  readonly #known = new Map<string, ShimExit>();
  readonly #listeners = new Listeners<ShimExit>();

  take(frame: Frame): void {
    if (frame.type !== frameTypes.exitEvent) return;
    const reader = new PayloadReader(frame.payload);
    const exit = readExit(reader.string(), reader);
    this.#known.set(exit.containerId, exit);
    this.#listeners.tell(exit);
  }

  listen(listener: (exit: ShimExit) => void): void {
    this.#listeners.add(listener);
    for (const exit of this.#known.values()) queueMicrotask(() => listener(exit));
  }

  forget(containerId: string): void {
    this.#known.delete(containerId);
  }
}

function planError(plan: Uint8Array, refusal: ShimRefusal, explain: ExplainFailure): Error {
  if (refusal.kind === errorKinds.planFailed) {
    const failure = locateFailure(plan, refusal.step, refusal.errno, refusal.detail);
    return new PlanFailed(failure, explain(plan, failure));
  }
  const failure = locateFailure(plan, 0xffffffff, refusal.errno, 0);
  const message = `${refusal.what}: ${failure.errnoName}`;
  if (refusal.kind === errorKinds.exists) return new RuntimeError('already-exists', message);
  if (refusal.kind === errorKinds.notFound) return new RuntimeError('not-found', message);
  if (refusal.kind === errorKinds.wrongState) return new RuntimeError('wrong-state', message);
  return new RuntimeError('internal', message, { facts: { errno: failure.errnoName } });
}

const encodeStart = (request: StartRequest): readonly Uint8Array[] =>
  new PayloadWriter()
    .plan(request.plan)
    .string(request.containerId)
    .string(request.logPath)
    .u32(request.logLineBytes)
    .u8(
      (request.stdin ? flagBits.stdin : 0) |
        (request.stdinOnce ? flagBits.stdinOnce : 0) |
        (request.terminal ? flagBits.terminal : 0),
    )
    .string(request.oomFile)
    .string(request.cgroupDir ?? '').parts;

/** Kind 1 is a clamped value; newer shims may know more. */
function readWarnings(reader: PayloadReader, plan: Uint8Array): readonly string[] {
  return reader.list(() => {
    const step = nameOfStep(plan, reader.u32());
    const kind = reader.u32();
    const [wanted, got] = [reader.i64(), reader.i64()];
    return kind === 1 ? `${step}: asked for ${wanted}, ${got} is in force` : `${step}: warning ${kind}`;
  });
}

function nameOfStep(plan: Uint8Array, index: number): string {
  const { outer, inner } = decodePlan(plan);
  const step = [...outer, ...inner][index];
  return step === undefined ? `step ${index}` : stepName(step);
}

const readStarted = (reader: PayloadReader, plan: Uint8Array): StartedProcess => ({
  pid: reader.u32(),
  startTime: reader.u64(),
  startedAt: reader.u64(),
  warnings: readWarnings(reader, plan),
  stepNanos: reader.list(() => Number(reader.u64())),
});

const readExit = (containerId: string, reader: PayloadReader): ShimExit => ({
  containerId,
  code: reader.u32(),
  oomKilled: reader.u8() !== 0,
  finishedAt: reader.u64(),
});

function readState(reader: PayloadReader): ShimState {
  const version = reader.string();
  const pausePid = reader.u32();
  const containers = reader.list(() => {
    const containerId = reader.string();
    const facts = { pid: reader.u32(), startTime: reader.u64(), startedAt: reader.u64() };
    const droppedBytes = reader.u64();
    const exited = reader.u8() !== 0;
    const exit = readExit(containerId, reader);
    return { containerId, ...facts, droppedBytes, ...(exited ? { exit } : {}) };
  });
  return { version, pausePid, containers };
}

async function execSync(
  connection: ShimConnection,
  request: ExecSyncRequest,
  call: Call,
  onRefusal: (refusal: ShimRefusal) => Error,
): Promise<ExecSyncResult> {
  const output: { readonly stdout: Buffer[]; readonly stderr: Buffer[] } = { stdout: [], stderr: [] };
  const payload = new PayloadWriter()
    .plan(request.plan)
    .string(request.containerId)
    .u32(request.timeoutMs)
    .u32(request.drainMs)
    .u64(BigInt(request.limitBytes))
    .u8(0)
    .u16(0)
    .u16(0);
  const answer = await connection.request(frameTypes.exec, payload.parts, {
    signal: call.signal,
    onAbort: (id) => connection.tell(frameTypes.cancel, new PayloadWriter().u32(id).parts),
    onRefusal,
    onOutput: (stream, data) => output[stream === stdout ? 'stdout' : 'stderr'].push(data),
  });
  const exitCode = answer.u32();
  return {
    stdout: Buffer.concat(output.stdout),
    stderr: Buffer.concat(output.stderr),
    exitCode,
    timedOut: answer.u8() !== 0,
  };
}
