import type { OciSeccomp, OciSyscallRule } from './default-profile.js';
import { actionNames, opNames } from './profile.js';
import type { SeccompAction, SeccompArch, SeccompProfile, SeccompRule } from './profile.js';

const archNames: Readonly<Record<SeccompArch, string>> = {
  x86_64: 'SCMP_ARCH_X86_64',
  x86: 'SCMP_ARCH_X86',
  x32: 'SCMP_ARCH_X32',
  arm64: 'SCMP_ARCH_AARCH64',
};

/** A checked profile as the OCI `linux.seccomp` object, for config.json. */
export function toOciSeccomp(profile: SeccompProfile): OciSeccomp {
  const { defaultAction, architectures, flags, rules } = profile;
  return {
    defaultAction: actionNames[defaultAction.name],
    ...(hasErrno(defaultAction) ? { defaultErrnoRet: defaultAction.data } : {}),
    architectures: architectures.map((arch) => archNames[arch]),
    ...(flags === undefined ? {} : { flags }),
    syscalls: rules.map(toOciRule),
  };
}

const hasErrno = ({ name }: SeccompAction): boolean => name === 'errno' || name === 'trace';

const toOciRule = ({ names, action, args }: SeccompRule): OciSyscallRule => ({
  names,
  action: actionNames[action.name],
  ...(hasErrno(action) ? { errnoRet: action.data } : {}),
  args: args.map(({ index, value, valueTwo, op }) => ({
    index,
    value: toJson(value),
    valueTwo: toJson(valueTwo),
    op: opNames[op],
  })),
});

/** Past 2^53 a JavaScript number would be another one; such a value goes as digits, which our reader takes back. */
const toJson = (value: bigint): number | string =>
  value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value.toString();
