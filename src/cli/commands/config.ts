import { configToml, defaultToml } from '../../config/print.js';
import { expectPositionals, type Command } from '../command.js';

export const configDefault: Command = {
  usage: '',
  about: 'Prints every setting with its default, commented out, as a file to start from.',
  options: {},
  run({ stdout }, args) {
    expectPositionals(args);
    stdout.write(defaultToml());
    return Promise.resolve(0);
  },
};

export const configShow: Command = {
  usage: '[flags]',
  about: 'Prints the configuration as it results from file, environment and flags.',
  options: {},
  run({ stdout, config }, args) {
    expectPositionals(args);
    stdout.write(configToml(config));
    return Promise.resolve(0);
  },
};

/** Reading the configuration is the check: the dispatcher has done it, or said what is wrong. */
export const configCheck: Command = {
  usage: '[flags]',
  about: 'Reads the configuration; exits 1 and says what is wrong when it is not valid.',
  options: {},
  run(_context, args) {
    expectPositionals(args);
    return Promise.resolve(0);
  },
};
