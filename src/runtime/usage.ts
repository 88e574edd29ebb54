/**
 * Read from the kernel's files at one moment, nothing kept. What is only filled with `detail` is 0 or empty without:
 * cpu periods and throttling on v1, memory kernel, maxUsage and failures, pids limit, io devices, hugetlb, and pressure
 * on hybrid hosts (on v2 pressure is always there).
 */
export interface CgroupStats {
  /** Nanoseconds since the epoch, taken before the first file is read. */
  readonly timestamp: bigint;
  readonly cpu: CpuStats;
  readonly memory: MemoryStats;
  readonly pids: PidsStats;
  readonly io: IoStats;
  readonly hugetlb: readonly HugetlbStats[];
}

/** Time in nanoseconds, cumulative. */
export interface CpuStats {
  readonly usage: bigint;
  readonly user: bigint;
  readonly system: bigint;
  readonly periods: number;
  readonly throttledPeriods: number;
  readonly throttledTime: bigint;
  readonly psi?: PsiStats;
}

/** Bytes, except the page fault counts. A limit of undefined means none. */
export interface MemoryStats {
  readonly usage: number;
  /** Usage less inactive page cache, never below 0: what the kubelet evicts by. */
  readonly workingSet: number;
  readonly rss: number;
  readonly cache: number;
  readonly mappedFile: number;
  readonly activeFile: number;
  readonly inactiveFile: number;
  readonly kernel: number;
  readonly maxUsage: number;
  /** Times an allocation hit the limit. */
  readonly failures: number;
  readonly limit: number | undefined;
  /** Limit less working set, never below 0; undefined without a limit. */
  readonly available: number | undefined;
  readonly pageFaults: number;
  readonly majorPageFaults: number;
  /** Swap alone, on v1 too. Undefined when the kernel does not account swap. */
  readonly swap: { readonly usage: number; readonly limit: number | undefined } | undefined;
  readonly psi?: PsiStats;
}

export interface PidsStats {
  readonly current: number;
  readonly limit: number | undefined;
}

export interface IoStats {
  readonly devices: readonly IoDeviceStats[];
  readonly psi?: PsiStats;
}

/** One block device, named `major:minor`. Cumulative. */
export interface IoDeviceStats {
  readonly device: string;
  readonly readBytes: number;
  readonly writeBytes: number;
  readonly reads: number;
  readonly writes: number;
}

export interface HugetlbStats {
  readonly pageSize: string;
  readonly usage: number;
  readonly limit: number | undefined;
}

/** Pressure stall information (kernel Documentation/accounting/psi.rst). Averages are percentages, total is µs. */
export interface PsiLine {
  readonly avg10: number;
  readonly avg60: number;
  readonly avg300: number;
  readonly total: bigint;
}

export interface PsiStats {
  readonly some: PsiLine;
  readonly full: PsiLine;
}
