import assert from 'node:assert/strict';
import type { OciSpec } from '../spec/oci.js';
import { decodeSpec, encodeSpec } from './spec-json.js';

describe('config.json of a bundle', () => {
  it('reads back what was written, whatever the environment and the limits hold', () => {
    const spec: OciSpec = {
      ociVersion: '1.2.0',
      process: {
        user: { uid: 1, gid: 2 },
        args: ['x'],
        env: [Buffer.from('A=ä'), Buffer.from([0x42, 0x3d, 0xff])],
        cwd: '/',
        rlimits: [{ type: 'nofile', soft: 1024n, hard: 2n ** 64n - 1n }],
      },
      linux: { namespaces: [{ type: 'mount' }] },
    };
    const text = encodeSpec(spec);
    assert.deepEqual(decodeSpec(text), spec);
    assert.match(text, /"soft":1024,/);
  });

  it('may be without a process', () => {
    const spec: OciSpec = { ociVersion: '1.2.0', linux: { namespaces: [] } };
    assert.deepEqual(decodeSpec(encodeSpec(spec)), spec);
  });
});
