/** What belongs to a pod as a whole: its network. */
import type { InterfaceUsage, SandboxUsageView } from '../../runtime/facade.js';
import type { Family } from './metric-family.js';

type Counter = Exclude<keyof InterfaceUsage, 'name'>;

const network = (name: string, help: string, field: Counter): Family<SandboxUsageView> => ({
  name: `network_${name}_total`,
  help,
  type: 'counter',
  labels: ['interface'],
  read: ({ interfaces }) => interfaces.map((link) => [[link.name], link[field]]),
});

export const podFamilies: readonly Family<SandboxUsageView>[] = [
  network('receive_bytes', 'Bytes received.', 'rxBytes'),
  network('receive_packets', 'Packets received.', 'rxPackets'),
  network('receive_packets_dropped', 'Packets dropped while receiving.', 'rxDropped'),
  network('receive_errors', 'Errors while receiving.', 'rxErrors'),
  network('transmit_bytes', 'Bytes sent.', 'txBytes'),
  network('transmit_packets', 'Packets sent.', 'txPackets'),
  network('transmit_packets_dropped', 'Packets dropped while sending.', 'txDropped'),
  network('transmit_errors', 'Errors while sending.', 'txErrors'),
];
