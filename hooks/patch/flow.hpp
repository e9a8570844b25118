#pragma once
// Where control can go: the functions that hold system calls, decoded, and every address in them that something jumps
// to. A window may be cut only where nothing enters in its middle.
//
// Entered is: the target of a direct branch, from whichever function (a cold part jumps back into its hot one); an entry
// of a jump table; a landing pad; an exported symbol; an address that data hold; the function's begin. In position
// independent code an indirect jump can get its target from nowhere else: an address within a function comes from a lea
// of it, from a table of distances whose beginning comes from a lea, or from a relocated pointer in data. All three are
// searched for in the whole library, whatever function the jump itself is in.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "decoder.hpp"
#include "image.hpp"

namespace ringlet::patch {

struct body {
  const function_range* range = nullptr;
  std::vector<instruction> instructions;  // each begins where the one before ends
  bool whole = false;                     // they fill the range, and whatever enters it enters at one of them
  bool has_vectors = false, has_wide_vectors = false;
  bool jumps_away = false;                // to another range, and not by a call
};

class flow {
 public:
  flow(const image& of, decoder& with) : image_(of), decoder_(with) {}

  // Decodes each function that has one of these addresses in it, and finds what enters it near them.
  void explore(const std::vector<std::uint64_t>& addresses);
  // So far before and behind each of the addresses all entries are known; windows and what tells a number lie within.
  static constexpr std::uint64_t known_before = 96, known_behind = 48;

  const std::map<std::uint64_t, body>& bodies() const noexcept { return bodies_; }
  bool is_entered(std::uint64_t address);
  // May a vector register be alive at its system calls? One that a function's cold part makes may be between two uses in
  // the hot part, so a function that jumps out of itself counts as using some. Wide: what is known to use AVX.
  bool has_vectors(const body& b) const noexcept { return b.has_vectors || b.jumps_away; }
  bool has_wide_vectors(const body& b);
  // Nothing enters the bytes behind the first.
  bool is_straight(std::uint64_t begin, std::uint64_t end);

 private:
  body decode(const function_range& f) const;
  body sweep(const function_range& f, const std::set<std::uint64_t>& boundaries) const;
  void note_insides(const std::vector<std::uint64_t>& addresses);
  bool is_inside(std::uint64_t address) const noexcept { return address - inside_begin_ < inside_.size() && inside_[address - inside_begin_]; }
  void enter_from(const body& b);
  // By what is certainly code: it must be the beginning of an instruction.
  void enter_surely(std::uint64_t address);
  void doubt_boundaries();
  void enter_from_elsewhere();
  void enter_table(std::uint64_t table);
  void enter_from_data();
  // Does an instruction begin here that branches there? Decodes the function around it.
  enum class answer : std::uint8_t { no, yes, unknown };
  answer is_branch(std::uint64_t source, std::uint64_t target);
  const body& body_of(const function_range& f);

  const image& image_;
  decoder& decoder_;
  std::map<std::uint64_t, body> bodies_;  // by begin
  std::map<std::uint64_t, body> others_;  // those decoded only to verify a branch
  std::unordered_set<std::uint64_t> entered_, surely_entered_;
  // Target, and where the bytes are that would be a branch there, if an instruction begins at them. Most are none, and
  // are never asked about.
  std::unordered_multimap<std::uint64_t, std::uint64_t> perhaps_entered_;
  std::vector<bool> inside_;  // near one of the addresses, but no function's begin; by address - inside_begin_
  std::uint64_t inside_begin_ = 0;
};

}  // namespace ringlet::patch
