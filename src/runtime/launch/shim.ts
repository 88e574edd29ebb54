import type { Duplex } from 'node:stream';
import type { Call } from '../../kit/call.js';

/**
 * The agent's view of a pod's shim. One connection carries requests and answers as length-prefixed binary frames; the
 * wire format is described in `src/native/shim/PROTOCOL.md` and versioned in the first frame.
 */
export interface Shim {
  readonly sandboxId: string;
  readonly pid: number;
  /** Executes a sandbox plan. `pausePid` is 0 when the pod has no PID namespace of its own. */
  hold(plan: Uint8Array, call: Call): Promise<{ readonly pausePid: number; readonly warnings: readonly string[] }>;
  /** Executes a container plan; resolves when the program has been exec'ed, throws PlanFailed when a step failed. */
  start(request: StartRequest, call: Call): Promise<StartedProcess>;
  /** Executes a join plan, collects its output, resolves when it has ended. */
  execSync(request: ExecSyncRequest, call: Call): Promise<ExecSyncResult>;
  /**
   * Executes a join plan for somebody who sits at its streams, on a connection of its own; resolves when the program
   * has been exec'ed. When the connection ends, the program and its tree are killed.
   */
  exec(request: StreamedExecRequest, call: Call): Promise<ExecStreams>;
  /**
   * A TCP connection to 127.0.0.1, else ::1, as the pod sees them, half-open on either side. `unavailable` when nobody
   * listens there.
   */
  dial(port: number, call: Call): Promise<Duplex>;
  /** Sends a signal to a container's first process, or with `all` to every process of its cgroup. Gone is fine. */
  signal(containerId: string, signal: number, all: boolean): Promise<void>;
  /**
   * Joins the streams of a running container: output from now on (the log goes on), input when it was started with
   * stdin. One connection of its own; a slow reader loses output after a bound instead of blocking the container.
   */
  attach(containerId: string): Promise<AttachedStreams>;
  /** Sets the size of a container's terminal. */
  resize(containerId: string, rows: number, columns: number): Promise<void>;
  reopenLog(containerId: string): Promise<void>;
  /** Raw netlink messages, sent in the pod's network namespace; the raw answers. */
  netlink(messages: readonly Uint8Array[]): Promise<readonly Uint8Array[]>;
  state(): Promise<ShimState>;
  /** Forgets an exited container: closes its log, removes its exit record. Idempotent. */
  forget(containerId: string): Promise<void>;
  /** Resolves with each exit as it happens, also those that happened before the connection. */
  onExit(listener: (exit: ShimExit) => void): void;
  /** Called once when the connection ends although `shutdown` was not asked for. */
  onGone(listener: (reason: string) => void): void;
  /** Ends pause process and shim. Containers must be gone; they are killed otherwise. Idempotent. */
  shutdown(): Promise<void>;
  /** Leaves the shim running and closes the connection. */
  disconnect(): void;
}

export interface StartRequest {
  readonly containerId: string;
  readonly plan: Uint8Array;
  /** Absolute path of the CRI log, '' for none. */
  readonly logPath: string;
  /** Bytes of a log line before it is split with tag P. */
  readonly logLineBytes: number;
  readonly stdin: boolean;
  readonly stdinOnce: boolean;
  readonly terminal: boolean;
  /** Where OOM kills of this container are counted: memory.events (v2) or memory.oom_control (v1); '' for nowhere. */
  readonly oomFile: string;
  /** Directory of the container's cgroup (any hierarchy), whose processes `signal` with `all` means. */
  readonly cgroupDir?: string;
}

export interface AttachedStreams {
  onOutput(listener: (stream: 'stdout' | 'stderr', data: Uint8Array) => void): void;
  /** Takes no more output for now; what an attached container says meanwhile may be lost beyond a bound. */
  pause(): void;
  resume(): void;
  /** Resolves when the bytes were handed over; `end` closes the container's stdin when it was started stdinOnce. */
  write(data: Uint8Array): Promise<void>;
  end(): void;
  /** Resolves when the container has closed its output or the connection ended. */
  readonly ended: Promise<void>;
  close(): void;
}

export interface StreamedExecRequest {
  readonly containerId: string;
  readonly plan: Uint8Array;
  readonly stdin: boolean;
  readonly terminal: boolean;
  /** Milliseconds output may still come after the process has ended. */
  readonly drainMs: number;
}

/** The streams of one exec. While paused, the program waits once its pipes and 256 KiB are full. */
export interface ExecStreams extends Omit<AttachedStreams, 'ended'> {
  resize(rows: number, columns: number): Promise<void>;
  /** 0 to 255, 128 + signal; after all output was told. Rejects with `unavailable` when the connection ended before. */
  readonly exited: Promise<number>;
}

export interface StartedProcess {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat, clock ticks since boot: tells a reused pid apart. */
  readonly startTime: bigint;
  readonly startedAt: bigint;
  /** Clamped values and the like, in words. */
  readonly warnings: readonly string[];
  /** Nanoseconds spent per plan step, by step index of outer then inner. Empty when not measured. */
  readonly stepNanos: readonly number[];
}

export interface ExecSyncRequest {
  readonly containerId: string;
  readonly plan: Uint8Array;
  /** Milliseconds; 0 waits for ever. On expiry only the exec'ed process tree is killed. */
  readonly timeoutMs: number;
  /** Bytes kept per stream; the rest is read and dropped. */
  readonly limitBytes: number;
  /** Milliseconds output may still come after the process has ended. */
  readonly drainMs: number;
}

export interface ExecSyncResult {
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
  /** 0 to 255, 128 + signal when killed by one. */
  readonly exitCode: number;
  readonly timedOut: boolean;
}

export interface ShimExit {
  readonly containerId: string;
  /** 0 to 255, 128 + signal when killed by one. */
  readonly code: number;
  readonly oomKilled: boolean;
  readonly finishedAt: bigint;
}

export interface ShimState {
  readonly version: string;
  readonly pausePid: number;
  readonly containers: readonly {
    readonly containerId: string;
    readonly pid: number;
    readonly startTime: bigint;
    readonly startedAt: bigint;
    /** Bytes of output a failing disk has cost the log. */
    readonly droppedBytes?: bigint;
    readonly exit?: ShimExit;
  }[];
}
