import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  makeRootlessUser,
  rootlessObstacle,
  translateProgram,
  type RootlessUser,
  type RootlessUserOptions,
} from './rootless-user.js';
import { skip } from './skip.js';
import { buildTestImage } from './test-image.js';

export const image = 'docker.io/library/rootless:1';

export interface RootlessSuite {
  /** The user of the test that runs. */
  readonly user: RootlessUser;
  /** Makes the test's user, with an archive of `image` that is imported unless told otherwise. */
  open(options?: RootlessUserOptions & { readonly empty?: boolean }): Promise<void>;
  /** Imports the archive. */
  importImage(): Promise<void>;
  /** Standard output of a command that must succeed. */
  text(...args: readonly string[]): Promise<string>;
  /** What a script says in a container of its own. */
  shell(script: string, ...flags: readonly string[]): Promise<string>;
  /** Stops and removes all pods. */
  removePods(): Promise<void>;
}

/** Hooks for a suite whose tests each have a user of their own; what a test leaves running fails it. */
export function rootlessSuite(): RootlessSuite {
  let user: RootlessUser | undefined;
  let archive = '';
  let program = '';
  let translated = '';

  before(async function () {
    const obstacle = rootlessObstacle();
    if (obstacle !== undefined) skip(this, obstacle);
    translated = mkdtempSync(join(tmpdir(), 'bt-'));
    chmodSync(translated, 0o755);
    program = await translateProgram(translated);
  });
  after(() => rmSync(translated, { recursive: true, force: true }));
  afterEach(async () => {
    const left = await user?.close();
    user = undefined;
    assert.deepEqual(left ?? [], []);
  });

  const suite: RootlessSuite = {
    get user() {
      return user ?? assert.fail('there is no user');
    },
    async open({ empty = false, ...options } = {}) {
      user = makeRootlessUser(program, options);
      archive = join(user.dir, 'image');
      const files = {
        '/etc/owned': { content: 'x', uid: 33, gid: 34 },
        '/bin/suid': { content: '#!/bin/sh\n', mode: 0o4755, uid: 5, gid: 6 },
      };
      // Files of many owners cannot be unpacked where there is one id.
      buildTestImage(archive, { name: image, ...(options.wrapper === undefined ? { files } : {}) });
      if (!empty) await suite.importImage();
    },
    async importImage() {
      assert.match(await suite.text('image', 'import', archive), /rootless:1/);
    },
    async text(...args) {
      const { code, stdout, stderr } = await suite.user.berth(...args);
      const log = existsSync(suite.user.logFile) ? suite.user.log() : '';
      assert.equal(code, 0, `berth ${args.join(' ')}: ${stderr}\n${log}`);
      return stdout;
    },
    shell: (script, ...flags) => suite.text('run', '--rm', ...flags, image, 'sh', '-c', script),
    async removePods() {
      const pods = JSON.parse(await suite.text('pods', '--json')) as { id: string }[];
      for (const { id } of pods) await suite.text('rm', '-f', id);
    },
  };
  return suite;
}

/** Ends an agent and waits for it; one that has ended by itself fails the test with what it said. */
export async function endAgent(agent: ChildProcess, signal: NodeJS.Signals, user: RootlessUser): Promise<void> {
  assert.equal(agent.exitCode ?? agent.signalCode, null, user.log());
  const ended = new Promise((resolve) => agent.once('exit', resolve));
  agent.kill(signal);
  await ended;
}
