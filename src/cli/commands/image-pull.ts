import { readFileSync } from 'node:fs';
import type { RegistryAuth } from '../../runtime/model.js';
import { expectPositionals, UsageError, type Arguments, type Command } from '../command.js';
import { pullProgress } from '../progress.js';

export const imagePull: Command = {
  usage: '[flags] IMAGE',
  about: 'Pulls an image from its registry and prints its id.',
  options: {
    user: { about: 'registry user', short: 'u', value: 'NAME' },
    'password-file': { about: 'file with the password or token; - is standard input', value: 'FILE' },
    quiet: { about: 'no progress', short: 'q' },
  },
  notes: 'Mirrors, plain HTTP and certificate authorities are set in certs.d/HOST/hosts.toml.',
  async run(context, args) {
    const [image = ''] = expectPositionals(args, 'IMAGE');
    const auth = readAuth(args);
    const client = await context.connect({ share: true });
    const progress = args.has('quiet') ? undefined : pullProgress(context.stderr);
    const spec = { image, userSpecifiedImage: image, annotations: {}, runtimeHandler: '' };
    const pulled = await client.images.pull(spec, auth, context.call(), progress?.onProgress);
    progress?.end();
    context.stdout.write(`${pulled.id}\n`);
    return 0;
  },
};

function readAuth(args: Arguments): RegistryAuth | undefined {
  const username = args.value('user');
  const file = args.value('password-file');
  if (username === undefined && file === undefined) return undefined;
  if (username === undefined || file === undefined) throw new UsageError('--user and --password-file go together');
  const password = readFileSync(file === '-' ? 0 : file, 'utf8').replace(/\r?\n$/, '');
  return { username, password, auth: '', serverAddress: '', identityToken: '', registryToken: '' };
}
