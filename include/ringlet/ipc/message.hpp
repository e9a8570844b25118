#pragma once
// Typed messages between processes: what ipc/pipe.hpp carries, packed by msgpack-cxx (Debian: libmsgpack-cxx-dev).
//
//   auto [parent, child] = ringlet::ipc::duplex();
//   child.send(std::map<std::string, int>{{"a", 1}});
//   parent.receive<std::map<std::string, int>>();
//
// Numbers, strings, standard containers, tuples and optionals go as they are; a type of one's own names its members once:
// `struct job { int id; std::string url; MSGPACK_DEFINE(id, url); };`. Why msgpack-cxx: of what Debian has it is the one that is
// both kept up (cereal's last release is of 2022) and a format of its own, which programs in other languages read, too;
// it is headers only, and checks what it unpacks instead of believing it.
//
// This header is for programs that have msgpack-cxx: dependency('ringlet_process'), pkg-config ringlet_process.

#ifndef MSGPACK_NO_BOOST
#define MSGPACK_NO_BOOST  // versions before 5 use Boost's headers all the same
#endif
#include <msgpack.hpp>

#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <ringlet/ipc/pipe.hpp>

namespace ringlet::ipc {

// A message came that is not what the receiver asked for.
struct bad_message : std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace detail {
struct string_sink {
  std::string& to;
  void write(const char* data, std::size_t size) { to.append(data, size); }
};
}  // namespace detail

namespace detail {
template <class T>
void pack_into(std::string& bytes, const T& value) {
  bytes.clear();
  if constexpr (requires { value.size(); }) bytes.reserve(value.size() + 16);
  string_sink sink{bytes};
  msgpack::pack(sink, value);
}

// How an argument travels: a text's characters go, not their address.
template <class T>
using carried = std::conditional_t<std::is_convertible_v<std::decay_t<T>, const char*>, std::string, std::decay_t<T>>;

// Memory for packed messages that is used again: it belongs to the thread, and to one message while that is under way.
inline thread_local std::string spare_out, spare_in;
struct spare {
  std::string& home;
  std::string bytes;
  explicit spare(std::string& of) noexcept : home(of), bytes(std::move(of)) {}
  ~spare() {
    if (bytes.capacity() <= std::size_t(1) << 20) home = std::move(bytes);
  }
  spare(const spare&) = delete;
  spare& operator=(const spare&) = delete;
};
}  // namespace detail

template <class T>
std::string pack(const T& value) {
  std::string bytes;
  detail::pack_into(bytes, value);
  return bytes;
}

// Throws bad_message if the bytes are no T.
template <class T>
T unpack(std::string_view bytes) {
  try {
    // What refers to bytes refers to ours: it is copied once, into the T.
    const auto refer = [](msgpack::type::object_type, std::size_t, void*) { return true; };
    bool referred = false;
    const msgpack::object_handle whole = msgpack::unpack(bytes.data(), bytes.size(), referred, refer);
    return whole.get().template as<T>();
  } catch (const msgpack::type_error&) {
    throw bad_message(std::string("ringlet: a message came that is of another type than the receiver asked for (by typeid: ") + typeid(T).name() + ")");
  } catch (const msgpack::unpack_error& e) {
    throw bad_message(std::string("ringlet: what came is no message of msgpack: ") + e.what());
  }
}

// An end of a pipe that takes and gives values.
class end : public byte_end {
 public:
  end() noexcept = default;
  explicit end(byte_end&& of) noexcept : byte_end(std::move(of)) {}
  // As send_bytes.
  template <class T>
  bool send(const T& value, deadline until = never) {
    detail::spare packed(detail::spare_out);
    detail::pack_into(packed.bytes, value);
    return send_bytes(packed.bytes, until);
  }
  // As receive_bytes; throws bad_message if what came is no T (and then it is gone).
  template <class T>
  std::optional<T> receive(deadline until = never) {
    detail::spare packed(detail::spare_in);
    if (!receive_into(packed.bytes, until)) return std::nullopt;
    return unpack<T>(packed.bytes);
  }
  end duplicate() const { return end(byte_end::duplicate()); }
};

struct pipe_ends {
  end reader, writer;
};
inline pipe_ends pipe() {
  auto [reader, writer] = byte_pipe();
  return {end(std::move(reader)), end(std::move(writer))};
}
struct duplex_ends {
  end first, second;
};
inline duplex_ends duplex() {
  auto [first, second] = byte_duplex();
  return {end(std::move(first)), end(std::move(second))};
}

}  // namespace ringlet::ipc
