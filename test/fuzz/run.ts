/**
 * `npm run fuzz -- [--seconds 20] [--seed N] [TARGET…]`: feeds mutated input to every parser of data that comes from
 * outside. A parser may answer or throw a RuntimeError; anything else is a fault, printed with its seed and input.
 */
import { parseArgs } from 'node:util';
import { parseConfig as parseSettings } from '../../src/config.js';
import { RuntimeError } from '../../src/kit/errors.js';
import { parseLogLine } from '../../src/cli/log-lines.js';
import { readCdiSpec } from '../../src/runtime/cdi/read-spec.js';
import { parseChallenges } from '../../src/runtime/images/challenge.js';
import { parseHosts } from '../../src/runtime/images/hosts.js';
import { parseConfig, parseManifest } from '../../src/runtime/images/manifest.js';
import { formatReference, parseReference } from '../../src/runtime/images/reference.js';
import { parseCniConfig } from '../../src/runtime/network/cni-config.js';
import { convertResult, parseResult } from '../../src/runtime/network/cni-result.js';
import { parseSeccompJson } from '../../src/runtime/plan/seccomp/profile.js';
import { decodePlan, encodePlan } from '../../src/runtime/plan/wire.js';
import { goldenPlans } from '../support/plan/golden-plans.js';

interface Target {
  readonly seeds: readonly (string | Uint8Array)[];
  readonly run: (input: Buffer) => unknown;
}

const digest = `sha256:${'a'.repeat(64)}`;
const descriptor = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest, size: 12 };
const json = (value: unknown): string => JSON.stringify(value);
const cniConfig = {
  cniVersion: '1.0.0',
  name: 'n',
  plugins: [{ type: 'bridge', capabilities: { portMappings: true } }],
};
const cniResult = {
  cniVersion: '1.0.0',
  interfaces: [{ name: 'eth0', mac: '00:11:22:33:44:55', sandbox: '/run/netns/x' }],
  ips: [{ address: '10.0.0.2/24', gateway: '10.0.0.1', interface: 0 }],
  routes: [{ dst: '0.0.0.0/0' }],
};

const cdiEdits = {
  env: ['A=b'],
  deviceNodes: [{ path: '/dev/x', hostPath: '/dev/y', type: 'c', major: 1, fileMode: 432, permissions: 'rw' }],
  mounts: [{ hostPath: '/a', containerPath: '/b', options: ['ro', 'bind'] }],
  hooks: [{ hookName: 'poststop', path: '/h', args: ['h'], timeout: 1 }],
  additionalGids: [1],
};
const cdiSpec = {
  cdiVersion: '1.1.0',
  kind: 'v.com/c',
  devices: [{ name: '0', annotations: { a: 'b' }, containerEdits: cdiEdits }],
};

const targets: Readonly<Record<string, Target>> = {
  settings: {
    seeds: ['root = "/x"\n[network]\nmtu = 1\n[log]\nlevel = "info"\n'],
    run: (input) => parseSettings(input.toString(), 'fuzz'),
  },
  reference: {
    seeds: ['busybox', 'docker.io/library/busybox:1.2', `localhost:5000/a/b@${digest}`, '[::1]:5000/a:b'],
    // What was read and written again must mean the same.
    run(input) {
      const once = formatReference(parseReference(input.toString()));
      if (formatReference(parseReference(once)) !== once) throw new Error(`not stable: ${once}`);
    },
  },
  manifest: {
    seeds: [
      json({ schemaVersion: 2, config: descriptor, layers: [descriptor] }),
      json({
        schemaVersion: 2,
        manifests: [{ ...descriptor, platform: { os: 'linux', architecture: 'arm64', variant: 'v8' } }],
      }),
    ],
    run: (input) => parseManifest(input, undefined, 'fuzz'),
  },
  'image config': {
    seeds: [
      json({
        os: 'linux',
        architecture: 'amd64',
        config: { Env: ['A=b'], Cmd: ['sh'], User: '0:0' },
        rootfs: { type: 'layers', diff_ids: [digest] },
      }),
    ],
    run: (input) => parseConfig(input, 'fuzz'),
  },
  'CDI spec in JSON': { seeds: [json(cdiSpec)], run: (input) => readCdiSpec(input.toString(), 'json') },
  'CDI spec in YAML': {
    seeds: [
      json(cdiSpec),
      'cdiVersion: 0.5.0\nkind: v.com/c\ndevices:\n- name: on\n  containerEdits: &e\n    env: [A=b]\n',
    ],
    run: (input) => readCdiSpec(input.toString(), 'yaml'),
  },
  challenge: {
    seeds: ['Bearer realm="https://r/token",service="r",scope="repository:a:pull", Basic realm="x"'],
    run: (input) => parseChallenges(input.toString()),
  },
  hosts: {
    seeds: [
      'server = "https://r"\n[host."http://m:5000"]\ncapabilities = ["pull"]\nskip_verify = true\nca = "ca.crt"\n',
    ],
    run: (input) => parseHosts(input.toString(), '/none', 'r.example'),
  },
  'cni config': {
    seeds: [json(cniConfig)],
    run: (input) => (parseJson(input) === undefined ? undefined : parseCniConfig(input.toString())),
  },
  'cni result': {
    seeds: [json(cniResult)],
    run(input) {
      const value = parseJson(input);
      if (value !== undefined) convertResult(parseResult(value, 'fuzz'), '0.4.0');
    },
  },
  'seccomp profile': {
    seeds: [
      json({
        defaultAction: 'SCMP_ACT_ERRNO',
        architectures: ['SCMP_ARCH_X86_64'],
        syscalls: [{ names: ['read'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: 1, op: 'SCMP_CMP_EQ' }] }],
      }),
    ],
    run: (input) => parseSeccompJson(input.toString(), 'fuzz'),
  },
  plan: { seeds: Object.values(goldenPlans).map((plan) => encodePlan(plan)), run: (input) => decodePlan(input) },
  'log line': { seeds: ['2026-01-02T03:04:05.000000006Z stdout F text'], run: (input) => parseLogLine(input) },
};

function parseJson(input: Buffer): unknown {
  try {
    return JSON.parse(input.toString()) as unknown;
  } catch {
    return undefined;
  }
}

/** xorshift32: a run can be repeated by its seed. */
function randomSource(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

type Random = (below: number) => number;
const tokens = [
  '"',
  '{',
  '}',
  '[',
  ']',
  ':',
  ',',
  '/',
  '@',
  '-1',
  '0',
  '99999999999999999999',
  'null',
  '\\u0000',
  '\0',
  'é',
  '\n',
  '=',
  '..',
  '__proto__',
];

function mutate(seeds: readonly (string | Uint8Array)[], random: Random): Buffer {
  let bytes: Buffer = Buffer.from(seeds[random(seeds.length)] ?? '');
  for (let count = random(6); count >= 0; count--) bytes = change(bytes, seeds, random);
  return bytes;
}

function change(bytes: Buffer, seeds: readonly (string | Uint8Array)[], random: Random): Buffer {
  const at = random(bytes.length + 1);
  const end = Math.min(bytes.length, at + random(8));
  const splice = (middle: Buffer): Buffer => Buffer.concat([bytes.subarray(0, at), middle, bytes.subarray(end)]);
  switch (random(6)) {
    case 0:
      return splice(Buffer.alloc(0));
    case 1:
      return splice(Buffer.from([random(256)]));
    case 2:
      return splice(Buffer.from(tokens[random(tokens.length)] ?? ''));
    case 3:
      return splice(Buffer.concat([bytes.subarray(at, end), bytes.subarray(at, end)]));
    case 4:
      return Buffer.concat([bytes.subarray(0, at), Buffer.from(seeds[random(seeds.length)] ?? '').subarray(at)]);
    default:
      return bytes.subarray(0, at);
  }
}

const { values, positionals } = parseArgs({
  options: {
    seconds: { type: 'string', default: '20' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
  },
  allowPositionals: true,
});
const chosen = Object.entries(targets).filter(([name]) => positionals.length === 0 || positionals.includes(name));
const budget = (Number(values.seconds) * 1000) / chosen.length;
let faults = 0;
for (const [name, { seeds, run }] of chosen) {
  const random = randomSource(Number(values.seed));
  const until = performance.now() + budget;
  let tries = 0;
  for (; performance.now() < until; tries++) {
    const input = mutate(seeds, random);
    try {
      run(input);
    } catch (error) {
      if (error instanceof RuntimeError) continue;
      faults++;
      console.error(
        `${name}, seed ${values.seed}, try ${tries}: ${String(error)}\n  input (base64): ${input.toString('base64')}`,
      );
      break;
    }
  }
  console.log(`${name}: ${tries} inputs`);
}
process.exitCode = faults > 0 ? 1 : 0;
