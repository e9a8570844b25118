// Capstone's archive knows some fifteen processors, and its table of them pulls all in: 6 MB and 77,000 relocations in
// the preload object, paid at every start of every program. We define the other processors' beginnings ourselves, so the
// linker has no reason to take theirs: only x86 stays (2,000 relocations). Asking for another processor would then be an
// error of cs_open's. A name that a later Capstone adds is simply pulled in again: more bytes, nothing wrong.

#define OTHERS(X) X(AArch64) X(ARM) X(BPF) X(EVM) X(M680X) X(M68K) X(MOS65XX) X(Mips) X(PPC) X(RISCV) X(SH) X(Sparc) X(SystemZ) X(TMS320C64x) X(TRICORE) X(WASM) X(XCore)

extern "C" {
#define REFUSES(name) \
  int name##_global_init(void*) { return 2 /* CS_ERR_ARCH */; } \
  int name##_option(void*, int, unsigned long) { return 2; }
OTHERS(REFUSES)
}
