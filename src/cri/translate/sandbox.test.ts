import assert from 'node:assert/strict';
import * as wire from '../../../api/cri/v1/generated/api.js';
import { isKind } from '../../kit/errors.js';
import type { PodSandboxConfig } from '../../runtime/model.js';
import { sandboxConfig, sandboxFilter, wireNamespaces, wireSandboxStatus } from './sandbox.js';

type Config = wire.DeepPartial<wire.PodSandboxConfig>;
type Linux = wire.DeepPartial<wire.LinuxPodSandboxConfig>;
type Security = wire.DeepPartial<wire.LinuxSandboxSecurityContext>;

const metadata = { name: 'web', uid: 'u', namespace: 'ns', attempt: 3 };
const translate = (config: Config): PodSandboxConfig =>
  sandboxConfig('config', wire.PodSandboxConfig.fromPartial({ metadata, ...config }));
const withLinux = (linux: Linux): PodSandboxConfig => translate({ linux });
const withSecurity = (securityContext: Security): PodSandboxConfig => translate({ linux: { securityContext } });

const { POD, CONTAINER, NODE, TARGET } = wire.NamespaceMode;
const mapping = { containerId: 0, hostId: 65536, length: 65536 };
const userns = (usernsOptions: wire.DeepPartial<wire.UserNamespace>): PodSandboxConfig =>
  withSecurity({ namespaceOptions: { usernsOptions } });

describe('sandboxConfig', () => {
  it('reads a minimal configuration: absent is absent', () => {
    assert.deepEqual(translate({}), {
      metadata,
      hostname: '',
      logDirectory: '',
      portMappings: [],
      labels: {},
      annotations: {},
      cgroupParent: '',
      sysctls: {},
      security: {
        namespaces: { network: 'pod', pid: 'pod', ipc: 'pod' },
        readonlyRootfs: false,
        supplementalGroups: [],
        supplementalGroupsPolicy: 'merge',
        privileged: false,
      },
    });
  });

  it('reads every field', () => {
    const config = translate({
      hostname: 'web-0',
      logDirectory: '/var/log/pods/ns_web_u',
      dnsConfig: { servers: ['10.0.0.10', 'fd00::a'], searches: ['ns.svc.cluster.local'], options: ['ndots:5'] },
      portMappings: [
        { protocol: wire.Protocol.SCTP, containerPort: 80, hostPort: 8080, hostIp: '127.0.0.1' },
        { containerPort: 53 },
      ],
      labels: { a: 'b' },
      annotations: { c: ' d\n' },
      linux: {
        cgroupParent: '/kubepods/podu',
        sysctls: { 'net.ipv4.ip_forward': '1', 'net/ipv4/ping_group_range': '0 1' },
        overhead: { cpuShares: 100n },
        resources: { memoryLimitInBytes: 1n << 30n },
        securityContext: {
          namespaceOptions: { network: NODE, pid: CONTAINER, ipc: NODE },
          runAsUser: { value: 0n },
          runAsGroup: { value: 2n ** 31n - 1n },
          readonlyRootfs: true,
          supplementalGroups: [1n, 2n],
          supplementalGroupsPolicy: wire.SupplementalGroupsPolicy.Strict,
          privileged: true,
          seccomp: { profileType: wire.SecurityProfile_ProfileType.Localhost, localhostRef: '/p/x.json' },
          apparmor: { profileType: wire.SecurityProfile_ProfileType.Localhost, localhostRef: 'localhost/mine' },
          selinuxOptions: { type: 'container_t' },
        },
      },
    });
    assert.deepEqual(config, {
      metadata,
      hostname: 'web-0',
      logDirectory: '/var/log/pods/ns_web_u',
      dns: { servers: ['10.0.0.10', 'fd00::a'], searches: ['ns.svc.cluster.local'], options: ['ndots:5'] },
      portMappings: [
        { protocol: 'sctp', containerPort: 80, hostPort: 8080, hostIp: '127.0.0.1' },
        { protocol: 'tcp', containerPort: 53, hostPort: 0 },
      ],
      labels: { a: 'b' },
      annotations: { c: ' d\n' },
      cgroupParent: '/kubepods/podu',
      sysctls: { 'net.ipv4.ip_forward': '1', 'net/ipv4/ping_group_range': '0 1' },
      overhead: { cpuShares: 100 },
      resources: { memoryLimit: 2 ** 30 },
      security: {
        namespaces: { network: 'node', pid: 'container', ipc: 'node' },
        runAsUser: 0,
        runAsGroup: 2 ** 31 - 1,
        readonlyRootfs: true,
        supplementalGroups: [1, 2],
        supplementalGroupsPolicy: 'strict',
        privileged: true,
        seccomp: { kind: 'localhost', localhostRef: '/p/x.json' },
        apparmor: { kind: 'localhost', localhostRef: 'mine' },
        selinux: { user: '', role: '', type: 'container_t', level: '' },
      },
    });
  });

  it("takes an empty DNS configuration for the node's own", () => {
    assert.equal('dns' in translate({ dnsConfig: {} }), false);
  });

  it('reads user namespaces: none from old kubelets, NODE, one mapping, or ours to choose', () => {
    assert.equal(withSecurity({ namespaceOptions: {} }).security.namespaces.userns, undefined);
    assert.deepEqual(userns({ mode: NODE }).security.namespaces.userns, { mode: 'node', uids: [], gids: [] });
    assert.deepEqual(userns({ mode: POD }).security.namespaces.userns, { mode: 'pod', uids: [], gids: [] });
    const line = { containerId: 0, hostId: 65536, size: 65536 };
    assert.deepEqual(userns({ mode: POD, uids: [mapping], gids: [mapping] }).security.namespaces.userns, {
      mode: 'pod',
      uids: [line],
      gids: [line],
    });
  });

  it('still understands the seccomp strings of old clients; the new field wins', () => {
    const kinds = {
      unconfined: 'unconfined',
      'runtime/default': 'runtime-default',
      'docker/default': 'runtime-default',
    };
    for (const [value, kind] of Object.entries(kinds)) {
      assert.deepEqual(withSecurity({ seccompProfilePath: value }).security.seccomp, { kind });
    }
    assert.deepEqual(withSecurity({ seccompProfilePath: 'localhost//p/x.json' }).security.seccomp, {
      kind: 'localhost',
      localhostRef: '/p/x.json',
    });
    const both = { seccompProfilePath: 'unconfined', seccomp: { profileType: 0 as const } };
    assert.deepEqual(withSecurity(both).security.seccomp, { kind: 'runtime-default' });
  });

  it('takes cgroup parents from the root, but for slices', () => {
    const parents = { '': '', '/a/b': '/a/b', 'a/b': '/a/b', 'kubepods-podx.slice': 'kubepods-podx.slice' };
    for (const [given, expected] of Object.entries(parents)) {
      assert.equal(withLinux({ cgroupParent: given }).cgroupParent, expected);
    }
  });

  const wrong: readonly (readonly [() => unknown, string])[] = [
    [() => sandboxConfig('config', undefined), 'config: is required'],
    [() => translate({ metadata: undefined }), 'config.metadata: is required'],
    [() => translate({ metadata: { ...metadata, name: '' } }), 'config.metadata.name: must not be empty'],
    [() => translate({ metadata: { ...metadata, uid: '' } }), 'config.metadata.uid: must not be empty'],
    [
      () => translate({ metadata: { ...metadata, namespace: 'a\nb' } }),
      'config.metadata.namespace: must not contain control',
    ],
    [() => translate({ metadata: { ...metadata, name: 'x'.repeat(254) } }), 'config.metadata.name: is longer than 253'],
    [() => translate({ hostname: 'x'.repeat(65) }), 'config.hostname: is longer than 64'],
    [() => translate({ hostname: 'a b' }), 'config.hostname: "a b" is not a hostname'],
    [() => translate({ hostname: '-a' }), 'config.hostname: "-a" is not a hostname'],
    [() => translate({ logDirectory: 'logs' }), 'config.log_directory: "logs" must be an absolute path'],
    [() => translate({ logDirectory: '/a/../b' }), 'config.log_directory: "/a/../b" must not contain ".."'],
    [() => translate({ dnsConfig: { servers: ['a\noptions x'] } }), 'config.dns_config.servers[0]: '],
    [() => translate({ dnsConfig: { options: ['ok', ''] } }), 'config.dns_config.options[1]: "" must be one word'],
    [
      () => translate({ portMappings: [{ hostPort: 65536 }] }),
      'config.port_mappings[0].host_port: 65536 is not within',
    ],
    [() => translate({ portMappings: [{ hostPort: 80 }] }), 'config.port_mappings[0].container_port: 0 is not within'],
    [() => translate({ portMappings: [{ containerPort: -1 }] }), 'config.port_mappings[0].container_port: -1 is not'],
    [
      () => translate({ portMappings: [{ hostIp: 'localhost' }] }),
      'config.port_mappings[0].host_ip: "localhost" is not',
    ],
    [
      () => translate({ portMappings: [{ protocol: 7 as wire.Protocol }] }),
      'config.port_mappings[0].protocol: value 7',
    ],
    [() => withLinux({ cgroupParent: '/a/../b' }), 'config.linux.cgroup_parent: '],
    [() => withLinux({ sysctls: { 'kernel/../x': '1' } }), 'config.linux.sysctls["kernel/../x"]: is not the name'],
    [() => withLinux({ sysctls: { 'kernel.x': '1\0' } }), 'config.linux.sysctls["kernel.x"]: must not contain a NUL'],
    [() => withLinux({ overhead: { oomScoreAdj: 1001n } }), 'config.linux.overhead.oom_score_adj: 1001 is not within'],
    [
      () => withSecurity({ runAsGroup: { value: 1n } }),
      'config.linux.security_context.run_as_group: needs run_as_user',
    ],
    [() => withSecurity({ runAsUser: { value: -1n } }), 'config.linux.security_context.run_as_user: -1 is not within'],
    [() => withSecurity({ runAsUser: { value: 2n ** 31n } }), 'config.linux.security_context.run_as_user: 2147483648'],
    [() => withSecurity({ runAsUser: { value: 2n ** 60n } }), 'config.linux.security_context.run_as_user: 11529'],
    [() => withSecurity({ supplementalGroups: [-1n] }), 'config.linux.security_context.supplemental_groups[0]: -1'],
    [() => withSecurity({ seccompProfilePath: 'x' }), 'config.linux.security_context.seccomp_profile_path: "x" is not'],
    [
      () => withSecurity({ seccomp: { profileType: 2, localhostRef: 'x.json' } }),
      'config.linux.security_context.seccomp.localhost_ref: "x.json" must be an absolute path',
    ],
    [
      () => withSecurity({ apparmor: { profileType: 2 } }),
      'config.linux.security_context.apparmor.localhost_ref: must not be empty',
    ],
    [
      () => withSecurity({ apparmor: { profileType: 0, localhostRef: 'x' } }),
      'config.linux.security_context.apparmor.localhost_ref: needs profile type Localhost',
    ],
    [
      () => withSecurity({ namespaceOptions: { network: CONTAINER } }),
      'config.linux.security_context.namespace_options.network: value 1 is not supported',
    ],
    [
      () => withSecurity({ namespaceOptions: { pid: TARGET, targetId: 'x' } }),
      'config.linux.security_context.namespace_options.pid: value 3 is not supported',
    ],
    ...(
      [
        [{ mode: CONTAINER }, '.mode: value 1 is not supported'],
        [{ mode: TARGET }, '.mode: value 3 is not supported'],
        [{ mode: NODE, uids: [mapping], gids: [mapping] }, ': mode NODE must not have mappings'],
        [{ mode: POD, uids: [mapping, mapping] }, '.uids: only one mapping is supported, got 2'],
        [{ mode: POD, gids: [{ ...mapping, containerId: 1 }] }, '.gids: container id 0 must be mapped'],
        [{ mode: POD, uids: [mapping] }, ': uids and gids must be given together'],
        [{ mode: POD, uids: [{ ...mapping, length: 0 }] }, '.uids[0].length: must not be 0'],
        [{ mode: POD, uids: [{ ...mapping, hostId: 2 ** 32 - 1 }] }, '.uids[0].host_id: '],
      ] as const
    ).map(
      ([options, message]) =>
        [
          () => userns(options as wire.DeepPartial<wire.UserNamespace>),
          `config.linux.security_context.namespace_options.userns_options${message}`,
        ] as const,
    ),
  ];
  for (const [work, message] of wrong) {
    it(`refuses: ${message}`, () => {
      assert.throws(work, (error) => isKind(error, 'invalid-argument') && error.message.startsWith(message));
    });
  }
});

describe('sandbox answers', () => {
  it('give back the namespaces that were asked for', () => {
    const options = {
      network: NODE,
      pid: CONTAINER,
      ipc: POD,
      usernsOptions: { mode: POD, uids: [mapping], gids: [mapping] },
    };
    const { namespaces } = withSecurity({ namespaceOptions: options }).security;
    assert.deepEqual(wireNamespaces(namespaces), wire.NamespaceOption.fromPartial(options));
  });

  it('have no address without a network of their own', () => {
    const view = {
      id: 'x',
      config: translate({}),
      runtimeHandler: '',
      state: 'not-ready',
      createdAt: 1n,
      ips: [],
    } as const;
    const status = wireSandboxStatus(view);
    assert.deepEqual(status.network, { ip: '', additionalIps: [] });
    assert.equal(status.state, wire.PodSandboxState.SANDBOX_NOTREADY);
  });
});

describe('sandboxFilter', () => {
  it('leaves out what is not asked for', () => {
    assert.deepEqual(sandboxFilter(undefined), {});
    assert.deepEqual(sandboxFilter(wire.PodSandboxFilter.create()), {});
    const state = { state: wire.PodSandboxState.SANDBOX_NOTREADY };
    const filter = wire.PodSandboxFilter.fromPartial({ id: 'x', state, labelSelector: { a: 'b' } });
    assert.deepEqual(sandboxFilter(filter), { id: 'x', state: 'not-ready', labels: { a: 'b' } });
  });
});
