#pragma once
// Processes that start afresh: this program is executed anew, and runs one function of it instead of main.
//
//   int add(int a, int b, ringlet::ipc::end out) { out.send(a + b); return 0; }
//   int main() {
//     ringlet::ipc::run_if_spawned();                  // the first thing: does not return in such a process
//     auto [in, out] = ringlet::ipc::pipe();
//     ringlet::process p = ringlet::ipc::spawned({.name = "adder"}, add, 1, 2, std::move(out));
//     p.start();
//
// A fork has all that its parent has: memory that may be large and that other threads were just changing, locks that they held,
// fds. A spawned process has its arguments, the ends of pipes among them, standard input and output, and what its program's
// statics make before main. It costs what starting the program costs. In all else it is a process like another; only it cannot
// be a daemon (std::logic_error), nor see what is shared by fork: ipc queues, locks, shared memory.
//
// The function is one of the program itself (not of a shared library) or a lambda that captures nothing; arguments are packed
// by msgpack-cxx. The model is multiprocessing's start method spawn.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include <ringlet/ipc/message.hpp>
#include <ringlet/ipc/spawn_core.hpp>
#include <ringlet/process.hpp>

namespace ringlet::ipc {

namespace detail {
template <class F>
concept startable = (std::is_pointer_v<F> && std::is_function_v<std::remove_pointer_t<F>>) || (std::is_empty_v<F> && std::is_default_constructible_v<F>);

template <class F, class... Args>
int start_spawned(std::string_view bytes) {
  const msgpack::object_handle whole = msgpack::unpack(bytes.data(), bytes.size());
  const msgpack::object& all = whole.get();
  if (all.type != msgpack::type::ARRAY || all.via.array.size != sizeof...(Args) + 1) throw bad_message("ringlet: a spawned process got arguments that are not its function's");
  F f = [&] {
    if constexpr (std::is_pointer_v<F>)
      return reinterpret_cast<F>(const_cast<void*>(function_at(all.via.array.ptr[0].as<std::uint64_t>())));
    else
      return F{};
  }();
  std::tuple<Args...> arguments;
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    (all.via.array.ptr[I + 1].convert(std::get<I>(arguments)), ...);
  }(std::index_sequence_for<Args...>());
  auto call = [&](auto&... each) -> decltype(auto) { return std::invoke(f, std::move(each)...); };
  if constexpr (std::is_same_v<decltype(std::apply(call, arguments)), int>) {
    return std::apply(call, arguments);
  } else {
    std::apply(call, arguments);
    return 0;
  }
}
}  // namespace detail

// A process, not started yet, that runs f(args...) in a new image of this program, whose main calls run_if_spawned().
template <class F, class... Args>
process spawned(process_options how, F f, Args&&... args) {
  static_assert(detail::startable<F>, "ringlet::ipc::spawned: a function or a lambda that captures nothing; give what it would capture as arguments");
  if (how.daemon) throw std::logic_error("ringlet: a spawned process cannot be a daemon");
  auto replace = [f](detail::carried<Args>&&... held) {
    std::string bytes;
    detail::string_sink sink{bytes};
    msgpack::packer<detail::string_sink> packer(sink);
    packer.pack_array(sizeof...(Args) + 1);
    static_cast<void>(f);
    if constexpr (std::is_pointer_v<F>)
      packer.pack(detail::place_in_program(reinterpret_cast<const void*>(f)));
    else
      packer.pack_nil();
    (packer.pack(std::as_const(held)), ...);
    detail::execute_again(detail::place_in_program(reinterpret_cast<const void*>(&detail::start_spawned<F, detail::carried<Args>...>)), bytes);
  };
  return process(std::move(how), std::move(replace), detail::carried<Args>(std::forward<Args>(args))...);
}

}  // namespace ringlet::ipc

// Ends of pipes among the arguments: the fd itself goes over the exec.
namespace msgpack {
MSGPACK_API_VERSION_NAMESPACE(MSGPACK_DEFAULT_API_NS) {
  namespace adaptor {
  template <>
  struct pack<ringlet::ipc::end> {
    template <class Stream>
    packer<Stream>& operator()(packer<Stream>& to, const ringlet::ipc::end& e) const {
      to.pack_array(3);
      to.pack(e.keep_over_exec());
      to.pack(e.can_send());
      to.pack(e.can_receive());
      return to;
    }
  };
  template <>
  struct convert<ringlet::ipc::end> {
    const msgpack::object& operator()(const msgpack::object& from, ringlet::ipc::end& e) const {
      if (from.type != msgpack::type::ARRAY || from.via.array.size != 3) throw msgpack::type_error();
      const msgpack::object* parts = from.via.array.ptr;
      e = ringlet::ipc::end(ringlet::ipc::byte_end::adopt(parts[0].as<int>(), parts[1].as<bool>(), parts[2].as<bool>()));
      return from;
    }
  };
  }  // namespace adaptor
}
}  // namespace msgpack
