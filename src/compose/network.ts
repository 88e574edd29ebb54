import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../config.js';
import type { Observer } from '../kit/observer.js';
import type { Native } from '../native/native.js';
import { netlink } from '../native/netlink/netlink.js';
import { openNetlink } from '../native/netlink/socket.js';
import { builtinDefaults, createBuiltinNetwork } from '../runtime/network/builtin.js';
import { chooseNetwork } from '../runtime/network/choose.js';
import { createCniNetwork } from '../runtime/network/cni.js';
import type { PodNetwork } from '../runtime/network/pod-network.js';
import { pluginSpawner } from '../runtime/network/spawn-plugin.js';

/** Milliseconds one CNI plugin may take. */
const pluginTimeoutMs = 60_000;

/** Both networks, and the one that decides between them. */
export function openNetwork(
  config: Config,
  native: Native,
  observer: Observer,
): { network: PodNetwork; teardown: () => Promise<void> } {
  const note: Observer['note'] = (level, message, facts) => observer.note(level, message, facts);
  const cni = createCniNetwork(
    {
      configDirectory: config.network.cniConfDir,
      binDirectories: config.network.cniBinDirs,
      // On disk: what plugins have leased must be given back after a reboot too.
      cacheDirectory: join(config.root, 'cni'),
      pluginTimeoutMs,
    },
    {
      netlink,
      spawn: pluginSpawner(native),
      env: { PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin' },
      note,
    },
  );
  const { bridge, subnets, mtu, masquerade } = config.network;
  const builtin = createBuiltinNetwork(
    {
      ...builtinDefaults,
      bridge,
      // Two agents with bridges of their own must not share one set of rules.
      table: bridge === 'berth0' ? 'berth' : bridge,
      subnets,
      masquerade,
      ...(mtu === 0 ? {} : { mtu }),
      stateDirectory: join(config.state, 'network'),
    },
    {
      netlink,
      openNetlink: (protocol) => openNetlink(protocol, native.library),
      writeSysctl: (path, value) => writeFileSync(join('/proc/sys', path), value),
      note,
    },
  );
  return { network: chooseNetwork(config.network.mode, cni, builtin), teardown: () => builtin.teardown() };
}
