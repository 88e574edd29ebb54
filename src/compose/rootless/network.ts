import { join } from 'node:path';
import { RuntimeError } from '../../kit/errors.js';
import type { Observer } from '../../kit/observer.js';
import type { Config } from '../../config.js';
import { namespaceSocket } from '../../native/kept-namespaces.js';
import type { Native } from '../../native/native.js';
import { netlink } from '../../native/netlink/netlink.js';
import { openNetlink } from '../../native/netlink/socket.js';
import { builtinDefaults, createBuiltinNetwork } from '../../runtime/network/builtin.js';
import type { PodNetwork } from '../../runtime/network/pod-network.js';
import { withPublishedPorts } from '../../runtime/network/published-ports.js';
import type { Registry } from '../../runtime/registry.js';
import { builtPrograms } from '../programs.js';
import type { KeptRecord } from './record.js';

/** The built-in network with its bridge in the namespace that the keeper has; the agent stays in the host's. */
export function openRootlessNetwork(
  config: Config,
  { keeper, wayOut, noWayOut }: KeptRecord,
  registry: () => Registry,
  native: Native,
  observer: Observer,
): { network: PodNetwork; teardown: () => Promise<void> } {
  const { bridge, subnets, mtu, mode } = config.network;
  if (mode === 'cni') throw new RuntimeError('unimplemented', 'network.mode: CNI plugins need root; use builtin');
  const note: Observer['note'] = (level, message, facts) => observer.note(level, message, facts);
  const builtin = createBuiltinNetwork(
    {
      ...builtinDefaults,
      bridge,
      subnets,
      // Only the way out knows the addresses that lead outside.
      masquerade: true,
      ...(mtu === 0 ? {} : { mtu }),
      stateDirectory: join(config.state, 'network'),
    },
    {
      netlink,
      openNetlink: (protocol) =>
        openNetlink(
          protocol,
          native.library,
          namespaceSocket(native, builtPrograms().shim, keeper.pid, protocol).take(),
        ),
      // The keeper has set what its namespace needs; this process would write the host's.
      writeSysctl: () => undefined,
      note,
    },
  );
  const network = withPublishedPorts(builtin, {
    dial: async (id, port) => {
      const { shim } = registry().sandbox(id);
      if (shim === undefined) throw new RuntimeError('wrong-state', `pod sandbox ${id} has no shim`);
      return await shim.dial(port, { signal: new AbortController().signal, observer });
    },
    portsOf: (id) => registry().findSandbox(id)?.record.config.portMappings ?? [],
    note,
  });
  const info = () => ({ ...builtin.info(), wayOut: wayOut?.program ?? `none: ${noWayOut}` });
  return { network: { ...network, info }, teardown: () => builtin.teardown() };
}
