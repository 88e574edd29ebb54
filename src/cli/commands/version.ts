import type { Command } from '../command.js';

export const version: Command = {
  usage: '',
  about: 'Prints the release of this command and of Node.js.',
  options: {},
  run({ stdout, composition }) {
    stdout.write(`berth ${composition.version} (Node.js ${process.version})\n`);
    return Promise.resolve(0);
  },
};
