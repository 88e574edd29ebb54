import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isErrno, isKind } from '../../src/kit/errors.js';
import { openNative } from '../../src/native/native.js';
import { relabel } from '../../src/runtime/selinux/relabel.js';
import { openSelinux } from '../../src/runtime/selinux/selinux.js';
import type { ContainerConfig } from '../../src/runtime/model.js';
import { decodeSpec } from '../../src/runtime/containers/spec-json.js';
import { usePods } from '../support/pods.js';
import { call, containerConfig } from '../support/runtime.js';
import { volume } from '../support/userns.js';
import { skip } from '../support/skip.js';

const label = 'system_u:object_r:container_file_t:s0:c1,c2';
const attribute = 'security.selinux';

/** Root may set the attribute where no security module of the kernel owns it. */
describe('labels of volumes', () => {
  const { files } = openNative();
  let dir: string;
  before(function () {
    if (existsSync('/sys/fs/selinux/enforce')) skip(this, 'this kernel has SELinux, which wants labels it knows');
  });
  beforeEach(function () {
    dir = realpathSync(mkdtempSync(join(tmpdir(), 'selinux-')));
    try {
      files.setXattr(dir, attribute, Buffer.from('probe'));
    } catch (error) {
      if (isErrno(error, 'ENOTSUP') || isErrno(error, 'EPERM')) skip(this, `${dir} takes no labels`);
      throw error;
    }
  });
  afterEach(() => {
    const mounts = execFileSync('findmnt', ['-rno', 'TARGET'], { encoding: 'utf8' }).split('\n');
    for (const point of mounts.filter((each) => each.startsWith(`${dir}/`)).reverse()) execFileSync('umount', [point]);
    rmSync(dir, { recursive: true, force: true });
  });

  const signal = new AbortController().signal;
  const set = (path: string, to = label) => relabel(path, to, { files, signal });
  const labelOf = (path: string): string | undefined => files.getXattr(path, attribute)?.toString();

  it('are for all of a tree, whatever it holds and is called', async () => {
    const top = join(dir, 'volume');
    mkdirSync(join(top, 'a/b/c'), { recursive: true });
    for (let n = 0; n < 100; n++) writeFileSync(join(top, 'a', `file-${n}`), '');
    execFileSync('mkfifo', [join(top, 'a/b/pipe')]);
    execFileSync('mknod', [join(top, 'a/node'), 'c', '1', '3']);
    const odd = Buffer.concat([Buffer.from(`${top}/a/`), Buffer.from([0xff, 0xfe])]);
    writeFileSync(odd, '');
    const seen: number[] = [];
    const progress = ({ entries = 0 }: Readonly<Record<string, number>>) => void seen.push(entries);
    assert.equal(await relabel(top, label, { files, signal, progress }), 'labelled');
    for (const path of ['', 'a', 'a/b', 'a/b/c', 'a/b/pipe', 'a/node', 'a/file-0', 'a/file-99'])
      assert.equal(labelOf(join(top, path)), label, path);
    assert.equal((await files.getXattrLater(odd, attribute))?.toString(), label);
    assert.equal(seen.at(-1), 107);
    assert.equal(labelOf(dir), 'probe');
  });

  it('never go through links, nor to what is mounted below', async () => {
    const top = join(dir, 'volume');
    const [outside, elsewhere] = [join(dir, 'outside'), join(dir, 'elsewhere')];
    for (const each of [join(top, 'mounted'), outside, elsewhere]) mkdirSync(each, { recursive: true });
    for (const each of ['secret', 'bound']) writeFileSync(join(outside, each), '');
    writeFileSync(join(top, 'file'), '');
    symlinkSync(outside, join(top, 'link'));
    symlinkSync(join(outside, 'secret'), join(top, 'to-file'));
    execFileSync('mount', ['--bind', elsewhere, join(top, 'mounted')]);
    execFileSync('mount', ['--bind', join(outside, 'bound'), join(top, 'file')]);
    assert.equal(await set(top), 'labelled');
    assert.equal(labelOf(join(top, 'link')), label);
    for (const path of [outside, elsewhere, join(outside, 'secret'), join(outside, 'bound')])
      assert.equal(labelOf(path), undefined, path);
  });

  it('are left when the top has them already, and set again for another pod', async () => {
    const top = join(dir, 'volume');
    mkdirSync(top);
    await set(top);
    writeFileSync(join(top, 'new'), '');
    assert.equal(await set(top), 'already');
    assert.equal(labelOf(join(top, 'new')), undefined);
    const other = label.replace('c2', 'c3');
    assert.equal(await set(top, other), 'labelled');
    assert.deepEqual([labelOf(top), labelOf(join(top, 'new'))], [other, other]);
  });

  it('are for single files, and links that have taken their place', async () => {
    const [file, link] = [join(dir, 'file'), join(dir, 'link')];
    writeFileSync(file, '');
    symlinkSync('file', link);
    assert.equal(await set(link), 'labelled');
    assert.equal(labelOf(file), undefined);
    assert.equal(await set(file), 'labelled');
    assert.equal(labelOf(file), label);
  });

  it('are refused when a directory on the way has become a link', async () => {
    mkdirSync(join(dir, 'real/deep/volume'), { recursive: true });
    symlinkSync('real', join(dir, 'way'));
    await assert.rejects(set(join(dir, 'way/deep/volume')), (error) => isKind(error, 'wrong-state'));
    assert.equal(labelOf(join(dir, 'real/deep/volume')), undefined);
  });

  it('are not for trees that would cost a descriptor too many', async () => {
    const names = Array.from({ length: 300 }, () => 'd').join('/');
    mkdirSync(join(dir, 'volume', names), { recursive: true });
    await assert.rejects(set(join(dir, 'volume')), (error) => isKind(error, 'exhausted'));
    assert.equal(labelOf(join(dir, 'volume')), undefined);
  });

  it('are done without where a file system has none', async function () {
    const top = join(dir, 'none');
    mkdirSync(top);
    execFileSync('mount', ['-t', 'ramfs', 'none', top]);
    mkdirSync(join(top, 'volume'));
    assert.equal(await set(join(top, 'volume')), 'unsupported');
  });

  it('come from the policy the node has chosen', () => {
    const contexts = join(dir, 'mine/contexts');
    mkdirSync(contexts, { recursive: true });
    writeFileSync(join(dir, 'config'), 'SELINUX=enforcing\nSELINUXTYPE=mine\n');
    writeFileSync(join(contexts, 'lxc_contexts'), 'process = "a:b:c:s0"\nfile = "d:e:f:s0"\n');
    assert.deepEqual(openSelinux(files, dir).labels, { process: 'a:b:c:s0', mount: 'd:e:f:s0' });
    assert.match(openSelinux(files, join(dir, 'nowhere')).labels.process, /:container_t:s0$/);
  });
});

/** The kernel of the tests has none, so containers are made and not run. */
describe('SELinux labels of a container', function () {
  this.timeout(60_000);
  const pods = usePods();
  const { files } = openNative();
  const level = 's0:c7,c8';
  const mount = `system_u:object_r:container_file_t:${level}`;
  let pod: string;
  beforeEach(async function () {
    if (existsSync('/sys/fs/selinux/enforce')) skip(this, 'this kernel has SELinux, which wants labels it knows');
    pod = await pods.run({ security: { selinux: { user: '', role: '', type: 'pod_t', level } } });
    Object.assign(pods.host.parts, { selinux: openSelinux(files, '/nowhere') });
  });
  afterEach(() => void Object.assign(pods.host.parts, { selinux: undefined }));
  const create = async (config: ContainerConfig) => {
    const id = await pods.host.runtime.containers.create({ sandboxId: pod, config }, call());
    const bundle = pods.host.parts.paths.bundle(pod, id);
    return decodeSpec(readFileSync(join(bundle, 'config.json'), 'utf8'));
  };

  it('are the pod’s or its own, in its spec and on what it has relabelled', async () => {
    const [wanted, plain] = [pods.directory('wanted'), pods.directory('plain')];
    const mounts = [volume(wanted, '/a', { selinuxRelabel: true }), volume(plain, '/b')];
    const spec = await create(containerConfig('true', { mounts }));
    const labels = [spec.process?.selinuxLabel, spec.linux.mountLabel];
    assert.deepEqual(labels, [`system_u:system_r:pod_t:${level}`, mount]);
    const found = [wanted, plain].map((path) => files.getXattr(path, attribute)?.toString());
    assert.deepEqual(found, [mount, undefined]);
    const own = { user: '', role: '', type: '', level: 's0' };
    const { process, linux } = await create(containerConfig('true', { security: { selinux: own, privileged: true } }));
    assert.deepEqual([process?.selinuxLabel, linux.mountLabel], [undefined, 'system_u:object_r:container_file_t:s0']);
  });

  it('are never given to the host’s own directories', async () => {
    const mounts = [volume('/usr/share', '/y', { selinuxRelabel: true })];
    await assert.rejects(
      create(containerConfig('true', { mounts })),
      /config\.mounts\[0\]\.selinux_relabel: \/usr\/share belongs to the system/,
    );
    assert.equal(files.getXattr('/usr/share', attribute), undefined);
  });
});
