import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { createInterface } from 'node:readline';
import type { BaseDisk } from './base-disk.js';
import type { Kernel } from './kernel.js';

export interface Machine {
  readonly kernel: Kernel;
  readonly base: BaseDisk;
  readonly app: string;
  /** Where the disk's changes go while the machine runs. */
  readonly temporary: string;
}

/** What the reporter in the machine says, a line each. */
export interface VmEvent {
  readonly passed?: readonly string[];
  readonly failed?: readonly string[];
  readonly skipped?: readonly string[];
  readonly ms?: number;
  readonly error?: string;
  readonly exit?: number;
}

const qemu = 'qemu-system-x86_64';

/** Emulated processors, so that it runs where there is no KVM; the base disk is never changed (snapshot=on). */
function commandLine({ kernel, base, app }: Machine): string[] {
  const drive = (file: string, options: string): string[] => ['-drive', `file=${file},format=raw,if=virtio,${options}`];
  return [
    ...['-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '2', '-m', '2048'],
    ...['-display', 'none', '-monitor', 'none', '-serial', 'stdio', '-nic', 'none', '-no-reboot'],
    ...['-kernel', kernel.image, '-initrd', base.initramfs],
    // panic=-1 reboots at once, which -no-reboot turns into the end.
    ...['-append', 'console=ttyS0 quiet panic=-1 psi=1 random.trust_cpu=on mitigations=off'],
    ...drive(base.disk, 'snapshot=on'),
    ...drive(app, 'snapshot=on'),
  ];
}

/** Boots the machine and gives each event to `onEvent`; everything else goes to `log`. Ended by force after `timeoutMs` without an event. Ends when it powers off. */
export async function runMachine(
  machine: Machine,
  log: string,
  timeoutMs: number,
  onEvent: (event: VmEvent) => void,
): Promise<void> {
  const output = createWriteStream(log);
  const child = spawn(qemu, commandLine(machine), {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, TMPDIR: machine.temporary },
  });
  const timer = setTimeout(() => {
    console.error(`The test machine reported nothing for ${timeoutMs / 1000} s; its console is in ${log}`);
    child.kill('SIGKILL');
  }, timeoutMs);
  const stop = (): void => void child.kill('SIGKILL');
  const interrupted = (): void => process.exit(130);
  process.once('exit', stop).once('SIGTERM', interrupted).once('SIGINT', interrupted);
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      output.write(`${line}\n`);
      const event = eventOf(line);
      if (event === undefined) continue;
      timer.refresh();
      onEvent(event);
    }
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  } finally {
    clearTimeout(timer);
    process.off('exit', stop).off('SIGTERM', interrupted).off('SIGINT', interrupted);
    output.end();
  }
}

/** The console may put a kernel message in front of a line. */
function eventOf(line: string): VmEvent | undefined {
  const start = line.indexOf('@@ {');
  if (start < 0) return undefined;
  try {
    return JSON.parse(line.slice(start + 3)) as VmEvent;
  } catch {
    return undefined;
  }
}

/** The same machine with a shell on this terminal. */
export async function runShell(machine: Machine): Promise<void> {
  const env = { ...process.env, TMPDIR: machine.temporary };
  const child = spawn(qemu, commandLine(machine), { stdio: 'inherit', env });
  await once(child, 'exit');
}
