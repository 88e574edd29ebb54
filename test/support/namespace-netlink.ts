/** NETLINK_ROUTE inside another network namespace, as a pod's shim offers it, by a process started for each request. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { loadLibrary } from '../../src/native/library.js';
import type { NetlinkSend } from '../../src/native/netlink/socket.js';
import { openNetlink } from '../../src/native/netlink/socket.js';

/** Speaks in the namespace pinned at `path`. */
export function namespaceNetlink(path: string): NetlinkSend {
  return async (messages) => {
    const me = fileURLToPath(import.meta.url);
    const child = spawn('nsenter', [`--net=${path}`, process.execPath, '--import=tsx', me], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, BERTH_TEST_RELAY: '1' },
    });
    child.stdin.end(JSON.stringify(messages.map((message) => Buffer.from(message).toString('base64'))));
    const [answer] = await Promise.all([text(child.stdout), once(child, 'exit')]);
    return (JSON.parse(answer) as string[]).map((message) => Buffer.from(message, 'base64'));
  };
}

if (process.env['BERTH_TEST_RELAY'] === '1') {
  const messages = (JSON.parse(await text(process.stdin)) as string[]).map((message) => Buffer.from(message, 'base64'));
  const socket = openNetlink(0, loadLibrary());
  const answers = socket.request(messages).map((answer) => Buffer.from(answer).toString('base64'));
  socket.close();
  process.stdout.write(JSON.stringify(answers));
}
