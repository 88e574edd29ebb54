import { isErrno } from '../kit/errors.js';
import { SIZES, SOCKETS } from './constants.js';
import { Descriptor } from './descriptor.js';
import type { Library } from './library.js';

export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** Raw sockets, for what Node's net module does not reach. All throw SyscallError. */
export interface Sockets {
  open(domain: number, type: number, protocol: number): Descriptor;
  bind(fd: number, address: Uint8Array): void;
  connect(fd: number, address: Uint8Array): void;
  send(fd: number, bytes: Uint8Array, address?: Uint8Array): number;
  /** Bytes received, or undefined when nothing is there (EAGAIN). */
  receive(fd: number, into: Uint8Array, flags: number): number | undefined;
  setOption(fd: number, level: number, option: number, value: Uint8Array): void;
  /** SO_PEERCRED of a connected unix socket: who it was when it connected. */
  peer(fd: number): PeerCredentials;
}

export function socketCalls(library: Library): Sockets {
  return {
    open: (domain, type, protocol) =>
      new Descriptor(library, library.now('socket', undefined, domain, type | SOCKETS.SOCK_CLOEXEC, protocol)),
    bind: (fd, address) => void library.now('bind', undefined, fd, address, address.length),
    connect: (fd, address) => void library.now('connect', undefined, fd, address, address.length),
    send: (fd, bytes, address) =>
      library.now('sendto', undefined, fd, bytes, bytes.length, 0, address ?? null, address?.length ?? 0),
    receive(fd, into, flags) {
      try {
        return library.now('recv', undefined, fd, into, into.length, flags);
      } catch (error) {
        if (isErrno(error, 'EAGAIN') || isErrno(error, 'EWOULDBLOCK')) return undefined;
        throw error;
      }
    },
    setOption: (fd, level, option, value) =>
      void library.now('setsockopt', undefined, fd, level, option, value, value.length),
    peer(fd) {
      const credentials = Buffer.alloc(SIZES.ucred);
      const length = Buffer.alloc(4);
      length.writeUInt32LE(SIZES.ucred);
      library.now('getsockopt', undefined, fd, SOCKETS.SOL_SOCKET, SOCKETS.SO_PEERCRED, credentials, length);
      return {
        pid: credentials.readInt32LE(0),
        uid: credentials.readUInt32LE(4),
        gid: credentials.readUInt32LE(8),
      };
    },
  };
}
