import { messageOf } from '../../kit/errors.js';
import type { Orphan } from '../../runtime/facade.js';
import { expectPositionals, type Command } from '../command.js';
import type { Context } from '../context.js';
import { checkHost } from '../doctor/checks.js';
import type { Finding } from '../doctor/finding.js';
import { formatJson, renderTable } from '../text.js';

export const doctor: Command = {
  usage: '[flags]',
  about: [
    'Says what the host lacks, and lists what is left over on it in Berth’s name and belongs to no pod.',
    'Exits 1 when something needed is missing or something is left over.',
  ].join('\n'),
  options: {
    clean: { about: 'remove what is left over' },
    json: { about: 'as JSON' },
  },
  async run(context, args) {
    expectPositionals(args);
    const findings = checkHost(context.config, context.composition.rootless);
    const { orphans, problem } = await findOrphans(context, args.has('clean'));
    const failed = findings.some(({ level }) => level === 'missing') || orphans.length > 0 || problem !== undefined;
    if (args.has('json')) context.stdout.write(formatJson({ findings, orphans, problem }));
    else context.stdout.write(report(findings, orphans, problem));
    return failed ? 1 : 0;
  },
};

interface Found {
  readonly orphans: readonly Orphan[];
  readonly problem?: string;
}

async function findOrphans(context: Context, clean: boolean): Promise<Found> {
  try {
    const client = await context.connect();
    return { orphans: clean ? await client.maintenance.clean(context.call()) : await client.maintenance.orphans() };
  } catch (error) {
    return { orphans: [], problem: `cannot look for leftovers: ${messageOf(error)}` };
  }
}

const words: Readonly<Record<Finding['level'], string>> = { ok: 'ok', note: 'note', missing: 'MISSING' };

function report(findings: readonly Finding[], orphans: readonly Orphan[], problem: string | undefined): string {
  const host = renderTable(
    ['HOST', '', ''],
    findings.map(({ level, what, about }) => [words[level], what, about]),
  );
  if (problem !== undefined) return `${host}\n${problem}\n`;
  if (orphans.length === 0) return `${host}\nNothing is left over.\n`;
  const rows = orphans.map(({ kind, target, reason }) => [kind, target, reason]);
  return `${host}\n${renderTable(['LEFT OVER', '', ''], rows)}`;
}
