/**
 * Days of a node in minutes: execs, attaches and pods by the hundred, with crashes of the agent, and what the agent and
 * its pods hold on the host before, meanwhile and after. Exits 1 when something grows that should not.
 *
 *     npm run soak -- [--execs 10000] [--attaches 2000] [--pods 500] [--crash-chance 0.1] [--json build/soak.json]
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { startAgent } from '../support/agent.js';
import { growth, measuredEnvironment, type Growth, type Sample } from '../support/soak/measure.js';
import { soak } from '../support/soak/soak.js';
import { soakImage } from '../support/soak/work.js';
import { buildTestImage } from '../support/test-image.js';

const { values: flags } = parseArgs({
  options: {
    execs: { type: 'string', default: '10000' },
    attaches: { type: 'string', default: '2000' },
    pods: { type: 'string', default: '500' },
    'crash-chance': { type: 'string', default: '0.1' },
    samples: { type: 'string', default: '10' },
    json: { type: 'string', default: 'build/soak.json' },
  },
});
const numbers = {
  execs: Number(flags.execs),
  attaches: Number(flags.attaches),
  pods: Number(flags.pods),
  crashChance: Number(flags['crash-chance']),
  samples: Number(flags.samples),
};

async function main(): Promise<boolean> {
  const agent = await startAgent({ env: measuredEnvironment });
  let done = false;
  try {
    const { code, stderr } = await agent.berth(
      'image',
      'import',
      buildTestImage(join(agent.dir, 'i'), { name: soakImage }),
    );
    if (code !== 0) throw new Error(stderr);
    const { phases, crashes } = await soak(agent, numbers, progress);
    const tables = Object.entries(phases).map(([phase, samples]) => [phase, growth(samples)] as const);
    for (const [phase, table] of tables) process.stdout.write(`\n${show(phase, table)}\n`);
    process.stdout.write(`\nthe agent was killed ${crashes} times\n`);
    const machine = { cpus: cpus().length, kernel: release(), node: process.version };
    mkdirSync(dirname(flags.json), { recursive: true });
    writeFileSync(flags.json, JSON.stringify({ machine, numbers, crashes, phases }, undefined, 2));
    done = tables.every(([, table]) => table.every(fine));
  } finally {
    const log = agent.log();
    const left = await agent.close();
    if (left.length > 0) process.stderr.write(`left on the host:\n${left.join('\n')}\n${log.slice(-4000)}\n`);
    done &&= left.length === 0;
  }
  return done;
}

const mib = (bytes: number | undefined): string => `${((bytes ?? 0) / 2 ** 20).toFixed(1)} MiB`;

function progress(phase: string, sample: Sample): void {
  const { 'agent PSS bytes': pss, 'agent heap bytes': heap, 'agent descriptors': descriptors } = sample;
  process.stdout.write(`${phase}: agent ${mib(pss)}, heap ${mib(heap)}, ${descriptors} descriptors\n`);
}

const fine = ({ growth: by, allowed }: Growth): boolean => by <= allowed;

function show(phase: string, table: readonly Growth[]): string {
  const figure = (name: string, value: number): string =>
    (name.endsWith('bytes') ? `${(value / 1024).toFixed(0)} KiB` : String(value)).padStart(14);
  const lines = table.map((row) => {
    const { name, first, last, growth: by } = row;
    const verdict = fine(row) ? '' : '  GROWS';
    return `${name.padEnd(20)} ${figure(name, first)} ${figure(name, last)} ${figure(name, by)}${verdict}`;
  });
  return [
    `${phase.padEnd(20)} ${['first', 'last', 'growth'].map((word) => word.padStart(14)).join(' ')}`,
    ...lines,
  ].join('\n');
}

process.exitCode = (await main()) ? 0 : 1;
