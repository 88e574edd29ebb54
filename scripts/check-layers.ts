/**
 * Refuses imports that cross the layers of docs/ARCHITECTURE.md, impure code in the pure core, a second place that
 * loads koffi, and import cycles. Prints `file:line: reason`, exits 1 when there is any.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

/** A layer may import itself, `may`, and as `import type` also `types`. The first layer whose pattern matches wins. */
interface Layer {
  readonly name: string;
  readonly files: RegExp;
  readonly may: readonly string[];
  readonly types?: readonly string[];
  /** Of its own layer it may import other folders' types only: `src/runtime/images` does not call `src/runtime/network`. */
  readonly apart?: boolean;
  /** No I/O, clock, randomness or process; node modules only from `pureModules`. */
  readonly pure?: boolean;
}

const layers: readonly Layer[] = [
  { name: 'test', files: /\.test\.ts$|^test\/|^scripts\/|^examples\//, may: ['*'] },
  { name: 'main', files: /^src\/main\.ts$|^src\/compose\//, may: ['*'] },
  { name: 'errors', files: /^src\/kit\/errors\.ts$/, may: [], pure: true },
  { name: 'kit', files: /^src\/kit\//, may: ['errors'] },
  { name: 'config', files: /^src\/config(\.ts$|\/)/, may: ['kit', 'errors'] },
  { name: 'generated', files: /^api\//, may: [] },
  { name: 'native', files: /^src\/native\//, may: ['kit', 'errors'] },
  {
    name: 'core',
    files:
      /^src\/runtime\/((model|usage)\.ts$|spec\/|plan\/|idmap\/mapping\.ts$|images\/(reference|manifest|media-types)\.ts$|logs\/format\.ts$)/,
    may: ['errors'],
    pure: true,
  },
  { name: 'facade', files: /^src\/runtime\/facade\.ts$/, may: ['core', 'errors'], types: ['kit'] },
  // What requests are made of: records of types that name parts without importing them.
  {
    name: 'contract',
    files: /^src\/runtime\/(parts|settings|lifecycle)\.ts$/,
    may: ['core', 'errors'],
    types: ['part', 'story', 'native', 'kit', 'facade'],
  },
  {
    name: 'story',
    files: /^src\/runtime\/([a-z-]+\.ts$|sandbox\/|containers\/|images\/(images|pull|import)\.ts$)/,
    may: ['contract', 'part', 'core', 'facade', 'kit', 'errors'],
    types: ['native', 'config'],
  },
  {
    name: 'part',
    files: /^src\/runtime\/(images|snapshots|network|cgroups|cdi|selinux|checkpoint|logs|state|launch|idmap)\//,
    may: ['core', 'kit', 'errors'],
    types: ['native', 'facade', 'contract', 'part'],
    apart: true,
  },
  { name: 'observe', files: /^src\/observe\//, may: ['kit', 'errors'], types: ['config', 'facade'] },
  { name: 'cri', files: /^src\/cri\//, may: ['facade', 'core', 'kit', 'errors', 'generated'], types: ['config'] },
  {
    name: 'nri',
    files: /^src\/nri\//,
    may: ['facade', 'core', 'kit', 'errors', 'generated'],
    types: ['config', 'contract', 'part'],
  },
  { name: 'kube', files: /^src\/kube\//, may: ['facade', 'core', 'kit', 'errors'], types: ['config'] },
  {
    name: 'cli',
    files: /^src\/cli\//,
    may: ['facade', 'core', 'kit', 'errors', 'config', 'generated', 'observe'],
  },
];

const koffiHome = 'src/native/library.ts';
/** Node modules of the pure core, each with the names it may take from there; none listed means all. */
const pureModules: Readonly<Record<string, readonly string[]>> = {
  'node:path': [],
  'node:util': [],
  'node:buffer': [],
  'node:crypto': ['createHash'],
  'node:os': ['constants'],
};
const impureGlobals = new Set(['Date', 'process', 'performance', 'setTimeout', 'setInterval', 'setImmediate', 'fetch']);
const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');

interface Import {
  readonly specifier: string;
  readonly typeOnly: boolean;
  readonly line: number;
  readonly names: readonly string[];
}

const problems: string[] = [];
const report = (file: string, line: number, text: string): void => void problems.push(`${file}:${line}: ${text}`);

function sources(dir: string): string[] {
  if (!existsSync(join(root, dir))) return [];
  return readdirSync(join(root, dir), { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) return entry.name === 'node_modules' ? [] : sources(path);
    return /\.ts$/.test(entry.name) ? [path] : [];
  });
}

const parse = (file: string): ts.SourceFile =>
  ts.createSourceFile(file, readFileSync(join(root, file), 'utf8'), ts.ScriptTarget.ES2022, true);

const lineOf = (source: ts.SourceFile, node: ts.Node): number =>
  source.getLineAndCharacterOfPosition(node.getStart()).line + 1;

function importsOf(source: ts.SourceFile): Import[] {
  const found: Import[] = [];
  const add = (node: ts.Node, specifier: ts.Node | undefined, typeOnly: boolean, names: readonly string[]): void => {
    if (specifier === undefined || !ts.isStringLiteral(specifier)) return;
    found.push({ specifier: specifier.text, typeOnly, line: lineOf(source, node), names });
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) add(node, node.moduleSpecifier, isTypeOnly(node), namesOf(node));
    else if (ts.isExportDeclaration(node)) add(node, node.moduleSpecifier, node.isTypeOnly, []);
    else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument))
      add(node, node.argument.literal, true, []);
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword)
      add(node, node.arguments[0], false, []);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

function isTypeOnly(node: ts.ImportDeclaration): boolean {
  const clause = node.importClause;
  if (clause === undefined) return false;
  if (clause.isTypeOnly) return true;
  const bindings = clause.namedBindings;
  if (clause.name !== undefined || bindings === undefined || !ts.isNamedImports(bindings)) return false;
  return bindings.elements.length > 0 && bindings.elements.every((element) => element.isTypeOnly);
}

function namesOf(node: ts.ImportDeclaration): readonly string[] {
  const bindings = node.importClause?.namedBindings;
  if (bindings === undefined || !ts.isNamedImports(bindings)) return [];
  return bindings.elements.map((element) => (element.propertyName ?? element.name).text);
}

const layerOf = (file: string): Layer | undefined => layers.find((layer) => layer.files.test(file));

function checkImport(file: string, layer: Layer, found: Import): string | undefined {
  if (!found.specifier.startsWith('.')) return checkPackage(file, layer, found);
  const target = relative(root, resolve(root, dirname(file), found.specifier)).replace(/\.js$/, '.ts');
  if (!target.endsWith('.ts')) return undefined;
  const to = layerOf(target);
  if (to === undefined) return void report(file, found.line, `${target} is in no layer of scripts/check-layers.ts`);
  if (!allowed(layer, to, file, target, found.typeOnly))
    report(file, found.line, `${layer.name} may not import ${found.typeOnly ? 'types of ' : ''}${to.name} (${target})`);
  return target;
}

function allowed(from: Layer, to: Layer, file: string, target: string, typeOnly: boolean): boolean {
  if (from.may.includes('*') || from.may.includes(to.name)) return true;
  const own = from === to && (from.apart !== true || dirname(file).split('/')[2] === dirname(target).split('/')[2]);
  if (own) return true;
  return typeOnly && (from.types ?? []).includes(to.name);
}

function checkPackage(file: string, layer: Layer, found: Import): undefined {
  if (found.specifier === 'koffi' && file !== koffiHome) report(file, found.line, `only ${koffiHome} may import koffi`);
  if (layer.pure !== true || found.typeOnly) return;
  const pure = pureModules[found.specifier];
  if (pure === undefined) return void report(file, found.line, `the pure core may not import ${found.specifier}`);
  for (const name of found.names.filter((each) => pure.length > 0 && !pure.includes(each)))
    report(file, found.line, `the pure core may not use ${name} of ${found.specifier}`);
}

function checkPurity(file: string, source: ts.SourceFile): void {
  const own = declaredNames(source);
  const visit = (node: ts.Node): void => {
    if (ts.isIdentifier(node) && impureGlobals.has(node.text) && !own.has(node.text) && isValueUse(node))
      report(file, lineOf(source, node), `the pure core may not use ${node.text}`);
    if (ts.isPropertyAccessExpression(node) && node.getText(source) === 'Math.random')
      report(file, lineOf(source, node), 'the pure core may not use Math.random');
    ts.forEachChild(node, visit);
  };
  visit(source);
}

/** Names of parameters and variables: a spec's `process` is not Node's. */
function declaredNames(source: ts.SourceFile): ReadonlySet<string> {
  const names = new Set<string>();
  const visit = (node: ts.Node): void => {
    const declares = ts.isParameter(node) || ts.isVariableDeclaration(node) || ts.isBindingElement(node);
    if (declares && ts.isIdentifier(node.name)) names.add(node.name.text);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return names;
}

/** False for property names, keys and types that merely share a global's name. */
function isValueUse(node: ts.Identifier): boolean {
  const { parent } = node;
  if (ts.isPropertyAccessExpression(parent)) return parent.expression === node;
  if (ts.isCallExpression(parent) || ts.isNewExpression(parent)) return true;
  return ts.isBinaryExpression(parent) || ts.isElementAccessExpression(parent) || ts.isVariableDeclaration(parent)
    ? !('name' in parent && parent.name === node)
    : false;
}

function reportCycles(graph: ReadonlyMap<string, readonly string[]>): void {
  const state = new Map<string, 'open' | 'done'>();
  const path: string[] = [];
  const visit = (file: string): void => {
    if (state.get(file) === 'done') return;
    if (state.get(file) === 'open') {
      report(file, 1, `import cycle: ${[...path.slice(path.indexOf(file)), file].join(' → ')}`);
      return;
    }
    state.set(file, 'open');
    path.push(file);
    for (const next of graph.get(file) ?? []) visit(next);
    path.pop();
    state.set(file, 'done');
  };
  for (const file of graph.keys()) visit(file);
}

function main(): void {
  const graph = new Map<string, string[]>();
  const files = ['src', 'api', 'test', 'scripts', 'examples'].flatMap(sources);
  for (const file of files) {
    const layer = layerOf(file);
    if (layer === undefined) {
      report(file, 1, 'is in no layer of scripts/check-layers.ts');
      continue;
    }
    const source = parse(file);
    const targets = importsOf(source).map((found) => checkImport(file, layer, found));
    graph.set(file, [...new Set(targets.filter((target) => target !== undefined))]);
    if (layer.pure === true) checkPurity(file, source);
  }
  reportCycles(graph);
  for (const problem of problems) console.error(problem);
  console.log(`layers: ${files.length} files, ${problems.length} problems`);
  process.exitCode = problems.length > 0 ? 1 : 0;
}

main();
