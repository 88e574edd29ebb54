import { writeValue } from './key.js';
import { valueAt, type Config } from './load.js';
import { configKeys, type NamedKey } from './names.js';

/** The defaults as a commented TOML file: every key is there, commented out, below what it is for. */
export function defaultToml(): string {
  const head = [
    '# Berth’s configuration. Every key is shown with its default. Precedence: flag, environment, file.',
    '',
  ];
  return [...head, ...body((named) => `#${leaf(named)} = ${writeValue(named.key, named.key.default)}`)].join('\n');
}

/** The configuration in force as TOML. */
export function configToml(config: Config): string {
  return body((named) => `${leaf(named)} = ${writeValue(named.key, valueAt(config, named.path))}`, false).join('\n');
}

function body(line: (named: NamedKey) => string, comments = true): string[] {
  const lines: string[] = [];
  let section = '';
  for (const named of configKeys) {
    const own = named.name.split('.').slice(0, -1).join('.');
    if (own !== section) lines.push(...(lines.length > 0 ? [''] : []), `[${own}]`);
    section = own;
    if (comments) lines.push(...comment(named));
    lines.push(line(named));
  }
  return [...lines, ''];
}

const leaf = (named: NamedKey): string => named.name.split('.').at(-1) ?? '';

function comment({ key, env }: NamedKey): string[] {
  const values = key.choices === undefined ? '' : ` One of: ${key.choices.join(', ')}.`;
  const reload = key.reloadable ? ' Takes effect on SIGHUP.' : '';
  return [`# ${key.about}${values}${reload}`, `# Environment: ${env}`];
}
