import assert from 'node:assert/strict';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SyscallError, isErrno } from '../../src/kit/errors.js';
import { AT, F, FS_MAGIC, MNT, MOUNT_ATTR, MS, O, RESOLVE, SOCKETS } from '../../src/native/constants.js';
import { makeDevice } from '../../src/native/files.js';
import { capabilitySet, gatherKernelFacts, parseLimits } from '../../src/native/kernel-facts.js';
import { openNative } from '../../src/native/native.js';
import { parseStartTime } from '../../src/native/processes.js';
import { until } from './shim-harness.js';

describe('native', () => {
  const native = openNative();
  const { files, mounts, processes, sockets, memfds, library } = native;
  let dir: string;

  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'berth-native-'))));
  afterEach(() => {
    try {
      mounts.unmountNow(dir, MNT.DETACH);
    } catch {
      // nothing was mounted
    }
    rmSync(dir, { recursive: true, force: true });
  });

  const here = (work: (fd: number) => void): void => {
    using at = files.openAt(AT.FDCWD, dir, O.RDONLY | O.DIRECTORY);
    work(at.fd);
  };

  describe('errors', () => {
    it('name call, object and errno, from both kinds of call', async () => {
      const path = join(dir, 'missing');
      const expected = new SyscallError('umount2', 2, 'ENOENT', path);
      assert.throws(() => mounts.unmountNow(path, 0), expected);
      await assert.rejects(mounts.unmount(path, 0), expected);
      assert.throws(
        () => library.raw('openat2', 437, path, AT.FDCWD, path, Buffer.alloc(24), 24),
        /openat2 .*missing: ENOENT/,
      );
    });

    it('come for a string that C would cut', () => {
      assert.throws(
        () => mounts.statFs('/proc\0x'),
        (error) => isErrno(error, 'EINVAL'),
      );
    });
  });

  describe('descriptors', () => {
    it('are closed once, at the end of their block, unless taken', () => {
      let fd: number;
      {
        using owned = files.openAt(AT.FDCWD, '/', O.RDONLY);
        fd = owned.fd;
        assert.ok(statSync(`/proc/self/fd/${fd}`).isDirectory());
      }
      assert.throws(
        () => library.now('fcntl', undefined, fd, F.GETFD, 0),
        (error) => isErrno(error, 'EBADF'),
      );
      const owned = files.openAt(AT.FDCWD, '/', O.RDONLY);
      const taken = owned.take();
      owned[Symbol.dispose]();
      assert.equal(library.now('fcntl', undefined, taken, F.GETFD, 0), 1);
      assert.throws(() => owned.fd);
      closeSync(taken);
    });
  });

  describe('mounts', () => {
    it('mounts, tells about and unmounts a file system', async () => {
      mounts.mount('tmpfs', dir, 'tmpfs', MS.NOSUID | MS.NODEV, 'size=64k');
      const facts = mounts.statFs(dir);
      assert.equal(facts.type, FS_MAGIC.TMPFS);
      assert.equal(Number(facts.blocks) * facts.blockSize, 65536);
      await mounts.unmount(dir, MNT.DETACH);
      assert.notEqual(mounts.statFs(dir).type, FS_MAGIC.TMPFS);
      assert.equal(mounts.statFs('/proc').type, FS_MAGIC.PROC);
    });

    it('makes detached mounts and attaches clones of them with attributes', () => {
      using context = mounts.openFileSystem('tmpfs');
      mounts.configure(context.fd, 'size', '64k');
      using made = mounts.create(context.fd, MOUNT_ATTR.NOSUID);
      files.mkdirAt(made.fd, 'inside', 0o755);
      mounts.setAttributes(made.fd, { set: MOUNT_ATTR.RDONLY, clear: 0 }, true);
      mounts.attach(made.fd, dir);
      assert.deepEqual(readdirSync(dir), ['inside']);
      assert.throws(
        () => mkdirSync(join(dir, 'more')),
        (error) => isErrno(error, 'EROFS'),
      );
      using clone = mounts.openTree(dir, { clone: true, recursive: true });
      assert.equal(mounts.fstatFs(clone.fd).type, FS_MAGIC.TMPFS);
    });
  });

  describe('files', () => {
    it('makes every kind of file relative to a directory', () => {
      here((fd) => {
        files.mkdirAt(fd, 'd', 0o700);
        files.symlinkAt('d', fd, 'l');
        files.mknodAt(fd, 'null', 0o20666, 1, 3);
        files.mknodAt(fd, 'fifo', 0o10600, 0, 0);
        writeFileSync(join(dir, 'f'), 'text');
        files.linkAt(fd, 'f', fd, 'd/g');
        files.chownAt(fd, 'l', 1234, 4321);
        files.chmodAt(fd, 'f', 0o4711);
        files.utimeAt(fd, 'f', 1_500_000_000_123_456_789n, -1n);
        assert.equal(files.readlinkAt(fd, 'l').toString(), 'd');
      });
      assert.equal(statSync(join(dir, 'null')).rdev, Number(makeDevice(1, 3)));
      assert.ok(statSync(join(dir, 'fifo')).isFIFO());
      const stat = statSync(join(dir, 'f'), { bigint: true });
      assert.deepEqual(
        [stat.nlink, stat.mode & 0o7777n, stat.atimeNs, stat.mtimeNs],
        [2n, 0o4711n, 1_500_000_000_123_456_789n, -1n],
      );
    });

    it('numbers devices as the kernel does', () => {
      for (const [major, minor] of [
        [0, 0],
        [1, 3],
        [259, 70000],
        [4095, 1048575],
      ] as const) {
        const device = makeDevice(major, minor);
        assert.equal((device >> 8n) & 0xfffn, BigInt(major) & 0xfffn);
        assert.equal((device & 0xffn) | ((device >> 12n) & 0xffffff00n), BigInt(minor));
      }
    });

    it('renames with exchange and without replacing, and removes', () => {
      writeFileSync(join(dir, 'a'), 'a');
      writeFileSync(join(dir, 'b'), 'b');
      here((fd) => {
        files.renameAt(fd, 'a', fd, 'b', 'exchange');
        assert.throws(
          () => files.renameAt(fd, 'a', fd, 'b', 'noReplace'),
          (error) => isErrno(error, 'EEXIST'),
        );
        assert.equal(readFileSync(join(dir, 'a'), 'utf8'), 'b');
        files.unlinkAt(fd, 'a', false);
        files.mkdirAt(fd, 'd', 0o700);
        files.unlinkAt(fd, 'd', true);
      });
      assert.deepEqual(readdirSync(dir), ['b']);
    });

    it('stays beneath a directory when told to', () => {
      here((fd) => {
        files.symlinkAt('/etc', fd, 'out');
        const how = { flags: O.PATH, resolve: RESOLVE.BENEATH };
        assert.throws(
          () => files.openAt2(fd, 'out', how),
          (error) => isErrno(error, 'EXDEV'),
        );
        assert.throws(
          () => files.openAt2(fd, '..', how),
          (error) => isErrno(error, 'EXDEV'),
        );
        using root = files.openAt2(fd, '/', { flags: O.PATH, resolve: RESOLVE.IN_ROOT });
        assert.ok(root.fd > 0);
      });
    });

    it('reads and writes extended attributes of any size', () => {
      mounts.mount('tmpfs', dir, 'tmpfs', 0, '');
      const path = join(dir, 'f');
      writeFileSync(path, '');
      const value = Buffer.alloc(3000, 7);
      files.setXattr(path, 'trusted.test', value);
      assert.ok(files.getXattr(path, 'trusted.test')?.equals(value));
      assert.deepEqual(files.listXattr(path), ['trusted.test']);
      files.removeXattr(path, 'trusted.test');
      assert.equal(files.getXattr(path, 'trusted.test'), undefined);
      const fd = openSync(path, 'r');
      files.fsetXattr(fd, 'trusted.empty', Buffer.alloc(0));
      assert.equal(files.fgetXattr(fd, 'trusted.empty')?.length, 0);
      closeSync(fd);
    });

    it('locks without waiting', () => {
      const path = join(dir, 'lock');
      writeFileSync(path, '');
      const [one, two] = [openSync(path, 'r'), openSync(path, 'r')];
      assert.equal(files.tryLock(one, true), true);
      assert.equal(files.tryLock(two, true), false);
      assert.equal(files.tryLock(two, false), false);
      closeSync(one);
      assert.equal(files.tryLock(two, true), true);
      closeSync(two);
    });

    it('reads what is there, the end, and says when nothing is', () => {
      const { read, write } = files.pipe();
      library.now('fcntl', undefined, read.fd, F.SETFL, O.NONBLOCK);
      const buffer = Buffer.alloc(10);
      assert.equal(files.read(read.fd, buffer), undefined);
      assert.equal(files.write(write.fd, Buffer.from('abc')), 3);
      assert.equal(files.read(read.fd, buffer), 3);
      write[Symbol.dispose]();
      assert.equal(files.read(read.fd, buffer), 0);
      read[Symbol.dispose]();
    });
  });

  describe('sealed memory', () => {
    it('is a copy that nothing can change', () => {
      writeFileSync(join(dir, 'f'), 'content');
      using copy = memfds.sealedCopy(join(dir, 'f'), 'test', false);
      assert.equal(readFileSync(`/proc/self/fd/${copy.fd}`, 'utf8'), 'content');
      assert.throws(
        () => files.write(copy.fd, Buffer.from('x')),
        (error) => isErrno(error, 'EPERM'),
      );
      assert.throws(
        () => writeFileSync(`/proc/self/fd/${copy.fd}`, 'x'),
        (error) => isErrno(error, 'EPERM'),
      );
      assert.throws(
        () => memfds.sealedCopy(join(dir, 'missing'), 'test', true),
        (error) => isErrno(error, 'ENOENT'),
      );
    });
  });

  describe('spawn', () => {
    const output = async (args: readonly string[], env: readonly string[] = []): Promise<string> => {
      const path = join(dir, 'out');
      const out = openSync(path, 'w');
      const pid = native.spawn({ path: '/bin/sh', args: ['sh', ...args], env, descriptors: ['null', out, out] });
      closeSync(out);
      assert.equal(await until(() => processes.reap(pid), 'its end'), 0);
      return readFileSync(path, 'utf8');
    };

    it('gives the program its arguments, its environment and nothing of ours', async () => {
      assert.equal(await output(['-c', 'echo "$1 $A $HOME"', 'x', 'y z'], ['A=b']), 'y z b \n');
      const listed = (await output(['-c', 'ls /proc/self/fd'])).trim().split('\n');
      assert.deepEqual(listed.slice(0, 3), ['0', '1', '2']);
      const signals = await output(['-c', 'grep -E "Sig(Blk|Ign)" /proc/self/status']);
      assert.match(signals, /SigBlk:\s+0{16}\nSigIgn:\s+0{16}\n/);
    });

    it('keeps descriptors apart whose numbers cross', async () => {
      const [one, two] = [join(dir, 'one'), join(dir, 'two')].map((path) => openSync(path, 'w'));
      assert.ok(one !== undefined && two !== undefined);
      const descriptors = ['null', two, one] as const;
      const pid = native.spawn({ path: '/bin/sh', args: ['sh', '-c', 'echo 1; echo 2 >&2'], env: [], descriptors });
      assert.equal(await until(() => processes.reap(pid), 'its end'), 0);
      assert.equal(readFileSync(join(dir, 'two'), 'utf8'), '1\n');
      assert.equal(readFileSync(join(dir, 'one'), 'utf8'), '2\n');
      closeSync(one);
      closeSync(two);
    });

    it('says at once when a program cannot run, and runs sealed memory', async () => {
      const missing = { path: join(dir, 'missing'), args: ['x'], env: [], descriptors: [] };
      assert.throws(
        () => native.spawn(missing),
        (error) => isErrno(error, 'ENOENT'),
      );
      using copy = memfds.sealedCopy('/bin/true', 'true', true);
      const pid = native.spawn({ path: `/proc/self/fd/${copy.fd}`, args: ['true'], env: [], descriptors: ['null'] });
      assert.equal(await until(() => processes.reap(pid), 'its end'), 0);
    });
  });

  describe('processes', () => {
    it('are held by descriptor and told apart by start time', async () => {
      const pid = native.spawn({ path: '/bin/sleep', args: ['sleep', '1000'], env: [], descriptors: ['null'] });
      using held = processes.open(pid);
      assert.ok(held !== undefined);
      assert.ok((processes.startTime(pid) ?? 0n) > 0n);
      assert.equal(processes.signalFd(held.fd, 0), true);
      const started = processes.startTime(pid) ?? 0n;
      assert.equal(processes.isRunning(pid, started), true);
      assert.equal(processes.isRunning(pid, started + 1n), false);
      assert.equal(processes.signalFd(held.fd, 9), true);
      await until(() => !processes.isRunning(pid, started), 'its end, a zombie by now');
      assert.equal(await until(() => processes.reap(pid), 'its end'), 9);
      assert.equal(processes.signalFd(held.fd, 0), false);
      assert.equal(processes.kill(pid, 0), false);
      assert.equal(processes.open(pid), undefined);
      assert.equal(processes.startTime(pid), undefined);
    });

    it('have names that hold anything', () => {
      const fields = Array.from({ length: 30 }, (_, index) => String(index + 3)).join(' ');
      assert.equal(parseStartTime(`42 (a) b) c) ${fields}`), 22n);
    });
  });

  describe('sockets', () => {
    it('tell who is at the other end', async () => {
      const path = join(dir, 's');
      const server = createServer().listen(path);
      await new Promise((resolve) => server.once('listening', resolve));
      const client = connect(path);
      await new Promise((resolve) => client.once('connect', resolve));
      const { fd } = (client as unknown as { _handle: { fd: number } })._handle;
      assert.deepEqual(sockets.peer(fd), { pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() });
      client.destroy();
      server.close();
    });

    it('speak netlink', () => {
      using socket = sockets.open(SOCKETS.AF_NETLINK, SOCKETS.SOCK_RAW, SOCKETS.NETLINK_ROUTE);
      const kernel = Buffer.alloc(12);
      kernel.writeUInt16LE(SOCKETS.AF_NETLINK);
      sockets.bind(socket.fd, kernel);
      const request = Buffer.alloc(32);
      request.writeUInt32LE(32, 0);
      request.writeUInt16LE(18, 4); // RTM_GETLINK
      request.writeUInt16LE(0x301, 6); // NLM_F_REQUEST | NLM_F_DUMP
      assert.equal(sockets.send(socket.fd, request, kernel), 32);
      const answer = Buffer.alloc(65536);
      assert.ok((sockets.receive(socket.fd, answer, SOCKETS.MSG_DONTWAIT) ?? 0) > 16);
      assert.equal(answer.readUInt16LE(4), 16); // RTM_NEWLINK
    });
  });

  describe('kernel facts', () => {
    it('describe this machine', () => {
      const facts = gatherKernelFacts(native);
      assert.ok(facts.major >= 5 && facts.lastCapability >= 38);
      assert.ok(facts.fileSystems.has('tmpfs') && facts.fileSystems.has('proc'));
      assert.ok((facts.capabilities.bounding & facts.capabilities.effective) === facts.capabilities.effective);
      assert.equal(facts.canRaiseLimits, (facts.capabilities.effective & (1n << 24n)) !== 0n);
      assert.ok(facts.limits.get('max open files') !== undefined);
      if (facts.overlayLowerByDescriptor) assert.ok(facts.overlayLowerAppend);
    });

    it('are read from the texts of /proc', () => {
      assert.equal(capabilitySet('Name:\tx\nCapEff:\t00000000000000ff\nCapBnd:\t0\n', 'CapEff'), 255n);
      assert.equal(capabilitySet('', 'CapEff'), 0n);
      const limits = parseLimits(
        'Limit   Soft Limit   Hard Limit   Units\nMax open files            1024                 unlimited            files     \n',
      );
      assert.deepEqual(limits.get('max open files'), { soft: 1024n, hard: 'infinity' });
    });
  });
});
