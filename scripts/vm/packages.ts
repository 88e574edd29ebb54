import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

interface Lock {
  readonly packages: Readonly<Record<string, { dependencies?: Readonly<Record<string, string>> }>>;
}

/** Not needed by what runs in the machine, and a third of all. */
const leftOut = ['@kubernetes/client-node', '@opentelemetry/sdk-node'];

/** Paths (`node_modules/x`) of the run-time dependencies and mocha with all they depend on, by package-lock.json. */
export function neededPackages(project: string): string[] {
  const lock = JSON.parse(readFileSync(join(project, 'package-lock.json'), 'utf8')) as Lock;
  const direct = Object.keys(lock.packages['']?.dependencies ?? {}).filter((name) => !leftOut.includes(name));
  const found = new Set<string>();
  const visit = (name: string, from: string): void => {
    const path = resolve(lock, name, from);
    if (path === undefined || found.has(path) || !existsSync(join(project, path))) return;
    found.add(path);
    const entry = lock.packages[path] as Record<string, Readonly<Record<string, string>> | undefined>;
    const needs = { ...entry['dependencies'], ...entry['optionalDependencies'] };
    for (const needed of Object.keys(needs)) visit(needed, path);
  };
  for (const name of [...direct, 'mocha']) visit(name, '');
  // A package below another comes along with it.
  const paths = [...found].sort();
  return paths.filter((path) => !paths.some((other) => path.startsWith(`${other}/`)));
}

/** As Node looks packages up: nearest node_modules first. */
function resolve(lock: Lock, name: string, from: string): string | undefined {
  for (let dir = from; ; dir = dir.slice(0, Math.max(dir.lastIndexOf('/node_modules/'), 0))) {
    const path = dir === '' ? `node_modules/${name}` : `${dir}/node_modules/${name}`;
    if (path in lock.packages) return path;
    if (dir === '') return undefined;
  }
}
