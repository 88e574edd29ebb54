import assert from 'node:assert/strict';
import {
  allCapabilities,
  applyChanges,
  capabilitiesOf,
  capabilityMask,
  capabilityNames,
  defaultContainerCapabilities,
} from './capabilities.js';
import type { CapabilitySets } from './capabilities.js';

const last = capabilityNames.length - 1;

function changed(
  changes: Partial<Record<'add' | 'drop' | 'addAmbient', string[]>>,
  privileged = false,
): CapabilitySets {
  const all = { add: [], drop: [], addAmbient: [], ...changes };
  return applyChanges(defaultContainerCapabilities, all, privileged, last, 'caps');
}

describe('capabilities', () => {
  it('are numbered as the kernel does', () => {
    assert.equal(capabilityNames.length, 41);
    assert.equal(capabilityNames[21], 'CAP_SYS_ADMIN');
    assert.equal(capabilityNames[40], 'CAP_CHECKPOINT_RESTORE');
    assert.deepEqual(capabilitiesOf(capabilityMask(['CAP_CHOWN', 'net_admin'], last, 'f')), [
      'CAP_CHOWN',
      'CAP_NET_ADMIN',
    ]);
  });

  it('default to the fourteen, with nothing inheritable', () => {
    const sets = changed({});
    assert.equal(capabilitiesOf(sets.effective).length, 14);
    assert.equal(sets.effective, 0xa80425fbn);
    assert.deepEqual([sets.inheritable, sets.ambient], [0n, 0n]);
    assert.deepEqual([sets.bounding, sets.permitted], [sets.effective, sets.effective]);
  });

  it('add and drop, ALL first', () => {
    assert.ok(capabilitiesOf(changed({ add: ['CAP_NET_ADMIN'] }).effective).includes('CAP_NET_ADMIN'));
    assert.equal(changed({ drop: ['ALL'] }).effective, 0n);
    assert.deepEqual(capabilitiesOf(changed({ drop: ['ALL'], add: ['NET_BIND_SERVICE'] }).effective), [
      'CAP_NET_BIND_SERVICE',
    ]);
    assert.equal(changed({ add: ['ALL'] }).effective, allCapabilities(last));
    assert.equal(capabilitiesOf(changed({ add: ['ALL'], drop: ['CAP_SYS_ADMIN'] }).effective).length, 40);
  });

  it('raise what is ambient in every set', () => {
    const sets = changed({ drop: ['ALL'], addAmbient: ['CAP_NET_RAW'] });
    const bit = 1n << 13n;
    assert.deepEqual(sets, { bounding: bit, permitted: bit, effective: bit, inheritable: bit, ambient: bit });
  });

  it('are all of them when privileged, but none inheritable', () => {
    const sets = changed({ drop: ['ALL'] }, true);
    assert.equal(sets.effective, allCapabilities(last));
    assert.equal(sets.inheritable, 0n);
  });

  it('are limited to what the kernel knows', () => {
    assert.equal(capabilityMask(['CAP_BPF', 'CAP_CHOWN'], 37, 'f'), 1n);
    assert.equal(applyChanges([], { add: ['ALL'], drop: [], addAmbient: [] }, false, 37).effective, (1n << 38n) - 1n);
  });

  it('are refused by name', () => {
    assert.throws(
      () => changed({ drop: ['CHOWN', 'CAP_FLY'] }),
      /^RuntimeError: caps\.drop_capabilities\[1\]: "CAP_FLY" is no capability/,
    );
  });
});
