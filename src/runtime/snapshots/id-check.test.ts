import assert from 'node:assert/strict';
import type { Call } from '../../kit/call.js';
import { isKind, RuntimeError } from '../../kit/errors.js';
import { silentObserver } from '../../kit/observer.js';
import type { IdMappings } from '../idmap/mapping.js';
import { createIdCheck, type CheckIds, type IdCheck, type IdCheckOrder } from './id-check.js';
import type { Layer } from './snapshotter.js';

const call = (signal = new AbortController().signal): Call => ({ signal, observer: silentObserver });

const layer = (name: string, ids?: Layer['ids']): Layer => ({
  chainId: name,
  diffId: name,
  dir: `/layers/${name}`,
  bytes: 0,
  inodes: 0,
  ...(ids === undefined ? {} : { ids }),
});

const usual = layer('usual', { uids: [[0, 1000]], gids: [[0, 1000]] });
const strange = layer('strange', {
  uids: [
    [0, 0],
    [70_000, 70_000],
  ],
  gids: [[0, 0]],
});
const old = layer('old');

const mappingsAt = (hostId: number, size = 65_536): IdMappings => ({
  uids: [{ containerId: 0, hostId, size }],
  gids: [{ containerId: 0, hostId, size }],
});

const order = (layers: readonly Layer[], mappings = mappingsAt(100_000), chainId = 'sha256:aa'): IdCheckOrder => ({
  chainId,
  mappings,
  layers,
});

describe('the check of ids', () => {
  let walks: (readonly string[])[];
  let check: CheckIds;
  let checks: IdCheck;
  beforeEach(() => {
    walks = [];
    check = (_mappings, dirs) => {
      walks.push(dirs);
      return Promise.resolve();
    };
    checks = createIdCheck((...args) => check(...args));
  });
  const refuse: CheckIds = (_mappings, dirs) => {
    walks.push(dirs);
    return Promise.reject(new RuntimeError('invalid-argument', 'check ids: f: uid 70000 is not mapped'));
  };

  it('walks over nothing where the layers are known to have mapped ids, or are not known', async () => {
    await checks.ensure(order([usual, old]), call());
    assert.deepEqual(walks, []);
  });

  it('walks once for an image and the ids inside, whatever they are outside', async () => {
    for (const hostId of [100_000, 200_000]) await checks.ensure(order([usual, strange], mappingsAt(hostId)), call());
    assert.deepEqual(walks, [['/layers/usual', '/layers/strange']]);
    await checks.ensure(order([strange], mappingsAt(100_000, 1000)), call());
    await checks.ensure(order([strange], undefined, 'sha256:bb'), call());
    assert.equal(walks.length, 3);
    await checks.ensure(order([strange], mappingsAt(100_000, 70_001)), call());
    assert.equal(walks.length, 3);
  });

  it('says what is wrong each time, and finds it out once', async () => {
    check = refuse;
    for (let i = 0; i < 2; i++) {
      await assert.rejects(checks.ensure(order([strange]), call()), (error) => {
        assert.ok(isKind(error, 'invalid-argument'));
        assert.equal(error.message, 'check ids: f: uid 70000 is not mapped');
        return true;
      });
    }
    assert.equal(walks.length, 1);
  });

  it('does not remember what is the host’s fault', async () => {
    check = () => Promise.reject(new RuntimeError('internal', 'check ids: open x: Input/output error'));
    await assert.rejects(checks.ensure(order([strange]), call()), /Input\/output/);
    check = refuse;
    await assert.rejects(checks.ensure(order([strange]), call()), /uid 70000/);
  });

  it('ends when nobody waits any more, and when it is closed', async () => {
    check = async (_mappings, _dirs, signal) =>
      await new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(new RuntimeError('cancelled', 'ended')), { once: true });
      });
    const controller = new AbortController();
    const attempt = checks.ensure(order([strange]), call(controller.signal));
    controller.abort(new RuntimeError('cancelled', 'the pod goes'));
    await assert.rejects(attempt, /the pod goes/);
    const cut = assert.rejects(checks.ensure(order([strange]), call()), (error) => isKind(error, 'cancelled'));
    await checks.close();
    await cut;
  });
});
