import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import { onlyLoopbackServers, renderHostname, renderHosts, renderResolvConf } from './pod-files.js';

const invalid = (message: RegExp) => (error: unknown) => {
  assert.ok(isKind(error, 'invalid-argument'), String(error));
  assert.match(error.message, message);
  return true;
};

describe('pod files', () => {
  it('writes hosts with the name of the pod on each of its addresses', () => {
    const text = renderHosts({ hostname: 'web-0', ips: ['10.0.0.2', 'fd00::2'] });
    assert.match(text, /^127\.0\.0\.1\tlocalhost\n/);
    assert.ok(text.endsWith('10.0.0.2\tweb-0\nfd00::2\tweb-0\n'));
    assert.doesNotMatch(renderHosts({ hostname: '', ips: ['10.0.0.2'] }), /10\.0\.0\.2/);
    assert.equal(renderHostname('web-0'), 'web-0\n');
  });

  it('writes resolv.conf', () => {
    const dns = { servers: ['10.96.0.10', 'fe80::1%eth0'], searches: ['a.svc', 'svc'], options: ['ndots:5', 'edns0'] };
    assert.equal(
      renderResolvConf(dns),
      'search a.svc svc\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\noptions ndots:5 edns0\n',
    );
  });

  it('lets nothing start a line of its own', () => {
    const dns = { servers: [], searches: [], options: [] };
    assert.throws(
      () => renderResolvConf({ ...dns, searches: ['ok', 'a\nnameserver 6.6.6.6'] }),
      invalid(/^dns_config\.searches\[1\]/),
    );
    assert.throws(() => renderResolvConf({ ...dns, options: ['a b'] }), invalid(/^dns_config\.options\[0\]/));
    assert.throws(() => renderResolvConf({ ...dns, servers: ['dns.example'] }), invalid(/^dns_config\.servers\[0\]/));
    assert.throws(() => renderResolvConf({ ...dns, servers: ['fe80::1%a\n'] }), invalid(/^dns_config\.servers\[0\]/));
    assert.throws(() => renderHosts({ hostname: 'a\t6.6.6.6', ips: ['10.0.0.2'] }), invalid(/^hostname/));
    assert.throws(() => renderHostname('a\u0000'), invalid(/^hostname/));
  });

  it('knows a resolv.conf that is of no use to a pod', () => {
    assert.equal(onlyLoopbackServers('nameserver 127.0.0.53\noptions edns0\n'), true);
    assert.equal(onlyLoopbackServers('nameserver 127.0.0.53\nnameserver 1.1.1.1\n'), false);
    assert.equal(onlyLoopbackServers('# nothing\n'), false);
  });
});
