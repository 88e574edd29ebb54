import { execFileSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Copies a program of this machine with the libraries it is linked to, each to the same path below `root`. */
export function copyProgram(program: string, root: string, as = program): void {
  copyFile(realpathSync(program), join(root, as));
  for (const library of librariesOf(program)) copyFile(realpathSync(library), join(root, library));
}

export function copyFile(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  // A link left at the destination must be replaced, never written through.
  rmSync(to, { force: true });
  cpSync(from, to);
}

/** Empty for a static program, of which ldd says so with a non-zero exit. */
function librariesOf(program: string): string[] {
  try {
    const text = execFileSync('ldd', [program], { stdio: ['ignore', 'pipe', 'ignore'] }).toString();
    return [...text.matchAll(/(?:=> )?(\/\S+) \(0x/g)].map(([, path]) => path ?? '');
  } catch {
    return [];
  }
}

export function writeText(path: string, text: string, mode = 0o644): void {
  mkdirSync(dirname(path), { recursive: true });
  rmSync(path, { force: true });
  writeFileSync(path, text);
  chmodSync(path, mode);
}
