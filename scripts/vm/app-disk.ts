import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { copyFile, writeText } from './files.js';

export interface AppDisk {
  readonly project: string;
  /** Archive to write; the machine unpacks it from its second disk. */
  readonly archive: string;
  /** Paths or globs, relative to the project. */
  readonly specs: readonly string[];
  readonly modules: readonly string[];
  readonly shell: boolean;
}

/** Native programs that tests start, made by `npm run build` and by `prepare`. */
const built = [
  'build/shim/berth-shim',
  'build/unpack/berth-unpack',
  'build/remap/berth-remap',
  'build/test-exec-tool/exec-tool',
  'build/test-facts/facts',
  'build/test-attacks/attacks',
];

/**
 * The machine has no compiler, and needs none: programs come built and newer than their sources, and its `make`
 * believes so.
 */
function prepare(project: string): void {
  const script = [
    "import { execTool } from './test/support/plan/exec-tool.ts';",
    "import { attacksProgram, factsProgram } from './test/support/userns.ts';",
    'execTool(); factsProgram(); attacksProgram();',
  ].join('\n');
  execFileSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], { cwd: project });
}

function copyBuilt(from: string, to: string): void {
  if (!existsSync(from)) return;
  copyFile(from, to);
  // An archive keeps whole seconds; a minute ahead is newer than every source, whatever it was rounded to.
  const later = Date.now() / 1000 + 60;
  utimesSync(to, later, later);
}

/** The working tree as it is, each TypeScript file turned into JavaScript in its own place. */
export function makeAppDisk({ project, archive, specs, modules, shell }: AppDisk): string[] {
  const stage = `${archive}.d`;
  rmSync(stage, { recursive: true, force: true });
  prepare(project);
  const files = listFiles(project);
  for (const file of files) {
    if (/(?<!\.d)\.ts$/.test(file)) writeText(join(stage, file.replace(/ts$/, 'js')), transpile(join(project, file)));
    else copyFile(join(project, file), join(stage, file));
  }
  for (const file of built) copyBuilt(join(project, file), join(stage, file));
  const chosen = chooseSpecs(files, specs);
  writeText(join(stage, 'vm/specs'), `${chosen.map((file) => file.replace(/ts$/, 'js')).join('\n')}\n`);
  writeText(join(stage, 'vm/modules'), `${modules.join('\n')}\n`);
  if (shell) writeText(join(stage, 'vm/shell'), '');
  execFileSync('tar', ['-c', '-f', archive, '--owner=0', '--group=0', '-C', stage, '.']);
  rmSync(stage, { recursive: true });
  return chosen;
}

function listFiles(project: string): string[] {
  const arguments_ = ['ls-files', '-co', '--exclude-standard', 'src', 'api', 'test', 'bin', 'scripts', 'package.json'];
  const listed = execFileSync('git', arguments_, { cwd: project, maxBuffer: 1 << 26 }).toString();
  return listed.split('\n').filter((file) => file !== '' && existsSync(join(project, file)));
}

const transpile = (path: string): string =>
  ts.transpileModule(readFileSync(path, 'utf8'), {
    fileName: path,
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true },
  }).outputText;

/** A pattern that matches nothing is a mistake worth an error: its tests would silently not run. */
function chooseSpecs(files: readonly string[], patterns: readonly string[]): string[] {
  const chosen = patterns.flatMap((pattern) => {
    const matching = files.filter((file) => globPattern(pattern).test(file));
    if (matching.length === 0) throw new Error(`no spec matches ${pattern}`);
    return matching;
  });
  return [...new Set(chosen)].sort();
}

/** `*` within a directory, `**` across directories. */
function globPattern(pattern: string): RegExp {
  const escaped = pattern.replace(/[.+^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`^${escaped.replace(/\*\*\/|\*/g, (star) => (star === '*' ? '[^/]*' : '(?:.*/)?'))}$`);
}
