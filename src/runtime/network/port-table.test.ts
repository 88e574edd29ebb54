import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import { publishedPorts, refuseTakenPorts } from './port-table.js';

const invalid = (message: RegExp) => (error: unknown) => {
  assert.ok(isKind(error, 'invalid-argument'), String(error));
  assert.match(error.message, message);
  return true;
};

describe('host ports', () => {
  const ips = ['10.0.0.2', 'fd00::2'];

  it('publishes a port once for each address that its host address fits', () => {
    const at = (hostIp: string): string[] =>
      publishedPorts([{ protocol: 'tcp', containerPort: 80, hostPort: 8080, hostIp }], ips).map(
        (port) => `${port.hostIp}>${port.podIp}`,
      );
    assert.deepEqual(at(''), ['>10.0.0.2', '>fd00::2']);
    assert.deepEqual(at('0.0.0.0'), ['>10.0.0.2']);
    assert.deepEqual(at('::'), ['>fd00::2']);
    assert.deepEqual(at('127.0.0.1'), ['127.0.0.1>10.0.0.2']);
    assert.deepEqual(publishedPorts([{ protocol: 'tcp', containerPort: 80, hostPort: 0 }], ips), []);
    assert.throws(() => at('localhost'), invalid(/"localhost" is no IP address/));
    assert.throws(
      () => publishedPorts([{ protocol: 'tcp', containerPort: 80, hostPort: 1, hostIp: '::1' }], ['10.0.0.2']),
      invalid(/no address for host IP ::1/),
    );
  });

  it('refuses a port that is taken, by whom', () => {
    const [port] = publishedPorts([{ protocol: 'udp', containerPort: 53, hostPort: 53 }], ['10.0.0.2']);
    assert.ok(port !== undefined);
    const taken = [{ sandboxId: 'abc', ports: [port] }];
    assert.throws(
      () => refuseTakenPorts([{ ...port, podIp: '10.0.0.3' }], taken),
      /host port 53\/udp belongs to sandbox abc/,
    );
    refuseTakenPorts([{ ...port, protocol: 'tcp' }], taken);
    refuseTakenPorts([{ ...port, podIp: 'fd00::2' }], taken);
  });
});
