import { closeSync, openSync, readSync } from 'node:fs';
import { isErrno } from '../kit/errors.js';
import { F, MFD, SEAL } from './constants.js';
import { Descriptor } from './descriptor.js';
import type { Library } from './library.js';

/** Anonymous files in memory that can be sealed against every change. */
export interface Memfds {
  /**
   * A copy of the file at `path` that nobody can change any more, not even root: what a container could overwrite
   * through /proc/PID/exe (CVE-2019-5736) is then a copy that refuses. `executable` asks for MFD_EXEC (kernel 6.3).
   */
  sealedCopy(path: string, name: string, executable: boolean): Descriptor;
}

export function memfdCalls(library: Library): Memfds {
  const create = (name: string, executable: boolean): number => {
    const flags = MFD.CLOEXEC | MFD.ALLOW_SEALING;
    try {
      return library.now('memfd_create', name, name, flags | (executable ? MFD.EXEC : MFD.NOEXEC_SEAL));
    } catch (error) {
      if (!isErrno(error, 'EINVAL')) throw error;
      return library.now('memfd_create', name, name, flags);
    }
  };
  return {
    sealedCopy(path, name, executable) {
      const memfd = new Descriptor(library, create(name, executable));
      try {
        copyInto(library, memfd.fd, path);
        library.now('fcntl', name, memfd.fd, F.ADD_SEALS, SEAL.WRITE | SEAL.SHRINK | SEAL.GROW | SEAL.SEAL);
        return memfd;
      } catch (error) {
        memfd[Symbol.dispose]();
        throw error;
      }
    },
  };
}

function copyInto(library: Library, memfd: number, path: string): void {
  const source = openSync(path, 'r');
  try {
    const buffer = Buffer.alloc(65536);
    for (let length = readSync(source, buffer); length > 0; length = readSync(source, buffer)) {
      for (let done = 0; done < length;) {
        done += library.now('write', path, memfd, buffer.subarray(done, length), length - done);
      }
    }
  } finally {
    closeSync(source);
  }
}
