import assert from 'node:assert/strict';
import { defaultMounts, type DefaultMountFacts } from './defaults.js';

const mappings = (size: number) => {
  const lines = [{ containerId: 0, hostId: 100000, size }];
  return { uids: lines, gids: lines };
};
const mountOf = (destination: string, facts: Partial<DefaultMountFacts>) =>
  defaultMounts({ privileged: false, sys: 'fresh', ...facts }).find((mount) => mount.destination === destination);

describe('spec/defaults', () => {
  it('show /sys as the rules of namespaces say', () => {
    const fresh = mountOf('/sys', {});
    assert.equal(fresh?.type, 'sysfs');
    assert.ok(fresh.options?.includes('ro'));
    assert.deepEqual(mountOf('/sys', { mappings: mappings(65536) }), fresh);
    const bound = mountOf('/sys', { sys: 'bound', mappings: mappings(65536) });
    assert.equal(bound?.type, 'bind');
    assert.equal(bound.source, '/sys');
    assert.ok(bound.options?.includes('rbind') && bound.options.includes('rro'));
    assert.ok(mountOf('/sys', { privileged: true })?.options?.includes('rw'));
  });

  it('leave out the group of terminals where it is not mapped, and keep the other options', () => {
    const options = mountOf('/dev/pts', { mappings: mappings(65536) })?.options ?? [];
    assert.ok(options.includes('gid=5'));
    assert.deepEqual(
      mountOf('/dev/pts', { mappings: mappings(5) })?.options,
      options.filter((option) => option !== 'gid=5'),
    );
  });
});
