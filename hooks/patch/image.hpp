#pragma once
// A library's code and what its file tells of it, the same for one that is loaded and for a file that is only read:
// bytes by address (as the file numbers them), the functions, where control may enter.
//
// Functions come from the unwind tables (.eh_frame), since that is what a stripped library still has, and what every
// glibc has of its hand-written assembly, too. A file may lie: whatever points outside of its segments counts as absent.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace ringlet::patch {

// One range of the unwind tables. A function's cold part is a range of its own.
struct function_range {
  std::uint64_t begin = 0, end = 0;
  std::vector<std::uint64_t> landing_pads;  // where exceptions and cancellation enter it
};

class image {
 public:
  struct segment {
    std::uint64_t begin, end;
    bool executable;
    int protection;  // PROT_*
  };

  // The library that an address lies in. Throws std::runtime_error: none does, or it has no unwind tables.
  static image of_loaded(const void* address);
  // Throws std::runtime_error or std::system_error: it is no shared object of this processor, or cannot be read.
  static image of_file(const std::string& path);

  const std::string& path() const noexcept { return path_; }
  const std::string& build_id() const noexcept { return build_id_; }
  bool loaded() const noexcept { return loaded_; }
  std::uint64_t base() const noexcept { return loaded_ ? std::uint64_t(memory_) : 0; }
  const std::vector<segment>& segments() const noexcept { return segments_; }
  // By address.
  const std::vector<function_range>& functions() const noexcept { return functions_; }
  // The range that holds an address, or null.
  const function_range* function_at(std::uint64_t address) const noexcept;
  // Defined dynamic symbols of functions, one name an address.
  const std::map<std::uint64_t, std::string>& exported() const noexcept { return exported_; }

  // The bytes at an address if all of them are in one segment, else null.
  const std::uint8_t* at(std::uint64_t address, std::uint64_t size) const noexcept;
  const segment* segment_of(std::uint64_t address) const noexcept;
  bool is_code(std::uint64_t address) const noexcept;

 private:
  image() = default;
  void read_headers(const void* program_headers, std::size_t count);
  void read_dynamic(std::uint64_t address, std::uint64_t size);
  void read_notes(std::uint64_t address, std::uint64_t size);

  std::string path_, build_id_;
  bool loaded_ = false;
  const std::uint8_t* memory_ = nullptr;  // where address 0 would be
  std::shared_ptr<std::vector<std::uint8_t>> owned_;
  std::vector<segment> segments_;
  std::vector<function_range> functions_;
  std::map<std::uint64_t, std::string> exported_;
};

// Is it nothing but no-operations, as stand between functions?
bool is_padding(const std::uint8_t* bytes, std::uint64_t size) noexcept;

// Reads the table that .eh_frame_hdr (at this address) leads to. Throws std::runtime_error: there is none that we
// understand.
std::vector<function_range> read_functions(const image& from, std::uint64_t eh_frame_header);

}  // namespace ringlet::patch
