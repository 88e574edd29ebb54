/** Who holds which address of one subnet; in memory, rebuilt from the records after a restart. */
import { RuntimeError } from '../../kit/errors.js';
import { type Prefix, addressAt, contains, formatPrefix, sizeOf, toNumber } from './ip.js';

export interface AddressPool {
  readonly prefix: Prefix;
  /** The first address, the bridge's own. */
  readonly gateway: Uint8Array;
  /** An address nobody holds. Goes round the subnet, so that a freed address rests before it is given again. */
  allocate(): Uint8Array;
  /** Marks an address as held; false when it already is or is none of this pool. */
  reserve(address: Uint8Array): boolean;
  free(address: Uint8Array): void;
  readonly held: number;
}

const firstOffset = 2;
/** Larger subnets use only their first part: nobody runs a million pods on a node. */
const maxOffset = 1 << 20;

/** Throws `invalid-argument` for a subnet without room for a gateway and one pod. */
export function createAddressPool(prefix: Prefix, field: string): AddressPool {
  const size = sizeOf(prefix);
  // The last address of an IPv4 subnet is its broadcast address.
  const end = size > BigInt(maxOffset) ? maxOffset : Number(size) - (prefix.family === 4 ? 1 : 0);
  if (end <= firstOffset) {
    throw new RuntimeError('invalid-argument', `${field}: ${formatPrefix(prefix)} has no room for pods`);
  }
  const used = new Set<number>();
  const offsetOf = (address: Uint8Array): number => Number(toNumber(address) - prefix.base);
  let next = firstOffset;
  return {
    prefix,
    gateway: addressAt(prefix, 1),
    allocate() {
      for (let tried = 0; tried < end - firstOffset; tried++) {
        const offset = next;
        next = offset + 1 < end ? offset + 1 : firstOffset;
        if (used.has(offset)) continue;
        used.add(offset);
        return addressAt(prefix, offset);
      }
      throw new RuntimeError('exhausted', `all ${used.size} addresses of ${formatPrefix(prefix)} are in use`);
    },
    reserve(address) {
      if (!contains(prefix, address)) return false;
      const offset = offsetOf(address);
      if (offset < firstOffset || offset >= end || used.has(offset)) return false;
      used.add(offset);
      // After a restart go on behind the newest, so that addresses freed just before rest too.
      if (offset >= next) next = offset + 1 < end ? offset + 1 : firstOffset;
      return true;
    },
    free(address) {
      if (contains(prefix, address)) used.delete(offsetOf(address));
    },
    get held() {
      return used.size;
    },
  };
}
