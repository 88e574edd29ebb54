import assert from 'node:assert/strict';
import { line, volume } from '../../../test/support/userns.js';
import type { IdMappings } from '../idmap/mapping.js';
import type { ContainerConfig, Mount, PodSandboxConfig } from '../model.js';
import { containerMounts, type ContainerMountsInput } from './container-mounts.js';

const pod: IdMappings = { uids: [line(1_000_000)], gids: [line(2_000_000)] };

const at = (containerPath: string, changes?: Partial<Mount>): Mount => volume('/srv', containerPath, changes);

/** Only what mounts follow from. */
const mountsOf = (mounts: readonly Mount[], changes: Partial<ContainerMountsInput> = {}) =>
  containerMounts({
    config: { mounts, security: { privileged: false, readonlyRootfs: false } } as unknown as ContainerConfig,
    sandbox: {
      security: { namespaces: { network: 'pod', pid: 'container', ipc: 'pod' } },
    } as unknown as PodSandboxConfig,
    files: { hosts: '/pod/hosts', hostname: '/pod/hostname', resolvConf: '/pod/resolv.conf', shm: { held: 'shm' } },
    ...changes,
  });

const last = (mounts: readonly Mount[], changes: Partial<ContainerMountsInput> = {}) =>
  mountsOf(mounts, changes).at(-1);

describe('mounts of a container', () => {
  it('come in an order in which none hides another: declared volumes, the usual ones, those of the request', () => {
    const volumes = [
      { path: '/data/sub', directory: '/v/1' },
      { path: '/data', directory: '/v/0' },
      { path: '/proc', directory: '/v/2' },
    ];
    const order = mountsOf([at('/a/b'), at('/a'), at('/data/sub/x')], { volumes }).map(
      ({ destination }) => destination,
    );
    assert.deepEqual(order.slice(0, 2), ['/data', '/data/sub']);
    assert.ok(order.indexOf('/data/sub') < order.indexOf('/proc'));
    assert.deepEqual(order.slice(-3), ['/a', '/a/b', '/data/sub/x']);
    assert.equal(order.filter((path) => path === '/proc').length, 1);
  });

  it('of the request take the place of the pod’s files', () => {
    const found = mountsOf([at('/etc/hosts/', { hostPath: '/mine' })]).filter(({ destination }) =>
      destination.startsWith('/etc/hosts'),
    );
    assert.deepEqual(
      found.map(({ source }) => source),
      ['/mine'],
    );
  });

  it('are bound with all that is below, read-only as far as asked', () => {
    assert.deepEqual(last([at('/v')])?.options, ['rbind', 'rprivate', 'rw']);
    assert.deepEqual(last([at('/v', { readonly: true, options: ['noexec'] })])?.options, [
      'rbind',
      'rprivate',
      'ro',
      'noexec',
    ]);
    const rro = at('/v', { readonly: true, recursiveReadOnly: true, propagation: 'host-to-container' });
    assert.deepEqual(last([rro])?.options, ['rbind', 'rslave', 'rro']);
  });

  it('are mapped with all that is below; maps of the pod are not said twice', () => {
    const own = at('/v', { uidMappings: [...pod.uids], gidMappings: [...pod.gids] });
    const mapped = last([own], { mappings: pod });
    assert.ok(mapped?.options?.includes('ridmap'));
    assert.equal(mapped?.uidMappings, undefined);
    const other = last([own], { mappings: { ...pod, gids: [line(3_000_000)] } });
    assert.ok(other?.options?.includes('ridmap'));
    assert.deepEqual(other?.gidMappings, [{ containerID: 0, hostID: 2_000_000, size: 65536 }]);
  });

  it('of images name the image and are always read-only and private', () => {
    const image = { image: 'a:1', userSpecifiedImage: '', annotations: {}, runtimeHandler: '', imageRef: 'sha256:1' };
    assert.deepEqual(last([at('/first'), at('/v', { hostPath: '', image, options: ['noexec'] })]), {
      destination: '/v',
      type: 'bind',
      source: 'image:sha256:1#1',
      options: ['bind', 'private', 'ro', 'noexec'],
    });
  });
});
