import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TestAgent } from '../agent.js';
import { measure, settled, type Sample } from './measure.js';
import { Crashes, attachOnce, execOnce, inParallel, podOnce, runPod, shimOf } from './work.js';

export interface SoakNumbers {
  readonly execs: number;
  readonly attaches: number;
  readonly pods: number;
  /** Chance of a crash of the agent while a pod is made. */
  readonly crashChance: number;
  /** Samples per kind of work. */
  readonly samples: number;
}

/** Samples by kind of work, taken while nothing was asked; the first after a warm-up of one part more. */
export interface SoakResult {
  readonly phases: Readonly<Record<string, readonly Sample[]>>;
  readonly crashes: number;
}

/** As many at once as a node's kubelet has. */
const width = 4;

/** Runs the three kinds of work one after the other, beside one pod that lives through all of it. */
export async function soak(
  agent: TestAgent,
  numbers: SoakNumbers,
  tell: (phase: string, sample: Sample) => void = () => undefined,
): Promise<SoakResult> {
  const script = 'while read line; do echo "got $line"; done';
  const { sandbox, container } = await runPod(agent, 'living', script);
  const shimPid = await shimOf(agent, sandbox);
  const crashes = new Crashes(agent);
  const phases: Record<string, Sample[]> = {};
  const phase = async (name: string, count: number, work: (index: number) => Promise<void>): Promise<void> => {
    const samples = (phases[name] = []) as Sample[];
    const part = Math.ceil(count / numbers.samples);
    for (let at = -part; at < count; at += part) {
      await inParallel(part, width, (index) => work(at + part + index));
      await crashes.back();
      await settled(agent);
      await agent.cri.runtime.listPodSandboxStats(); // which keeps files of the living pod open
      samples.push(await measure(agent, shimPid));
      tell(name, samples.at(-1) ?? {});
    }
  };
  await phase('execs', numbers.execs, (index) => execOnce(agent, container, index));
  await phase('attaches', numbers.attaches, (index) => attachOnce(agent, container, index));
  await phase('pods and crashes', numbers.pods, async (index) => {
    const doomed = Math.random() < numbers.crashChance;
    const crash = doomed ? sleep(randomInt(0, 100)).then(() => crashes.crash()) : undefined;
    await Promise.all([podOnce(agent, crashes, index), crash]);
  });
  return { phases, crashes: crashes.count };
}
