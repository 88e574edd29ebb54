import { readFileSync, statSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { RuntimeError, messageOf } from '../../kit/errors.js';

/** Certificate and key in PEM form. */
export interface TlsPair {
  readonly cert: string;
  readonly key: string;
}

export interface TlsSource {
  load(): TlsPair;
  /** The pair when it has changed since it was last asked for. One that cannot be read or used leaves the old one in use. */
  reload(): TlsPair | undefined;
}

/** Follows two PEM files, as certificates are renewed in place. `invalid-argument` when they cannot be read at first. */
export function tlsFiles(certFile: string, keyFile: string): TlsSource {
  const stamp = (): string => [certFile, keyFile].map((path) => String(statSync(path).mtimeMs)).join(' ');
  const read = (): TlsPair => ({ cert: readFileSync(certFile, 'utf8'), key: readFileSync(keyFile, 'utf8') });
  let seen = '';
  return {
    load() {
      try {
        seen = stamp();
        return read();
      } catch (error) {
        throw new RuntimeError('invalid-argument', `streaming certificate: ${messageOf(error)}`);
      }
    },
    reload() {
      try {
        const now = stamp();
        if (now === seen) return undefined;
        const pair = read();
        createSecureContext(pair); // throws for half of a renewal
        seen = now;
        return pair;
      } catch {
        return undefined;
      }
    },
  };
}

/** A pair made once, for the life of the agent. */
export const tlsFixed = (pair: TlsPair): TlsSource => ({ load: () => pair, reload: () => undefined });
