import assert from 'node:assert/strict';
import { testFacts, testSpec, type SpecChanges } from '../../../test/support/plan/specs.js';
import { RuntimeError } from '../../kit/errors.js';
import type { OciMount } from '../spec/oci.js';
import { compilePlan } from './compile.js';
import type { LaunchFacts } from './facts.js';
import type { InnerStep, LaunchPlan, OuterStep } from './plan.js';
import { encodePlan } from './wire.js';

const root = { path: '/root', at: (path: string) => `/root${path}`, remove: () => undefined };
const compile = (changes: SpecChanges = {}, facts: Partial<LaunchFacts> = {}): LaunchPlan =>
  compilePlan(testSpec(['/app'], changes), testFacts(root, facts));

const outer = <Op extends OuterStep['op']>(plan: LaunchPlan, op: Op): Extract<OuterStep, { op: Op }>[] =>
  plan.outer.filter((step): step is Extract<OuterStep, { op: Op }> => step.op === op);
const inner = <Op extends InnerStep['op']>(plan: LaunchPlan, op: Op): Extract<InnerStep, { op: Op }>[] =>
  plan.inner.filter((step): step is Extract<InnerStep, { op: Op }> => step.op === op);
const ops = (plan: LaunchPlan): string[] => plan.inner.map(({ op }) => op);

const refuses = (changes: SpecChanges, message: RegExp, facts: Partial<LaunchFacts> = {}): void =>
  assert.throws(
    () => compile(changes, facts),
    (error) => error instanceof RuntimeError && error.kind === 'invalid-argument' && message.test(error.message),
  );
const refusesMount = (mount: OciMount, message: RegExp): void => refuses({ spec: { mounts: [mount] } }, message);

describe('compiling a container plan', () => {
  it('labels its file systems where the kernel takes a label', () => {
    const mounts = ['tmpfs', 'devpts', 'mqueue', 'proc'].map((type) => ({ destination: `/${type}`, type }));
    const labelled = (...types: readonly ('user' | 'mount')[]) => {
      const ids = [{ containerID: 0, hostID: 100_000, size: 65_536 }];
      const own = types.includes('user') ? { uidMappings: ids, gidMappings: ids } : {};
      const linux = { mountLabel: 'u:r:t', namespaces: types.map((type) => ({ type })), ...own };
      const steps = inner(compile({ spec: { mounts, hostname: '' }, linux }), 'mount');
      return steps.filter(({ options }) => options.some(({ key }) => key === 'context')).map(({ fstype }) => fstype);
    };
    assert.deepEqual(labelled('mount'), ['tmpfs', 'devpts', 'mqueue']);
    assert.deepEqual(labelled('user', 'mount'), ['tmpfs', 'devpts']);
  });

  it('refuses what cannot be honoured, by its place in the spec', () => {
    refusesMount({ destination: 'etc', type: 'tmpfs' }, /^mounts\[0\]\.destination: "etc" is not an absolute path/);
    refusesMount({ destination: '/', type: 'tmpfs' }, /^mounts\[0\]\.destination: the root/);
    refusesMount({ destination: '/a', source: 'rel', options: ['bind'] }, /^mounts\[0\]\.source: "rel"/);
    refusesMount({ destination: '/a', source: '/b', options: ['bind', 'size=1'] }, /^mounts\[0\]\.options: "size"/);
    refusesMount({ destination: '/a', source: '/b' }, /^mounts\[0\]\.type: is needed/);
    refusesMount({ destination: '/a', type: 'a b' }, /^mounts\[0\]\.type: "a b"/);
    refusesMount({ destination: '/a', type: 'proc', options: ['tmpcopyup'] }, /needs a tmpfs/);
    refusesMount({ destination: '/a', type: 'tmpfs', options: ['idmap'] }, /only bind mounts/);
    refuses({ process: { cwd: 'tmp' } }, /^process\.cwd: "tmp"/);
    refuses({ process: { args: [] } }, /^process\.args: names no program/);
    refuses({ process: { args: ['a\0b'] } }, /^process\.args\[0\]: holds a zero byte/);
    refuses({ process: { user: { uid: -1, gid: 0 } } }, /^process\.user\.uid: -1 is not an id/);
    refuses({ process: { user: { uid: 0, gid: 2 ** 32 - 1 } } }, /^process\.user\.gid/);
    refuses({ process: { user: { uid: 0, gid: 0, additionalGids: [1, 1.5] } } }, /^process\.user\.additionalGids\[1\]/);
    refuses({ process: { rlimits: [{ type: 'RLIMIT_X', soft: 0n, hard: 0n }] } }, /^process\.rlimits\[0\]\.type/);
    refuses({ process: { rlimits: [{ type: 'RLIMIT_CPU', soft: 2n, hard: 1n }] } }, /^process\.rlimits\[0\]\.soft/);
    refuses({ process: { oomScoreAdj: 1001 } }, /^process\.oomScoreAdj: 1001/);
    refuses(
      { process: { capabilities: { bounding: ['CAP_FLY'] } } },
      /^process\.capabilities\.bounding\[0\]: "CAP_FLY"/,
    );
    refuses({ linux: { rootfsPropagation: 'loud' } }, /^linux\.rootfsPropagation: "loud"/);
    refuses({ linux: { maskedPaths: ['proc/kcore'] } }, /^linux\.maskedPaths\[0\]/);
    refuses({ linux: { sysctl: { '../../x': '1' } } }, /^linux\.sysctl/);
    refuses({ linux: { devices: [{ path: 'null', type: 'c', major: 1, minor: 3 }] } }, /^linux\.devices\[0\]\.path/);
    refuses({ linux: { namespaces: [] } }, /^linux\.namespaces: a container needs a mount namespace/);
    refuses(
      { linux: { namespaces: [{ type: 'mount' }, { type: 'mount' }] } },
      /^linux\.namespaces\[1\]\.type: mount is given twice/,
    );
    refuses(
      { linux: { namespaces: [{ type: 'mount' }, { type: 'network', path: 'x' }] } },
      /^linux\.namespaces\[1\]\.path/,
    );
    refuses({ linux: { namespaces: [{ type: 'mount' }] } }, /^hostname: needs a UTS namespace/);
  });

  it('does not take a path that only starts like a reserved one for it', () => {
    const mounts = [
      { destination: '/sysroot', type: 'tmpfs' },
      { destination: '/device', source: '/x', options: ['bind'] },
    ];
    assert.equal(inner(compile({ spec: { mounts } }), 'device').length, 6);
  });

  it('loads a filter last with no_new_privs, and before the capabilities go without', () => {
    const seccomp = { program: new Uint8Array(8), flags: 0 };
    const tail = (noNewPrivileges: boolean): string[] =>
      ops(compile({ process: { noNewPrivileges } }, { seccomp })).slice(-5);
    assert.deepEqual(tail(true), ['user', 'capabilities', 'no-new-privileges', 'seccomp', 'exec']);
    assert.deepEqual(tail(false).slice(-4), ['user', 'seccomp', 'capabilities', 'exec']);
  });

  it('hands on no capability the shim does not have, and none as inheritable by itself', () => {
    const names = ['CAP_CHOWN', 'CAP_SYS_RESOURCE', 'CAP_SYS_ADMIN'];
    const sets = { bounding: names, permitted: names, effective: names, ambient: names };
    const [step] = inner(compile({ process: { capabilities: sets } }), 'capabilities');
    assert.equal(step?.permitted, (1n << 0n) | (1n << 21n));
    assert.deepEqual([step?.inheritable, step?.ambient], [0n, 0n]);
  });

  it('has the primary group among the groups, once', () => {
    const [step] = inner(compile({ process: { user: { uid: 1, gid: 9, additionalGids: [9, 3, 3] } } }), 'user');
    assert.deepEqual(step?.groups, [3, 9]);
  });

  it('sets top and tree apart for a recursive bind', () => {
    const mounts = [{ destination: '/a', source: '/b', options: ['rbind', 'ro', 'rnosuid', 'rslave'] }];
    const plan = compile({ spec: { mounts } });
    const [, source] = outer(plan, 'bind-source');
    assert.deepEqual(source?.attributes, { set: 2, clear: 0, propagation: 1 << 19, recursive: true });
    assert.deepEqual(inner(plan, 'set-attributes')[0]?.attributes.set, 1);
  });

  it('makes the cgroup namespace before cgroup2 is mounted, and late on v1', () => {
    const mounts = [{ destination: '/sys/fs/cgroup', type: 'cgroup', options: ['ro'] }];
    const facts = testFacts(root);
    const namespaces = { cgroup: { from: 'new' } } as const;
    const v2 = { ...facts.cgroup, layout: { version: 'v2' as const, v2Root: '/sys/fs/cgroup', v1Roots: new Map() } };
    const onV2 = ops(compile({ spec: { mounts } }, { namespaces, cgroup: v2 }));
    assert.ok(onV2.indexOf('unshare-cgroup') < onV2.indexOf('mount'));
    const onV1 = ops(compile({ spec: { mounts } }, { namespaces }));
    assert.ok(onV1.indexOf('unshare-cgroup') > onV1.indexOf('pivot'));
    assert.ok(onV1.indexOf('unshare-cgroup') < onV1.indexOf('user'));
  });

  it('enters what the facts say, and creates what they do not', () => {
    const plan = compile(
      {},
      { namespaces: { net: { from: 'pod' }, ipc: { from: 'host' }, pid: { from: 'container', id: 'c0' } } },
    );
    assert.deepEqual(
      outer(plan, 'enter').map(({ kind }) => kind),
      ['pid', 'net'],
    );
    assert.deepEqual(outer(plan, 'clone')[0]?.create, ['uts', 'mnt']);
  });

  it('refuses more bind mounts than there are slots', () => {
    const mounts = Array.from({ length: 256 }, (_, i) => ({ destination: `/m${i}`, source: '/x', options: ['bind'] }));
    refuses({ spec: { mounts } }, /^mounts: a container cannot have more than 255/);
  });
});

describe('encoding a plan', () => {
  it('refuses a zero byte, which would end a string early', () => {
    const plan = compile();
    const bad: LaunchPlan = {
      ...plan,
      inner: [...plan.inner.slice(0, -1), { op: 'exec', args: ['a'], env: [new Uint8Array([65, 61, 0])] }],
    };
    assert.throws(() => encodePlan(bad), /zero byte/);
  });

  it('refuses more steps than the shim takes', () => {
    const plan = compile();
    const many = Array.from({ length: 4096 }, (): InnerStep => ({ op: 'pivot' }));
    assert.throws(() => encodePlan({ ...plan, inner: many }), /at most 4096/);
  });
});
