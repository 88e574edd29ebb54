import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { silentObserver } from '../../kit/observer.js';
import type { Runtime } from '../../runtime/facade.js';
import { selfSigned } from './self-signed.js';
import { serveStreaming } from './server.js';
import { tlsFiles, type TlsSource } from './tls.js';

const now = new Date('2026-06-01T12:00:00Z');

describe('streaming TLS', () => {
  let dir: string;
  before(() => (dir = mkdtempSync(join(tmpdir(), 'berth-tls-'))));
  after(() => rmSync(dir, { recursive: true }));

  for (const [host, shown] of [
    ['127.0.0.1', 'IP Address:127.0.0.1'],
    ['fd00::1:2', 'IP Address:FD00:0:0:0:0:0:1:2'],
    ['node.example', 'DNS:node.example'],
  ] as const) {
    it(`signs a certificate of its own for ${host}`, () => {
      const { cert } = selfSigned(host, now);
      const certificate = new X509Certificate(cert);
      assert.equal(certificate.subjectAltName, shown);
      assert.ok(certificate.verify(certificate.publicKey));
      assert.equal(new Date(certificate.validFrom).getTime(), now.getTime());
    });
  }

  it('serves files, and what they are renewed to', async () => {
    const [certFile, keyFile] = [join(dir, 'cert.pem'), join(dir, 'key.pem')];
    const write = (seconds: number): string => {
      const { cert, key } = selfSigned('127.0.0.1', new Date());
      for (const [path, text] of [
        [certFile, cert],
        [keyFile, key],
      ] as const) {
        writeFileSync(path, text);
        utimesSync(path, seconds, seconds);
      }
      return new X509Certificate(cert).fingerprint256;
    };
    const first = write(1000);
    const server = await serve(tlsFiles(certFile, keyFile));
    try {
      assert.equal(await fingerprint(server.url()), first);
      const second = write(2000);
      assert.equal(await fingerprint(server.url()), second);
      writeFileSync(certFile, 'broken');
      assert.equal(await fingerprint(server.url()), second);
    } finally {
      await server.close();
    }
  });

  it('says which file it cannot read at its start', () => {
    assert.throws(() => tlsFiles(join(dir, 'none'), join(dir, 'none')).load(), /streaming certificate: .*none/);
  });
});

async function serve(tls: TlsSource) {
  const server = await serveStreaming({
    runtime: {} as Runtime,
    address: '127.0.0.1',
    port: 0,
    idleTimeoutMs: 10_000,
    creationTimeoutMs: 1000,
    tls,
    watch: () => ({ observer: silentObserver, end: () => undefined }),
  });
  const url = (): string => server.urlFor({ kind: 'portforward', sandboxId: 'x', ports: [] });
  return { url, close: () => server.close() };
}

function fingerprint(url: string): Promise<string> {
  assert.match(url, /^https:/);
  return new Promise((resolve, reject) => {
    const sent = request(url, { rejectUnauthorized: false, agent: false }, (response) => {
      resolve((response.socket as TLSSocket).getPeerCertificate().fingerprint256);
      response.resume();
    });
    sent.on('error', reject);
    sent.end();
  });
}
