import assert from 'node:assert/strict';
import { existsSync, lstatSync, readdirSync, writeFileSync } from 'node:fs';
import { chmod, chown } from 'node:fs/promises';
import { join } from 'node:path';
import { isKind } from '../../src/kit/errors.js';
import type { Layer, Snapshotter } from '../../src/runtime/snapshots/snapshotter.js';
import { digestOf } from '../support/test-image.js';

export interface SnapshotterFixture {
  readonly snapshotter: Snapshotter;
  /** Opens the same store once more, as a new process would after this one was killed. */
  reopen(): Promise<Snapshotter>;
  close(): Promise<void>;
}

/** What every snapshotter must do, whatever it is made of. */
export function snapshotterSuite(name: string, make: () => Promise<SnapshotterFixture>): void {
  describe(`snapshotter ${name}`, () => {
    let fixture: SnapshotterFixture;
    let snapshotter: Snapshotter;
    beforeEach(async () => {
      fixture = await make();
      snapshotter = fixture.snapshotter;
    });
    afterEach(async () => await fixture.close());

    const addLayer = async (label: string, parent?: string): Promise<Layer> => {
      const stage = await snapshotter.stage();
      writeFileSync(join(stage.dir, label), label);
      const chainId = digestOf(`${parent ?? ''} ${label}`);
      const rest = { diffId: digestOf(label), bytes: 4096, inodes: 1 };
      return await stage.commit({ chainId, ...(parent !== undefined && { parent }), ...rest });
    };
    const stack = async (...labels: string[]): Promise<readonly Layer[]> => {
      const layers: Layer[] = [];
      for (const label of labels) layers.push(await addLayer(label, layers.at(-1)?.chainId));
      return layers;
    };

    it('stacks layers, topmost first', async () => {
      const layers = await stack('a', 'b', 'c');
      const dirs = snapshotter.lowerDirs(layers[2]?.chainId ?? '');
      assert.deepEqual(
        dirs.map((dir) => readdirSync(dir)),
        [['c'], ['b'], ['a']],
      );
      assert.equal(snapshotter.layers().length, 3);
    });

    it('refuses a layer whose parent is not there, and an unknown stack', async () => {
      await assert.rejects(addLayer('x', digestOf('nothing')), (error) => isKind(error, 'not-found'));
      assert.throws(
        () => snapshotter.lowerDirs(digestOf('nothing')),
        (error) => isKind(error, 'not-found'),
      );
      await assert.rejects(snapshotter.prepare('k', { chainId: digestOf('nothing') }), (error) =>
        isKind(error, 'not-found'),
      );
    });

    it('takes the first of two commits of the same layer', async () => {
      const [first, second] = await Promise.all([addLayer('a'), addLayer('a')]);
      assert.deepEqual(first, second);
      assert.deepEqual(readdirSync(first?.dir ?? ''), ['a']);
    });

    it('hands out nothing of a stage that was discarded', async () => {
      const stage = await snapshotter.stage();
      writeFileSync(join(stage.dir, 'f'), 'x');
      await stage.discard();
      await stage.discard();
      await snapshotter.close();
      assert.ok(!existsSync(stage.dir));
      assert.deepEqual(snapshotter.layers(), []);
    });

    it('gives each container its own upper directory, made like the root below', async () => {
      const layers = await stack('a', 'b');
      const top = layers[1];
      assert.ok(top !== undefined);
      await chmod(top.dir, 0o2751);
      await chown(top.dir, 11, 12);
      const one = await snapshotter.prepare('one', { chainId: top.chainId });
      const two = await snapshotter.prepare('two', { chainId: top.chainId });
      assert.notEqual(one.upperDir, two.upperDir);
      const st = lstatSync(one.upperDir);
      assert.deepEqual([st.mode & 0o7777, st.uid, st.gid], [0o2751, 11, 12]);
      assert.deepEqual(one.lowerDirs, snapshotter.lowerDirs(top.chainId));
      assert.deepEqual(readdirSync(one.workDir), []);
      assert.equal(one.way, 'plain');
      assert.deepEqual(snapshotter.snapshot('one'), one);
      await assert.rejects(snapshotter.prepare('one', { chainId: top.chainId }), (error) =>
        isKind(error, 'already-exists'),
      );
    });

    it('gives the upper directory to the mapped root', async () => {
      const [layer] = await stack('a');
      const line = [{ containerId: 0, hostId: 100_000, size: 65_536 }];
      const shifted = [{ containerId: 0, hostId: 200_000, size: 65_536 }];
      const snapshot = await snapshotter.prepare('k', {
        chainId: layer?.chainId ?? '',
        mappings: { uids: line, gids: shifted },
      });
      const st = lstatSync(snapshot.upperDir);
      assert.deepEqual([st.uid, st.gid, snapshot.way], [100_000, 200_000, 'idmapped']);
    });

    it('prepares a snapshot of nothing', async () => {
      const snapshot = await snapshotter.prepare('k', { chainId: '' });
      assert.deepEqual(
        snapshot.lowerDirs.map((dir) => readdirSync(dir)),
        [[]],
      );
      assert.equal(lstatSync(snapshot.upperDir).mode & 0o7777, 0o755);
    });

    it('removes snapshots, twice and unknown ones too', async () => {
      const snapshot = await snapshotter.prepare('k', { chainId: '' });
      writeFileSync(join(snapshot.upperDir, 'f'), 'x');
      await snapshotter.remove('k');
      await snapshotter.remove('k');
      await snapshotter.remove('never');
      await snapshotter.close();
      assert.ok(!existsSync(snapshot.upperDir));
      assert.deepEqual(snapshotter.list(), []);
      await snapshotter.prepare('k', { chainId: '' });
    });

    it('says what a container has written', async () => {
      const snapshot = await snapshotter.prepare('k', { chainId: '' });
      writeFileSync(join(snapshot.upperDir, 'f'), Buffer.alloc(1 << 20));
      const { bytes, inodes } = await snapshotter.usage('k');
      assert.ok(bytes >= 1 << 20 && bytes < (1 << 20) + 65_536);
      assert.equal(inodes, 1);
      await assert.rejects(snapshotter.usage('never'), (error) => isKind(error, 'not-found'));
    });

    it('releases layers that neither the caller nor a snapshot needs', async () => {
      const [a, b, c] = await stack('a', 'b', 'c');
      const d = await addLayer('d', a?.chainId);
      const e = await addLayer('e');
      await snapshotter.prepare('k', { chainId: b?.chainId ?? '' });
      const released = snapshotter.releaseLayers([d.chainId]);
      assert.deepEqual(new Set(released.map((layer) => layer.chainId)), new Set([c?.chainId, e.chainId]));
      assert.equal(snapshotter.layer(e.chainId), undefined);
      await snapshotter.close();
      assert.ok(!existsSync(e.dir) && existsSync(a?.dir ?? ''));
      await snapshotter.remove('k');
      assert.equal(snapshotter.releaseLayers([]).length, 3);
      const again = await addLayer('e');
      await snapshotter.close();
      assert.deepEqual(readdirSync(again.dir), ['e']);
    });

    it('remembers layers and snapshots, and purges what was not finished', async () => {
      const layers = await stack('a', 'b');
      const chainId = layers[1]?.chainId ?? '';
      const snapshot = await snapshotter.prepare('k', { chainId });
      const stage = await snapshotter.stage();
      writeFileSync(join(stage.dir, 'half'), 'x');
      const next = await fixture.reopen();
      assert.deepEqual(new Set(next.layers()), new Set(layers));
      assert.deepEqual(next.list(), [snapshot]);
      await next.close();
      assert.ok(!existsSync(stage.dir));
    });
  });
}
