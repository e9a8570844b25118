#include "decoder.hpp"

#include <capstone/capstone.h>
#include <cstdarg>
#include <cstdlib>

namespace ringlet::patch {

struct decoder::state {
  csh handle = 0;
  cs_insn* one = nullptr;
};

namespace {
// Capstone writes every instruction as text, too, which we never read; without its numbers that takes a fifth less time.
int prints_nothing(char* to, std::size_t size, const char*, va_list) {
  if (size > 0) *to = '\0';
  return 0;
}
}  // namespace

decoder::decoder() : state_(std::make_unique<state>()) {
  cs_opt_mem memory{std::malloc, std::calloc, std::realloc, std::free, prints_nothing};
  cs_option(0, CS_OPT_MEM, std::size_t(&memory));
  if (cs_open(CS_ARCH_X86, CS_MODE_64, &state_->handle) != CS_ERR_OK) return;
  cs_option(state_->handle, CS_OPT_DETAIL, CS_OPT_ON);
  state_->one = cs_malloc(state_->handle);
  ready_ = state_->one != nullptr;
}

decoder::~decoder() {
  if (state_->one) cs_free(state_->one, 1);
  if (state_->handle) cs_close(&state_->handle);
}

namespace {

using kind = instruction::kind;

bool is_vector(unsigned reg) noexcept {
  return (reg >= X86_REG_XMM0 && reg <= X86_REG_ZMM31) || (reg >= X86_REG_MM0 && reg <= X86_REG_MM7) || (reg >= X86_REG_K0 && reg <= X86_REG_K7);
}
bool is_rax(unsigned reg) noexcept { return reg == X86_REG_RAX || reg == X86_REG_EAX || reg == X86_REG_AX || reg == X86_REG_AL || reg == X86_REG_AH; }
bool is_rsp(unsigned reg) noexcept { return reg == X86_REG_RSP || reg == X86_REG_ESP || reg == X86_REG_SP || reg == X86_REG_SPL; }

// In 64-bit mode these bytes begin nothing else. No legacy prefix may stand before VEX, but compilers' paddings do.
bool is_vex(const cs_insn& c) noexcept { return c.bytes[0] == 0xc4 || c.bytes[0] == 0xc5 || c.bytes[0] == 0x62; }

bool in_group(const cs_detail& d, unsigned group) noexcept {
  for (unsigned i = 0; i < d.groups_count; ++i)
    if (d.groups[i] == group) return true;
  return false;
}

kind kind_of(const cs_insn& c) noexcept {
  const cs_detail& d = *c.detail;
  switch (c.id) {
    case X86_INS_SYSCALL: return kind::syscall;
    case X86_INS_NOP: return kind::nop;
    case X86_INS_HLT:
    case X86_INS_UD2:
    case X86_INS_INT3: return kind::stop;
    case X86_INS_RET:
    case X86_INS_RETF:
    case X86_INS_IRETQ: return kind::ret;
    default: break;
  }
  const bool is_direct = d.x86.op_count == 1 && d.x86.operands[0].type == X86_OP_IMM;
  if (in_group(d, CS_GRP_CALL)) return is_direct ? kind::call : kind::indirect_call;
  if (c.id == X86_INS_JMP || c.id == X86_INS_LJMP) return is_direct ? kind::jump : kind::indirect_jump;
  // Groups of branches in Capstone 4 lack loop and jrcxz; these are direct by nature.
  if (in_group(d, CS_GRP_JUMP) || c.id == X86_INS_LOOP || c.id == X86_INS_LOOPE || c.id == X86_INS_LOOPNE || c.id == X86_INS_JRCXZ || c.id == X86_INS_JECXZ || c.id == X86_INS_XBEGIN)
    return is_direct ? kind::conditional_jump : kind::indirect_jump;
  return kind::plain;
}

// mov $imm32, %eax (and the 64-bit form with a small number), xor %eax, %eax.
std::optional<std::uint32_t> constant_in_rax(const cs_insn& c) noexcept {
  const cs_x86& x = c.detail->x86;
  if (x.op_count != 2 || x.operands[0].type != X86_OP_REG) return std::nullopt;
  const unsigned to = x.operands[0].reg;
  if (to != X86_REG_EAX && to != X86_REG_RAX) return std::nullopt;
  if ((c.id == X86_INS_MOV || c.id == X86_INS_MOVABS) && x.operands[1].type == X86_OP_IMM) {
    const auto value = std::uint64_t(x.operands[1].imm);
    if (to == X86_REG_EAX || value <= 0x7fffffff) return std::uint32_t(value);
    return std::nullopt;
  }
  if ((c.id == X86_INS_XOR || c.id == X86_INS_SUB) && x.operands[1].type == X86_OP_REG && x.operands[1].reg == to) return 0u;
  return std::nullopt;
}

}  // namespace

bool decoder::decode(const std::uint8_t* bytes, std::size_t size, std::uint64_t address, instruction& into) {
  const std::uint8_t* at = bytes;
  std::uint64_t next = address;
  cs_insn& c = *state_->one;
  if (!cs_disasm_iter(state_->handle, &at, &size, &next, &c)) return false;
  const cs_x86& x = c.detail->x86;

  into = {};
  into.address = address;
  into.bytes = bytes;
  into.size = std::uint8_t(c.size);
  into.what = kind_of(c);
  if (into.branches()) into.target = std::uint64_t(x.operands[0].imm);

  for (unsigned i = 0; i < x.op_count; ++i) {
    const cs_x86_op& o = x.operands[i];
    if (o.type == X86_OP_REG && is_vector(o.reg)) into.has_vectors = true;
    if (o.type == X86_OP_MEM && o.mem.base == X86_REG_RIP) {
      into.target = into.end() + std::uint64_t(o.mem.disp);
      into.displacement_at = x.encoding.disp_offset;
      into.loads_address = c.id == X86_INS_LEA;
    }
  }
  into.has_wide_vectors = into.has_vectors && is_vex(c);
  into.number = constant_in_rax(c);

  cs_regs read, written;
  std::uint8_t read_count = 0, written_count = 0;
  cs_regs_access(state_->handle, &c, read, &read_count, written, &written_count);
  for (unsigned i = 0; i < written_count; ++i) {
    if (is_rax(written[i])) into.writes_rax = true;
    if (is_rsp(written[i])) into.changes_stack_pointer = true;
  }
  // What the table of a decoder may lack, said once more: these change them by nature.
  if (into.what == kind::call || into.what == kind::indirect_call || into.what == kind::syscall || into.number) into.writes_rax = true;
  switch (c.id) {
    case X86_INS_PUSH:
    case X86_INS_POP:
    case X86_INS_PUSHF:
    case X86_INS_PUSHFQ:
    case X86_INS_POPF:
    case X86_INS_POPFQ:
    case X86_INS_LEAVE:
    case X86_INS_ENTER:
    case X86_INS_CALL: into.changes_stack_pointer = true; break;
    case X86_INS_CPUID:
    case X86_INS_RDTSC:
    case X86_INS_RDTSCP:
    case X86_INS_XGETBV:
    case X86_INS_CMPXCHG:
    case X86_INS_CMPXCHG8B:
    case X86_INS_CMPXCHG16B:
    case X86_INS_MUL:
    case X86_INS_DIV:
    case X86_INS_IDIV:
    case X86_INS_CDQ:
    case X86_INS_CDQE:
    case X86_INS_CWDE:
    case X86_INS_XADD:
    case X86_INS_XCHG: into.writes_rax = true; break;
    default: break;
  }
  return true;
}

}  // namespace ringlet::patch
