import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { compileExecPlan } from '../../src/runtime/plan/compile-exec.js';
import { compilePlan } from '../../src/runtime/plan/compile.js';
import { runPlan, runPlans } from '../support/plan/exec-tool.js';
import { testFacts, testRoot, testSpec, type SpecChanges, type TestRoot } from '../support/plan/specs.js';

/** Images that try to get out: links, nodes and directories where the launch expects something else. */
describe('launch plans against hostile images', function () {
  this.timeout(60_000);
  let root: TestRoot;
  let outside: string;
  beforeEach(() => {
    root = testRoot();
    outside = `${root.path}-outside`;
    mkdirSync(outside);
    writeFileSync(`${outside}/file`, 'host');
  });
  afterEach(() => {
    root.remove();
    rmSync(outside, { recursive: true, force: true });
  });

  const run = (command: string, changes: SpecChanges = {}) =>
    runPlan(compilePlan(testSpec(command, changes), testFacts(root)));

  describe('working directory', () => {
    for (const fd of [3, 5, 7, 8, 9, 10, 12]) {
      it(`/proc/self/fd/${fd} is refused (CVE-2024-21626)`, async () => {
        const result = await run('pwd; ls', { process: { cwd: `/proc/self/fd/${fd}` } });
        assert.equal(result.ok, false);
        assert.equal(result.stdout, '');
      });
    }

    it('is refused behind a link to a descriptor', async () => {
      symlinkSync('/proc/self/fd/7/../../..', root.at('leak'));
      const result = await run('pwd; ls', { process: { cwd: '/leak' } });
      assert.match(result.failure, /^(make directory|change directory to) \/leak: E/);
    });

    it('above the root is the root', async () => {
      assert.equal((await run('pwd', { process: { cwd: '/../../..' } })).stdout, '/\n');
    });

    it('of a link out of the image is beneath the root', async () => {
      symlinkSync(outside, root.at('work'));
      assert.equal((await run('pwd; ls | wc -l', { process: { cwd: '/work' } })).stdout, `${outside}\n0\n`);
      assert.deepEqual(readdirSync(outside), ['file']);
    });
  });

  describe('mount targets', () => {
    it('behind links out of the image stay beneath the root (CVE-2021-30465)', async () => {
      symlinkSync(outside, root.at('link'));
      symlinkSync('../../../../../../../..', root.at('up'));
      const mounts = [
        { destination: '/proc', type: 'proc' },
        { destination: '/link/made', type: 'tmpfs' },
        { destination: `/up${outside}/made-too`, type: 'tmpfs' },
      ];
      const result = await run(`grep -c ${outside} /proc/self/mounts`, { spec: { mounts } });
      assert.equal(result.failure, '');
      assert.equal(result.stdout, '2\n');
      assert.deepEqual(readdirSync(outside), ['file']);
    });

    it('follow dangling links as the container would', async () => {
      symlinkSync('/run', root.at('var-run'));
      symlinkSync('chain/../deep', root.at('relative'));
      mkdirSync(root.at('chain'));
      const mounts = [
        { destination: '/var-run/secrets/token', type: 'tmpfs' },
        { destination: '/relative/x', type: 'tmpfs' },
      ];
      const result = await run('ls -d /run/secrets/token /deep/x', { spec: { mounts } });
      assert.equal(result.stdout, '/deep/x\n/run/secrets/token\n');
    });

    it('in a circle of links fail', async () => {
      symlinkSync('b', root.at('a'));
      symlinkSync('a', root.at('b'));
      const result = await run('true', { spec: { mounts: [{ destination: '/a/x', type: 'tmpfs' }] } });
      assert.equal(result.failure, 'mount /a/x: ELOOP (target)');
    });

    for (const [name, type] of [
      ['proc', 'proc'],
      ['sys', 'sysfs'],
    ] as const) {
      it(`/${name} must be a real directory (CVE-2023-27561)`, async () => {
        rmSync(root.at(name), { recursive: true });
        mkdirSync(root.at('elsewhere'));
        symlinkSync('/elsewhere', root.at(name));
        const result = await run('true', { spec: { mounts: [{ destination: `/${name}`, type }] } });
        assert.equal(result.failure, `mount /${name}: ELOOP (target)`);
      });
    }

    it('that are files of bind sources are made without following a link', async () => {
      symlinkSync(`${outside}/file`, root.at('etc/hosts'));
      const source = `${outside}/source`;
      writeFileSync(source, 'from the host');
      const mounts = [{ destination: '/etc/hosts', type: 'bind', source, options: ['bind'] }];
      const result = await run('cat /etc/hosts', { spec: { mounts } });
      assert.equal(result.stdout, 'from the host');
      assert.equal(readFileSync(`${outside}/file`, 'utf8'), 'host');
    });
  });

  describe('/dev', () => {
    it('as a link makes no node on the host (CVE-2026-41579)', async () => {
      rmSync(root.at('dev'), { recursive: true });
      symlinkSync(outside, root.at('dev'));
      const spec = { mounts: [{ destination: '/proc', type: 'proc' }] };
      const result = await run('ls /dev/ | head -n 1', { spec });
      assert.equal(result.failure, '');
      assert.deepEqual(readdirSync(outside), ['file']);
    });

    it('with a node that is a link refuses it', async () => {
      symlinkSync(`${outside}/null`, root.at('dev/null'));
      const result = await run('true', { spec: { mounts: [{ destination: '/proc', type: 'proc' }] } });
      assert.equal(result.failure, 'make device /dev/null: EEXIST (not what it claims to be)');
      assert.equal(existsSync(`${outside}/null`), false);
    });

    it('with a fake null device does not unmask what it hides (CVE-2025-31133)', async () => {
      writeFileSync(root.at('dev/null'), 'not null');
      writeFileSync(root.at('secret'), 'secret');
      // With /dev bound from elsewhere no node is made, and the image's own file is all there is at /dev/null.
      const mounts = [{ destination: '/dev', type: 'bind', source: root.at('dev'), options: ['bind'] }];
      const result = await run('cat /secret; stat -c "%t:%T" /secret', {
        spec: { mounts },
        linux: { maskedPaths: ['/secret'] },
      });
      assert.equal(result.stdout, '1:3\n');
    });

    it('with a link at the console covers the link, not where it leads (CVE-2025-52565)', async () => {
      writeFileSync(`${outside}/console`, 'host');
      mkdirSync(root.at('mydev'));
      symlinkSync(`${outside}/console`, root.at('mydev/console'));
      const mounts = [
        { destination: '/proc', type: 'proc' },
        { destination: '/dev', type: 'bind', source: root.at('mydev'), options: ['bind'] },
        { destination: '/dev/pts', type: 'devpts', options: ['newinstance', 'ptmxmode=0666'] },
      ];
      const spec = testSpec('echo seen >/dev/console', { spec: { mounts }, process: { terminal: true } });
      const result = await runPlan(compilePlan(spec, testFacts(root)), { console: true });
      assert.equal(result.failure, '');
      assert.equal(result.stdout.trim(), 'seen');
      assert.equal(readFileSync(`${outside}/console`, 'utf8'), 'host');
    });

    it('with a fake /dev/pts gives no terminal', async () => {
      const mounts = [
        { destination: '/proc', type: 'proc' },
        { destination: '/dev', type: 'tmpfs' },
      ];
      const spec = testSpec('true', { spec: { mounts }, process: { terminal: true } });
      const result = await runPlan(compilePlan(spec, testFacts(root)), { console: true });
      assert.equal(result.failure, 'take terminal: ENOENT (terminal)');
    });
  });

  describe('/proc', () => {
    it('mounted over does not catch writes of sysctls and labels (CVE-2019-19921, CVE-2025-52881)', async () => {
      const mounts = [
        { destination: '/proc', type: 'proc' },
        { destination: '/proc/sys', type: 'tmpfs' },
      ];
      const result = await run('cat /proc/sys/net/ipv4/ip_default_ttl 2>/dev/null || echo hidden', {
        spec: { mounts },
        linux: { sysctl: { 'net.ipv4.ip_default_ttl': '77' }, readonlyPaths: [], maskedPaths: [] },
      });
      assert.equal(result.failure, '');
      assert.equal(result.stdout, 'hidden\n');
      const seen = await run('cat /proc/sys/net/ipv4/ip_default_ttl', {
        linux: { sysctl: { 'net.ipv4.ip_default_ttl': '77' } },
      });
      assert.equal(seen.stdout, '77\n');
    });
  });

  it('an exec cannot start in a directory of the host', async () => {
    const spec = testSpec('sleep 30');
    const exec = (cwd: string) => ({
      plan: compileExecPlan(spec, {
        containerId: 'p0',
        args: ['pwd'],
        terminal: false,
        cwd,
        cgroup: { join: { v1Procs: [] } },
        kernel: testFacts(root).kernel,
      }),
    });
    const { results, stdout } = await runPlans([
      { plan: compilePlan(spec, testFacts(root)), background: true },
      ...[3, 4, 5, 6, 7, 8, 9].map((fd) => exec(`/proc/self/fd/${fd}`)),
    ]);
    assert.equal(stdout, '');
    assert.deepEqual(
      results.map(({ ok }) => ok),
      [true, false, false, false, false, false, false, false],
    );
  });
});
