import { spawn, type ChildProcess } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TestImageParts } from './test-image.js';

/** A real registry (Debian's docker-registry) on a loopback port, with everything it keeps in a directory of its own. */
export interface TestRegistry {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  readonly url: string;
  /** Uploads an image as the Distribution API wants it, and gives the manifest's digest. */
  push(repository: string, tag: string, image: TestImageParts): Promise<string>;
  putManifest(repository: string, tag: string, mediaType: string, body: Buffer): Promise<string>;
  putBlob(repository: string, digest: string, bytes: Buffer): Promise<void>;
  close(): Promise<void>;
}

export interface TestRegistryOptions {
  /** Wants `registryLogin` for everything, by HTTP Basic. */
  readonly basic?: boolean;
}

export const registryLogin = { username: 'me', password: 's:ecret' };
/** The same as htpasswd writes it; bcrypt is all the registry takes. */
const htpasswdLine = 'me:$2y$05$Z6BapD8XSVRoGfN2wwM4cuVLCqxwd3bUBVZ6uUw69td6Ejn7vrBda';

export async function startRegistry(options: TestRegistryOptions = {}): Promise<TestRegistry> {
  const dir = mkdtempSync(join(tmpdir(), 'berth-registry-'));
  const port = await freePort();
  const host = `127.0.0.1:${port}`;
  const config = join(dir, 'config.yml');
  writeFileSync(config, configuration(dir, host, options));
  const child = spawn('docker-registry', ['serve', config], { stdio: 'ignore' });
  const headers: Record<string, string> = {};
  if (options.basic === true) {
    const { username, password } = registryLogin;
    headers['authorization'] = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
  }
  const url = `http://${host}`;
  await waitUntilUp(url, child);

  const putBlob = async (repository: string, digest: string, bytes: Buffer): Promise<void> => {
    const start = await fetch(`${url}/v2/${repository}/blobs/uploads/`, { method: 'POST', headers });
    const location = new URL(start.headers.get('location') ?? '', url);
    location.searchParams.set('digest', digest);
    const type = { 'content-type': 'application/octet-stream' };
    await expectStatus(await fetch(location, { method: 'PUT', headers: { ...headers, ...type }, body: bytes }), 201);
  };
  const putManifest = async (repository: string, tag: string, mediaType: string, body: Buffer): Promise<string> => {
    const target = `${url}/v2/${repository}/manifests/${tag}`;
    const type = { 'content-type': mediaType };
    const answer = await fetch(target, { method: 'PUT', headers: { ...headers, ...type }, body });
    await expectStatus(answer, 201);
    return answer.headers.get('docker-content-digest') ?? '';
  };
  return {
    host,
    url,
    putBlob,
    putManifest,
    async push(repository, tag, image) {
      for (const [digest, bytes] of image.blobs) {
        if (digest !== image.manifest.digest) await putBlob(repository, digest, bytes);
      }
      const manifest = image.blobs.get(image.manifest.digest) ?? Buffer.alloc(0);
      return await putManifest(repository, tag, image.manifest.mediaType, manifest);
    },
    async close() {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      if (child.exitCode === null) {
        child.kill();
        await gone;
      }
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

function configuration(dir: string, host: string, options: TestRegistryOptions): string {
  mkdirSync(join(dir, 'data'));
  const lines = [
    'version: 0.1',
    'log: { level: error, accesslog: { disabled: true } }',
    `storage: { filesystem: { rootdirectory: ${join(dir, 'data')} }, delete: { enabled: true } }`,
    `http: { addr: "${host}" }`,
  ];
  if (options.basic === true) {
    const file = join(dir, 'htpasswd');
    writeFileSync(file, `${htpasswdLine}\n`);
    lines.push(`auth: { htpasswd: { realm: test, path: ${file} } }`);
  }
  return `${lines.join('\n')}\n`;
}

export async function freePort(): Promise<number> {
  return await new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject).listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}

async function waitUntilUp(url: string, child: ChildProcess): Promise<void> {
  for (let i = 0; i < 400; i++) {
    if (child.exitCode !== null) throw new Error(`docker-registry ended with status ${child.exitCode}`);
    const answer = await fetch(`${url}/v2/`).catch(() => undefined);
    if (answer !== undefined) return;
    await sleep(25);
  }
  child.kill();
  throw new Error('docker-registry does not answer');
}

async function expectStatus(answer: Response, status: number): Promise<void> {
  if (answer.status === status) return void (await answer.arrayBuffer());
  throw new Error(`${answer.url}: status ${answer.status}: ${(await answer.text()).slice(0, 500)}`);
}
