/**
 * Writes the TypeScript of the CRI from api/cri/v1/api.proto, with buf and ts-proto, both local; no network is needed.
 *
 *   tsx scripts/generate-cri.ts           write api/cri/v1/generated/
 *   tsx scripts/generate-cri.ts --check   write nothing; exit 1 when what is there is stale
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(fileURLToPath(new URL('.', import.meta.url)), '..');
const protoDirectory = join(root, 'api/cri/v1');
const generatedDirectory = join(protoDirectory, 'generated');
const bin = (name: string): string => join(root, 'node_modules/.bin', name);

/** Enums as const objects, 64-bit numbers as bigint, no JSON code: domain values are what gets printed. */
const options = [
  'esModuleInterop=true',
  'importSuffix=.js',
  'env=node',
  'forceLong=bigint',
  'outputServices=grpc-js',
  'outputJsonMethods=false',
  'enumsAsLiterals=true',
  'unrecognizedEnum=false',
  'useExactTypes=false',
  'annotateFilesWithVersion=false',
  'comments=false',
];

const header = '// Generated from api.proto by scripts/generate-cri.ts; do not edit.\n';

function generateInto(directory: string): void {
  const template = {
    version: 'v2',
    plugins: [{ local: bin('protoc-gen-ts_proto'), out: directory, opt: options }],
  };
  execFileSync(bin('buf'), ['generate', '.', '--template', JSON.stringify(template)], {
    cwd: protoDirectory,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  for (const file of readdirSync(directory)) {
    const path = join(directory, file);
    writeFileSync(path, header + readFileSync(path, 'utf8'));
  }
}

const contentsOf = (directory: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(directory)
      .sort()
      .map((file) => [file, readFileSync(join(directory, file), 'utf8')]),
  );

function check(): boolean {
  const scratch = mkdtempSync(join(tmpdir(), 'berth-generate-'));
  try {
    generateInto(scratch);
    return JSON.stringify(contentsOf(scratch)) === JSON.stringify(contentsOf(generatedDirectory));
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

if (process.argv.includes('--check')) {
  if (!check()) {
    console.error('api/cri/v1/generated is not what api.proto generates: run "npm run generate" and commit the result');
    process.exit(1);
  }
} else {
  rmSync(generatedDirectory, { recursive: true, force: true });
  mkdirSync(generatedDirectory, { recursive: true });
  generateInto(generatedDirectory);
}
