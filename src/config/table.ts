import { boolean, bytes, choice, duration, integer, list, map, number, path, string } from './key.js';

/**
 * Every setting there is. A property `cniConfDir` of section `network` is `network.cni_conf_dir` in the file,
 * `BERTH_NETWORK_CNI_CONF_DIR` in the environment and `--network-cni-conf-dir` as a flag; an ending `Ms` is left out
 * of these names, since durations are written with their unit.
 */
export const table = {
  root: path('/var/lib/berth', 'Images, snapshots and records. Survives a reboot; mode 0700.', { check: notEmpty }),
  state: path('/run/berth', 'Sockets, bundles and exit records. Must not survive a reboot; mode 0700.', {
    check: (value) => notEmpty(value) ?? stateLength(value),
  }),
  socket: path('', 'The CRI socket. Empty: berth.sock in the state directory.', { check: socketLength }),

  admin: {
    socket: path('', 'The socket that the berth command talks to. Empty: admin.sock in the state directory.', {
      check: socketLength,
    }),
    address: string(
      '',
      'host:port that serves /metrics and /healthz over TCP, without any authentication. Empty: none.',
      {
        check: hostPort,
      },
    ),
  },

  server: {
    maxMessageBytes: bytes(80 * 2 ** 20, 'Largest CRI message accepted or sent.', { min: 4 * 2 ** 20 }),
  },

  streaming: {
    address: string('127.0.0.1', 'Where Exec, Attach and PortForward are served. Only the kubelet needs to reach it.', {
      check: notEmpty,
    }),
    port: integer(0, 'Port of the streaming server. 0: the kernel chooses one.', { max: 65_535 }),
    idleTimeoutMs: duration(4 * 3_600_000, 'A session without a byte for this long ends.', { min: 1000 }),
    creationTimeoutMs: duration(30_000, 'How long a client may take to open its streams.', { min: 100 }),
    tls: choice(
      ['off', 'self-signed', 'files'],
      'off',
      'Plain HTTP, a certificate made at the start, or one from files. Off is safe on loopback only.',
    ),
    tlsCert: path('', 'PEM file with the streaming server’s certificate, read again when it changes.'),
    tlsKey: path('', 'PEM file with the certificate’s key.'),
  },

  cgroup: {
    driver: choice(['cgroupfs', 'systemd'], 'cgroupfs', 'Who makes cgroups. Must be what the kubelet uses.'),
    parent: string('/berth', 'Where pods go that name no cgroup parent, and the shims themselves.', {
      check: absolute,
    }),
    tolerateMissingHugetlb: boolean(true, 'Run containers with huge page limits where the controller is missing.'),
  },

  network: {
    mode: choice(
      ['auto', 'cni', 'builtin'],
      'auto',
      'How pods get a network: CNI plugins, the built-in bridge, or the built-in one until a CNI configuration appears.',
    ),
    cniConfDir: path('/etc/cni/net.d', 'Where CNI configurations are; the first by name is used.', { check: notEmpty }),
    cniBinDirs: list(['/opt/cni/bin', '/usr/lib/cni'], 'Where CNI plugins are looked for, in this order.'),
    netnsDir: path('/run/netns', 'Where network namespaces are pinned, for plugins and people.', { check: notEmpty }),
    bridge: string('berth0', 'Name of the built-in network’s bridge.', { check: linkName }),
    subnets: list(['10.199.0.0/16'], 'Subnets of the built-in network, one per address family, in CIDR form.'),
    mtu: integer(0, 'MTU of the built-in network’s links. 0: that of the default route, else 1500.', { max: 65_535 }),
    rootless: choice(
      ['auto', 'pasta', 'slirp4netns', 'none'],
      'auto',
      'By which program pods of an ordinary user reach other hosts. none: they reach each other only.',
    ),
    masquerade: boolean(true, 'Hide the built-in network’s addresses behind the node’s when leaving the node.'),
  },

  images: {
    certsDir: path('/etc/berth/certs.d', 'Registry hosts: HOST/hosts.toml, with mirrors and certificates.'),
    maxConcurrentDownloads: integer(6, 'Layers downloaded at once, over all pulls.', { min: 1, max: 64 }),
    maxConcurrentUnpacks: integer(2, 'Layers unpacked at once, over all pulls.', { min: 1, max: 64 }),
    connectTimeoutMs: duration(30_000, 'How long a registry may take to accept a connection.', { min: 1 }),
    stallTimeoutMs: duration(60_000, 'A download without a byte for this long is tried again.', { min: 1000 }),
    pinned: list([], 'Images never to be removed by the kubelet’s garbage collection; a final * matches any ending.'),
    platform: string('', 'Platform chosen from an image index, like linux/arm64. Empty: this machine’s.'),
  },

  runtime: {
    defaultHandler: string('berth', 'Runtime handler of pods that name none.', { check: notEmpty }),
    pidsLimit: integer(0, 'Most processes in a container. 0: no limit of ours.'),
    imageVolumes: choice(
      ['bind', 'mkdir', 'ignore'],
      'bind',
      'Volumes that images declare: a directory outside the root with a copy of what the image has there, just a directory in the root, or nothing.',
    ),
    restrictOomScoreAdj: boolean(false, 'Raise a too low oom_score_adj to the agent’s own instead of failing.'),
    rlimits: map({}, 'Resource limits of containers by name, like { nofile = "1024:524288" }. Others are inherited.'),
    capabilities: list(
      [
        'CHOWN',
        'DAC_OVERRIDE',
        'FSETID',
        'FOWNER',
        'MKNOD',
        'NET_RAW',
        'SETGID',
        'SETUID',
        'SETFCAP',
        'SETPCAP',
        'NET_BIND_SERVICE',
        'SYS_CHROOT',
        'KILL',
        'AUDIT_WRITE',
      ],
      'Capabilities of containers that ask for no change.',
      { check: capabilityNames },
    ),
    defaultSysctls: map({}, 'Sysctls set in every pod with namespaces of its own; a pod’s own settings win.'),
    unprivilegedPorts: boolean(true, 'Let any user of a pod with its own network bind ports below 1024.'),
    unprivilegedPing: boolean(true, 'Let any user of a pod with its own network send ICMP echo requests.'),
    cdiSpecDirs: list(
      ['/etc/cdi', '/var/run/cdi'],
      'Where specs of CDI devices are, as .json and .yaml; a device in a later directory hides one of an earlier.',
      { check: absolutePaths },
    ),
    deviceOwnershipFromSecurityContext: boolean(
      false,
      'Give device nodes that are root’s on the host to a container’s run_as_user and run_as_group.',
    ),
    selinux: boolean(true, 'Label processes, roots and volumes of containers where the kernel has SELinux.'),
    seccompProfile: path('', 'The profile that RuntimeDefault stands for. Empty: the built-in one.'),
    drainMs: duration(2000, 'How long output may still arrive after a container or exec has ended.'),
    logLineBytes: bytes(16 * 2 ** 10, 'Longest log line; longer ones are split and tagged P.', { min: 256 }),
    execOutputBytes: bytes(16 * 2 ** 20, 'Output kept of one ExecSync, per stream; the rest is dropped.', {
      min: 1024,
    }),
  },

  checkpoint: {
    criu: path('', 'The CRIU program that checkpoints are made with. Empty: criu found in PATH.'),
    timeoutMs: duration(300_000, 'How long a checkpoint may take whose request names no time.', { min: 1000 }),
  },

  userns: {
    handlers: list([], 'Further runtime handlers: their pods get user namespaces even where nobody asks for one.'),
    ranges: list([], 'Host ids for user namespaces that we choose, as START:SIZE. Empty: those of the user below.', {
      check: idRanges,
    }),
    user: string('berth', 'Whose lines of /etc/subuid and /etc/subgid are used without ranges.', { check: notEmpty }),
    size: integer(65_536, 'Ids of each user namespace that we choose.', { min: 1, max: 0xffff_fffe }),
    snapshots: choice(
      ['auto', 'idmapped', 'metacopy', 'copy'],
      'auto',
      'How images’ files get the ids of a user namespace: layers mounted idmapped, a layer of owners over them, a copy, or the first of these that works here.',
    ),
    unusedRemaps: integer(4, 'Layers of owners and copies that are kept while no container uses them.', { max: 1000 }),
  },

  nri: {
    enable: boolean(true, 'Let plugins of the Node Resource Interface follow pods and containers and change them.'),
    socketPath: path('/var/run/nri/nri.sock', 'Where plugins connect; mode 0600, in a directory of mode 0700.', {
      check: (value) => notEmpty(value) ?? socketLength(value),
    }),
    pluginPath: path('/opt/nri/plugins', 'Plugins started with the agent, each a program named NN-name.', {
      check: notEmpty,
    }),
    pluginConfigPath: path('/etc/nri/conf.d', 'Their configurations: NN-name.conf or name.conf.', { check: notEmpty }),
    registrationTimeoutMs: duration(5000, 'How long a plugin may take to register, and to take in what there is.', {
      min: 1,
    }),
    requestTimeoutMs: duration(2000, 'A plugin that needs longer for a request is closed, and pods go on without it.', {
      min: 1,
    }),
  },

  log: {
    level: choice(['debug', 'info', 'warn', 'error'], 'info', 'Least severe messages written.', { reloadable: true }),
    format: choice(['json', 'text'], 'json', 'One JSON object a line, or lines for people.'),
  },

  metrics: {
    enabled: boolean(true, 'Count and time requests; served at /metrics.'),
  },

  tracing: {
    endpoint: string('', 'OTLP endpoint for traces, like http://127.0.0.1:4317. Empty: no tracing.', { check: url }),
    protocol: choice(['grpc', 'http'], 'grpc', 'OTLP over gRPC, or over HTTP with protobuf.'),
    sampling: number(1, 'Share of requests traced when the caller did not decide, 0 to 1.', { min: 0, max: 1 }),
  },

  shutdown: {
    timeoutMs: duration(10_000, 'How long running requests get to finish when the agent is told to stop.'),
  },
} as const;

function notEmpty(value: string): string | undefined {
  return value === '' ? 'must not be empty' : undefined;
}

/** A pod's socket is STATE/pods/ID/shim.sock with an id of 64 digits, in the 107 bytes of unix(7). */
function stateLength(value: string): string | undefined {
  const most = 107 - '/pods//shim.sock'.length - 64;
  return Buffer.byteLength(value) > most
    ? `is longer than ${most} bytes, which leaves no room for the sockets of pods`
    : undefined;
}

/** sockaddr_un holds 108 bytes with the final NUL (unix(7)). */
function socketLength(value: string): string | undefined {
  return Buffer.byteLength(value) > 107 ? 'is longer than a socket path may be (107 bytes)' : undefined;
}

function hostPort(value: string): string | undefined {
  return value === '' || /^(\[[0-9a-f:]+\]|[^:]*):\d{1,5}$/i.test(value) ? undefined : 'must be host:port';
}

function absolute(value: string): string | undefined {
  return value.startsWith('/') ? undefined : 'must start with /';
}

function absolutePaths(value: readonly string[]): string | undefined {
  const wrong = value.find((path) => !path.startsWith('/'));
  return wrong === undefined ? undefined : `"${wrong}" is no absolute path`;
}

/** IFNAMSIZ is 16 with the final NUL. */
function linkName(value: string): string | undefined {
  return /^[^\s/]{1,15}$/.test(value) ? undefined : 'must be 1 to 15 characters without space or slash';
}

function capabilityNames(value: readonly string[]): string | undefined {
  const wrong = value.find((name) => !/^(CAP_)?[A-Z_]+$/.test(name));
  return wrong === undefined ? undefined : `"${wrong}" is no capability name`;
}

function idRanges(value: readonly string[]): string | undefined {
  const wrong = value.find((range) => !/^[1-9]\d{0,9}:[1-9]\d{0,9}$/.test(range));
  return wrong === undefined ? undefined : `"${wrong}" is not START:SIZE`;
}

function url(value: string): string | undefined {
  return value === '' || URL.canParse(value) ? undefined : 'must be a URL';
}
