/**
 * Writes the TypeScript of the wire contracts below api/, with buf and ts-proto, both local; no network is needed.
 *
 *   tsx scripts/generate-api.ts           write each contract's generated/
 *   tsx scripts/generate-api.ts --check   write nothing; exit 1 when what is there is stale
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(fileURLToPath(new URL('.', import.meta.url)), '..');
const bin = (name: string): string => join(root, 'node_modules/.bin', name);

/** A directory with proto files, and what is made of their services. */
interface Contract {
  readonly directory: string;
  readonly services: 'grpc-js' | 'generic-definitions';
}

const contracts: readonly Contract[] = [
  { directory: 'api/cri/v1', services: 'grpc-js' },
  { directory: 'api/nri/v1alpha1', services: 'generic-definitions' },
];

/** Enums as const objects, 64-bit numbers as bigint, no JSON code: domain values are what gets printed. */
const options = [
  'esModuleInterop=true',
  'importSuffix=.js',
  'env=node',
  'forceLong=bigint',
  'outputJsonMethods=false',
  'enumsAsLiterals=true',
  'unrecognizedEnum=false',
  'useExactTypes=false',
  'annotateFilesWithVersion=false',
  'comments=false',
];

const header = (source: string): string => `// Generated from ${source} by scripts/generate-api.ts; do not edit.\n`;

const generatedDirectory = ({ directory }: Contract): string => join(root, directory, 'generated');

function generateInto(output: string, { directory, services }: Contract): void {
  const template = {
    version: 'v2',
    plugins: [{ local: bin('protoc-gen-ts_proto'), out: output, opt: [...options, `outputServices=${services}`] }],
  };
  execFileSync(bin('buf'), ['generate', '.', '--template', JSON.stringify(template)], {
    cwd: join(root, directory),
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  for (const file of readdirSync(output)) {
    const path = join(output, file);
    writeFileSync(path, header(file.replace(/\.ts$/, '.proto')) + readFileSync(path, 'utf8'));
  }
}

const contentsOf = (directory: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(directory)
      .sort()
      .map((file) => [file, readFileSync(join(directory, file), 'utf8')]),
  );

function check(contract: Contract): boolean {
  const scratch = mkdtempSync(join(tmpdir(), 'berth-generate-'));
  try {
    generateInto(scratch, contract);
    return JSON.stringify(contentsOf(scratch)) === JSON.stringify(contentsOf(generatedDirectory(contract)));
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function write(contract: Contract): void {
  const directory = generatedDirectory(contract);
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  generateInto(directory, contract);
}

if (process.argv.includes('--check')) {
  for (const contract of contracts.filter((each) => !check(each))) {
    console.error(
      `${contract.directory}/generated is not what its proto files generate: run "npm run generate" and commit the result`,
    );
    process.exitCode = 1;
  }
} else {
  contracts.forEach(write);
}
