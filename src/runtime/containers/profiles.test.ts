import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import type { ContainerSecurity, SecurityProfile } from '../model.js';
import { apparmorFor, loadedProfiles } from './profiles.js';

const loaded = loadedProfiles('docker-default (enforce)\nmy profile (complain)\n/usr/bin/man (enforce)\n');
const ask = (apparmor: SecurityProfile | undefined, privileged = false, kernel = { available: true, loaded }) =>
  apparmorFor({ privileged, ...(apparmor && { apparmor }) } as ContainerSecurity, kernel);
const localhost = (localhostRef: string): SecurityProfile => ({ kind: 'localhost', localhostRef });

describe('AppArmor profiles', () => {
  it('are those named, and none otherwise', () => {
    assert.equal(ask(localhost('docker-default')), 'docker-default');
    assert.equal(ask(localhost('my profile')), 'my profile');
    for (const kind of ['unconfined', 'runtime-default'] as const) assert.equal(ask({ kind }), undefined);
    assert.equal(ask(undefined), undefined);
    assert.equal(ask(localhost('docker-default'), true), undefined);
  });

  const refused = (work: () => unknown, message: RegExp): void =>
    assert.throws(work, (error) => isKind(error, 'invalid-argument') && message.test(error.message));

  it('that the kernel does not have are refused by field', () => {
    const field = /^config\.linux\.security_context\.apparmor\.localhost_ref: /;
    refused(() => ask(localhost('missing')), field);
    refused(() => ask(localhost('missing')), /profile "missing" is not loaded/);
    refused(() => ask(localhost('docker-default'), false, { available: false, loaded }), /needs AppArmor/);
  });

  it('are left to the kernel where it does not list them', () =>
    assert.equal(
      apparmorFor({ privileged: false, apparmor: localhost('x') } as ContainerSecurity, { available: true }),
      'x',
    ));
});
