import { generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { isIP } from 'node:net';
import type { TlsPair } from './tls.js';

/** Tags of DER (X.690) as far as a certificate needs them. */
const tags = { integer: 0x02, bits: 0x03, octets: 0x04, oid: 0x06, utf8: 0x0c, time: 0x18, sequence: 0x30, set: 0x31 };

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  if (body.length < 0x80) return Buffer.concat([Buffer.from([tag, body.length]), body]);
  const hex = body.length.toString(16);
  const length = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex');
  return Buffer.concat([Buffer.from([tag, 0x80 | length.length]), length, body]);
}

const sequence = (...parts: readonly Uint8Array[]): Buffer => der(tags.sequence, ...parts);
const bits = (bytes: Uint8Array): Buffer => der(tags.bits, Buffer.from([0]), bytes);

/** Object identifiers, encoded. */
const ecdsaWithSha256 = sequence(der(tags.oid, Buffer.from('2a8648ce3d040302', 'hex')));
const commonName = der(tags.oid, Buffer.from('550403', 'hex'));
const subjectAltName = der(tags.oid, Buffer.from('551d11', 'hex'));

/** GeneralizedTime of RFC 5280: YYYYMMDDHHMMSSZ. */
const time = (date: Date): Buffer =>
  der(tags.time, Buffer.from(`${date.toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`));

const name = (text: string): Buffer => sequence(der(tags.set, sequence(commonName, der(tags.utf8, Buffer.from(text)))));

/** A host name, or the bytes of an address (GeneralName choices 2 and 7). */
function altName(host: string): Buffer {
  const kind = isIP(host);
  if (kind === 4) return der(0x87, Buffer.from(host.split('.').map(Number)));
  if (kind === 6) return der(0x87, addressBytes(host));
  return der(0x82, Buffer.from(host));
}

function addressBytes(host: string): Buffer {
  const [head = '', tail] = host.split('::');
  const groups = (text: string): number[] => (text === '' ? [] : text.split(':').map((group) => parseInt(group, 16)));
  const [first, last] = [groups(head), groups(tail ?? '')];
  const gap = tail === undefined ? 0 : 8 - first.length - last.length;
  const all = [...first, ...new Array<number>(gap).fill(0), ...last];
  return Buffer.from(all.flatMap((group) => [group >> 8, group & 0xff]));
}

/**
 * A certificate for a host name or address, signed with its own new key: it keeps others from listening, and proves
 * nothing. Good for as long as certificates may be.
 */
export function selfSigned(host: string, now: Date): TlsPair {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const end = new Date(now);
  end.setUTCFullYear(now.getUTCFullYear() + 10);
  const serial = randomBytes(16);
  serial.writeUInt8((serial.readUInt8(0) & 0x7f) | 0x40, 0);
  const content = sequence(
    der(0xa0, der(tags.integer, Buffer.from([2]))),
    der(tags.integer, serial),
    ecdsaWithSha256,
    name('berth streaming'),
    sequence(time(now), time(end)),
    name('berth streaming'),
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(sequence(subjectAltName, der(tags.octets, sequence(altName(host)))))),
  );
  const certificate = sequence(content, ecdsaWithSha256, bits(sign('sha256', content, privateKey)));
  const lines = certificate.toString('base64').replace(/.{64}/g, '$&\n');
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
}
