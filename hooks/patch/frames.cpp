// The unwind tables as a list of functions: .eh_frame_hdr's sorted table leads to one frame description entry (FDE) for
// each function, which knows its length and, through its language data (LSDA), where exceptions land in it.
//
// The encodings are those of the Linux Standard Base, core generic, "Exception Frames"; of the language data, those that
// GCC writes.

#include <cstring>
#include <optional>
#include <stdexcept>

#include "image.hpp"

namespace ringlet::patch {

namespace {

constexpr std::size_t most_functions = 1u << 20, most_landing_pads = 4096;

// Reads forward from an address; once something lies outside, `good` is false and everything read is 0.
class reader {
 public:
  reader(const image& from, std::uint64_t at) noexcept : from_(from), at_(at) {}
  bool good() const noexcept { return good_; }
  std::uint64_t position() const noexcept { return at_; }
  void skip(std::uint64_t n) noexcept { at_ += n; }

  template <class T>
  T fixed() noexcept {
    T value{};
    if (const auto* bytes = from_.at(at_, sizeof value)) std::memcpy(&value, bytes, sizeof value);
    else good_ = false;
    at_ += sizeof value;
    return value;
  }
  std::uint64_t leb(bool is_signed = false) noexcept {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = fixed<std::uint8_t>();
      value |= std::uint64_t(byte & 0x7f) << shift;
      if (!(byte & 0x80)) {
        if (is_signed && (byte & 0x40) && shift + 7 < 64) value |= ~0ull << (shift + 7);
        return value;
      }
    }
    good_ = false;
    return 0;
  }
  // DW_EH_PE_*: the low four bits say how it is written, the next three what it is relative to.
  std::uint64_t encoded(std::uint8_t encoding, std::uint64_t data_base = 0) noexcept {
    const std::uint64_t here = at_;
    std::uint64_t value = 0;
    switch (encoding & 0x0f) {
      case 0x00:
      case 0x04:
      case 0x0c: value = fixed<std::uint64_t>(); break;
      case 0x01: value = leb(); break;
      case 0x02: value = fixed<std::uint16_t>(); break;
      case 0x03: value = fixed<std::uint32_t>(); break;
      case 0x09: value = leb(true); break;
      case 0x0a: value = std::uint64_t(std::int64_t(fixed<std::int16_t>())); break;
      case 0x0b: value = std::uint64_t(std::int64_t(fixed<std::int32_t>())); break;
      default: good_ = false;
    }
    if (value == 0) return 0;
    switch (encoding & 0x70) {
      case 0x00: break;
      case 0x10: value += here; break;
      case 0x30: value += data_base; break;
      default: good_ = false;
    }
    return value;  // of an indirect one (0x80) the place of the pointer: enough for what we skip
  }
  std::string text() {
    std::string s;
    for (char c; good_ && s.size() < 16 && (c = char(fixed<std::uint8_t>())) != '\0';) s += c;
    return s;
  }

 private:
  const image& from_;
  std::uint64_t at_;
  bool good_ = true;
};

// What a common information entry says of its FDEs.
struct common {
  std::uint8_t pointers = 0x00, language = 0xff;
  bool has_augmentation = false, is_signal_frame = false;
};

std::optional<common> read_common(const image& from, std::uint64_t at) {
  reader r(from, at);
  const auto length = r.fixed<std::uint32_t>();
  if (!r.good() || length == 0 || length == 0xffffffff || r.fixed<std::uint32_t>() != 0) return std::nullopt;
  const auto version = r.fixed<std::uint8_t>();
  const std::string augmentation = r.text();
  r.leb();      // code alignment
  r.leb(true);  // data alignment
  if (version == 1) r.fixed<std::uint8_t>();
  else r.leb();
  common c;
  if (augmentation.empty()) return c;
  if (augmentation[0] != 'z') return std::nullopt;
  c.has_augmentation = true;
  r.leb();
  for (const char what : augmentation.substr(1)) {
    if (what == 'R') c.pointers = r.fixed<std::uint8_t>();
    else if (what == 'L') c.language = r.fixed<std::uint8_t>();
    else if (what == 'P') r.encoded(r.fixed<std::uint8_t>());
    else if (what == 'S') c.is_signal_frame = true;
    else if (what != 'B') return std::nullopt;
  }
  return r.good() ? std::optional(c) : std::nullopt;
}

// The call-site table of GCC's language data: of each entry, the landing pad.
void read_landing_pads(const image& from, std::uint64_t language_data, function_range& f) {
  reader r(from, language_data);
  std::uint64_t pads_base = f.begin;
  if (const auto encoding = r.fixed<std::uint8_t>(); encoding != 0xff) pads_base = r.encoded(encoding);
  if (const auto encoding = r.fixed<std::uint8_t>(); encoding != 0xff) r.leb();
  const auto sites = r.fixed<std::uint8_t>();
  const std::uint64_t end = r.leb() + r.position();
  while (r.good() && r.position() < end && f.landing_pads.size() < most_landing_pads) {
    r.encoded(sites & 0x0f);
    r.encoded(sites & 0x0f);
    const auto pad = r.encoded(sites & 0x0f);
    r.leb();
    if (pad) f.landing_pads.push_back(pads_base + pad);
  }
  if (!r.good()) throw std::runtime_error("its exception tables are not understood");
}

}  // namespace

// Between functions assemblers fill up with long no-operations, or with int3.
bool is_padding(const std::uint8_t* bytes, std::uint64_t size) noexcept {
  for (std::uint64_t i = 0; i < size;) {
    std::uint64_t n = i;
    while (n < size && (bytes[n] == 0x66 || bytes[n] == 0x2e)) ++n;
    if (n < size && (bytes[n] == 0x90 || bytes[n] == 0xcc)) {
      i = n + 1;
    } else if (n + 3 <= size && bytes[n] == 0x0f && bytes[n + 1] == 0x1f) {
      const unsigned mod = bytes[n + 2] >> 6, has_index = (bytes[n + 2] & 7) == 4;
      i = n + 3 + (mod != 3 ? has_index : 0) + (mod == 1 ? 1 : mod == 2 ? 4 : 0);
    } else {
      return false;
    }
    if (i > size) return false;
  }
  return true;
}

std::vector<function_range> read_functions(const image& from, std::uint64_t eh_frame_header) {
  reader r(from, eh_frame_header);
  const auto version = r.fixed<std::uint8_t>(), frame_encoding = r.fixed<std::uint8_t>(), count_encoding = r.fixed<std::uint8_t>(),
             table_encoding = r.fixed<std::uint8_t>();
  r.encoded(frame_encoding, eh_frame_header);
  const std::uint64_t count = count_encoding == 0xff ? 0 : r.encoded(count_encoding, eh_frame_header);
  if (!r.good() || version != 1 || count == 0 || count > most_functions || table_encoding == 0xff) throw std::runtime_error("its unwind tables have no sorted index");

  std::vector<function_range> functions;
  functions.reserve(count);
  std::uint64_t common_at = 0;
  std::optional<common> known;
  for (std::uint64_t i = 0; i < count && r.good(); ++i) {
    const auto begin = r.encoded(table_encoding, eh_frame_header), description = r.encoded(table_encoding, eh_frame_header);
    reader fde(from, description);
    const auto length = fde.fixed<std::uint32_t>();
    const std::uint64_t id_at = fde.position();
    const auto id = fde.fixed<std::uint32_t>();
    if (!fde.good() || length == 0xffffffff || id == 0) throw std::runtime_error("its unwind tables are not understood");
    if (!known || common_at != id_at - id) {
      common_at = id_at - id;
      known = read_common(from, common_at);
      if (!known) throw std::runtime_error("its unwind tables have an augmentation that is not understood");
    }
    function_range f;
    f.begin = fde.encoded(known->pointers);
    f.end = f.begin + fde.encoded(known->pointers & 0x0f);
    const std::uint64_t described = f.begin;
    // The kernel returns to a signal's trampoline, no call does; so that unwinders, who look one byte back, find its
    // description, this begins one byte early.
    if (known->is_signal_frame) ++f.begin;
    if (described != begin || !fde.good() || f.end < f.begin) throw std::runtime_error("its unwind tables contradict their index");
    if (known->has_augmentation) {
      fde.leb();
      if (known->language != 0xff)
        if (const auto data = fde.encoded(known->language)) read_landing_pads(from, data, f);
    }
    if (!from.is_code(f.begin) || !from.at(f.begin, f.end - f.begin)) continue;  // of nothing that is mapped
    if (!functions.empty() && f.begin < functions.back().end) throw std::runtime_error("its unwind tables overlap");
    functions.push_back(std::move(f));
  }
  if (!r.good()) throw std::runtime_error("its unwind tables are cut off");
  // Code between two functions belongs to the first: glibc's clone ends its unwind information before its `syscall`, so
  // that nobody unwinds in the child.
  for (std::size_t i = 0; i + 1 < functions.size(); ++i) {
    const std::uint64_t begin = functions[i].end, size = functions[i + 1].begin - begin;
    const auto* gap = size ? from.at(begin, size) : nullptr;
    if (gap && from.is_code(begin) && !is_padding(gap, size)) functions[i].end += size;
  }
  return functions;
}

}  // namespace ringlet::patch
