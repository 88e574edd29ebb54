import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chownSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isKind, type ErrorKind } from '../../src/kit/errors.js';
import { usePods } from '../support/pods.js';
import { call, containerConfig } from '../support/runtime.js';
import { namespaces } from '../support/userns.js';

describe('CDI devices', function () {
  this.timeout(60_000);
  const pods = usePods();

  function write(file: string, devices: Readonly<Record<string, object>>, containerEdits: object = {}): void {
    const spec = {
      cdiVersion: '1.1.0',
      kind: 'v.com/c',
      devices: Object.entries(devices).map(([name, edits]) => ({ name, containerEdits: edits })),
      containerEdits,
    };
    writeFileSync(join(pods.directory('cdi/etc'), file), JSON.stringify(spec));
  }

  async function refused(name: string, kind: ErrorKind, message: RegExp): Promise<void> {
    const config = containerConfig('true', { cdiDevices: [name] });
    const create = pods.host.runtime.containers.create({ sandboxId: await pods.run(), config }, call());
    await assert.rejects(create, (error) => {
      assert.ok(isKind(error, kind), String(error));
      assert.match(error.message, message);
      return true;
    });
    assert.deepEqual(pods.host.runtime.containers.list({}), []);
  }

  it('bring variables, groups, nodes and mounts', async () => {
    const library = pods.directory('library');
    writeFileSync(join(library, 'lib.so'), 'code');
    const nodes = [
      { path: '/dev/v/zero', hostPath: '/dev/zero', fileMode: 0o640, gid: 44, permissions: 'r' },
      { path: '/dev/v/null', hostPath: '/dev/null' },
      { path: '/dev/v/made', type: 'c', major: 1, minor: 5, fileMode: 0o600, uid: 7 },
    ];
    write(
      'v.json',
      { one: { deviceNodes: nodes, additionalGids: [44] } },
      { env: ['V=1'], mounts: [{ hostPath: library, containerPath: '/usr/v', options: ['ro', 'nosuid', 'bind'] }] },
    );
    const script = `echo $V; id -G; cat /usr/v/lib.so; echo
      touch /usr/v/x 2>/dev/null || echo ro
      stat -c '%n %F %t:%T %a %u:%g' /dev/v/*
      head -c 2 /dev/v/zero | wc -c; echo > /dev/v/null && echo written`;
    const security = { runAsUser: 1000, runAsGroup: 1000 };
    const cdiDevices = ['v.com/c=one'];
    const { output, id } = await pods.toEnd(await pods.run(), containerConfig(script, { cdiDevices, security }));
    assert.deepEqual(output.trim().split('\n'), [
      '1',
      '1000 44 50000',
      'code',
      'ro',
      '/dev/v/made character special file 1:5 600 7:1000',
      '/dev/v/null character special file 1:3 666 1000:1000',
      '/dev/v/zero character special file 1:5 640 1000:44',
      '2',
      'written',
    ]);
    assert.deepEqual(pods.host.runtime.containers.status(id).user.groups, [1000, 50000, 44]);
  });

  it('are for annotations, too, and come out of YAML', async () => {
    const yaml = 'cdiVersion: 0.5.0\nkind: v.com/y\ndevices:\n- name: 0\n  containerEdits:\n    env: [Y=yes]\n';
    writeFileSync(join(pods.directory('cdi/run'), 'y.yaml'), yaml);
    const annotations = { 'cdi.k8s.io/plugin_0': 'v.com/y=0' };
    assert.equal(await pods.output(await pods.run(), containerConfig('echo $Y', { annotations })), 'yes\n');
  });

  it('are bound and mapped in user namespaces', async function () {
    if (!pods.host.parts.userNamespaces.supported) this.skip();
    const library = pods.directory('mapped');
    writeFileSync(join(library, 'lib.so'), 'code');
    write('v.json', {
      one: {
        deviceNodes: [{ path: '/dev/v0', hostPath: '/dev/zero' }],
        mounts: [{ hostPath: library, containerPath: '/usr/v', options: ['ro', 'bind'] }],
      },
    });
    const pod = await pods.run({ namespaces: namespaces() });
    const script = 'head -c 3 /dev/v0 | wc -c; stat -c %u:%g /usr/v/lib.so';
    const config = containerConfig(script, { cdiDevices: ['v.com/c=one'], security: { namespaces: namespaces() } });
    assert.equal(await pods.output(pod, config), '3\n0:0\n');
  });

  it('are refused by device and field where something is missing', async () => {
    const mount = { hostPath: '/nowhere', containerPath: '/x', options: ['bind'] };
    write('v.json', {
      absent: { deviceNodes: [{ path: '/dev/nothing-here' }] },
      mount: { mounts: [mount] },
      plain: { deviceNodes: [{ path: '/dev/x', hostPath: '/etc/passwd' }] },
      type: { deviceNodes: [{ path: '/dev/x', hostPath: '/dev/null', type: 'b' }] },
      hook: { hooks: [{ hookName: 'createContainer', path: '/usr/bin/vendor', args: ['vendor'] }] },
    });
    const field = (name: string, rest: string) => new RegExp(`^CDI device v\\.com/c=${name}: ${rest}`);
    await refused('v.com/c=absent', 'invalid-argument', field('absent', 'deviceNodes\\[0\\] in .*v\\.json: /dev/noth'));
    await refused('v.com/c=mount', 'invalid-argument', field('mount', 'mounts\\[0\\]\\.hostPath in .*: /nowhere does'));
    await refused(
      'v.com/c=plain',
      'invalid-argument',
      field('plain', 'deviceNodes\\[0\\] in .*: /etc/passwd is no dev'),
    );
    await refused(
      'v.com/c=type',
      'invalid-argument',
      field('type', 'deviceNodes\\[0\\] in .*: /dev/null is no device of type b'),
    );
    await refused('v.com/c=hook', 'unimplemented', field('hook', 'hooks\\[0\\] in .*createContainer /usr/bin/vendor'));
    await refused('v.com/c=none', 'invalid-argument', /^config\.CDI_devices\[0\]\.name: no spec in /);
  });

  it('of broken files hurt nobody else, and the status tells of them', async () => {
    write('v.json', { one: { env: ['A=1'] } });
    writeFileSync(join(pods.directory('cdi/etc'), 'broken.json'), '{');
    const config = containerConfig('echo $A', { cdiDevices: ['v.com/c=one'] });
    assert.equal(await pods.output(await pods.run(), config), '1\n');
    assert.match(JSON.stringify(pods.host.runtime.info()['cdiProblems']), /broken\.json","reason":"JSON: /);
  });
});

describe('owners of devices', function () {
  this.timeout(60_000);
  const pods = usePods({ flags: { 'runtime-device-ownership-from-security-context': 'true' } });
  const node = (name: string, owner = 0): string => {
    const path = join(pods.directory('dev'), name);
    execFileSync('mknod', ['-m', '600', path, 'c', '1', '5']);
    chownSync(path, owner, owner);
    return path;
  };
  const devices = (...paths: readonly string[]) =>
    paths.map((hostPath, index) => ({ hostPath, containerPath: `/dev/own${index}`, permissions: 'rw' }));

  it('are those of the security context, the host’s node staying as it is', async () => {
    const [roots, others] = [node('roots'), node('others', 5)];
    const config = containerConfig('stat -c %u:%g /dev/own0 /dev/own1; head -c 1 /dev/own0 | wc -c', {
      devices: devices(roots, others),
      security: { runAsUser: 1000, runAsGroup: 2000 },
    });
    assert.equal(await pods.output(await pods.run(), config), '1000:2000\n5:5\n1\n');
    assert.deepEqual([statSync(roots).uid, statSync(roots).gid], [0, 0]);
  });

  it('stay root’s without a user, and cannot be in a user namespace', async function () {
    const path = node('kept');
    const plain = containerConfig('stat -c %u:%g /dev/own0', { devices: devices(path) });
    assert.equal(await pods.output(await pods.run(), plain), '0:0\n');
    if (!pods.host.parts.userNamespaces.supported) this.skip();
    const config = containerConfig('true', {
      devices: devices(path),
      security: { runAsUser: 1000, namespaces: namespaces() },
    });
    const sandboxId = await pods.run({ namespaces: namespaces() });
    await assert.rejects(
      pods.host.runtime.containers.create({ sandboxId, config }, call()),
      /config\.devices\[0\]: .* cannot be given to user 1000/,
    );
  });
});
